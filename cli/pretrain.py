"""The command ``mmer-pretrain``: pre-trains a speech encoder on the training subset of each fold."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import click

from cli.command import Command
from cli.ending import clean_errors
from cli.options import check_device, folds_option, json_option, positive, tune_process, within
from cli.output import echo, print_json, print_table, size_text

if TYPE_CHECKING:
    from cache.joined import AnyCache
    from fusion.end_to_end.pretraining.config import PretrainConfig
    from fusion.end_to_end.pretraining.pretrain import PretrainedRun

# Options of the settings, by the field of `PretrainConfig` that they set; `--set` sets all of them.
SETTINGS: Sequence[Callable[[Any], Any]] = (
    click.option("--epochs", type=int, callback=positive(int), help="Number of epochs, above 0.  [default: 20]"),
    click.option(
        "--steps",
        type=int,
        callback=positive(int),
        help="Number of steps, above 0, instead of whole epochs.  [default: epochs]",
    ),
    click.option(
        "--batch-size",
        type=int,
        callback=positive(int),
        help="Number of utterances in a batch, above 0.  [default: 16]",
    ),
    click.option(
        "--max-seconds",
        type=float,
        callback=positive(float),
        help="Longest part of an utterance that a step reads, in seconds above 0; cut at random.  [default: 20]",
    ),
    click.option(
        "--lr",
        type=float,
        callback=positive(float),
        help="Learning rate after the warm-up, above 0; it falls linearly to 0.  [default: 0.0001]",
    ),
    click.option(
        "--warmup-steps",
        type=int,
        help="Number of steps of the linear warm-up, 0 or more.  [default: a tenth of all steps]",
    ),
    click.option(
        "--gumbel-max",
        type=float,
        help="Temperature of the Gumbel softmax at the first step, at least --gumbel-min.  [default: 2]",
    ),
    click.option("--gumbel-min", type=float, help="Lowest temperature of the Gumbel softmax, above 0.  [default: 0.5]"),
    click.option(
        "--gumbel-decay",
        type=float,
        help="Factor, in (0, 1], of that temperature from step to step.  [default: 0.999995]",
    ),
    click.option(
        "--precision",
        type=click.Choice(["float32", "bfloat16", "float16"]),
        help="Precision of the Transformer.  [default: float32]",
    ),
    click.option(
        "--seed", type=int, help="Random seed, 0 or more, of masks, negatives, dropout and noise.  [default: 0]"
    ),
    click.option(
        "--data-seed",
        type=int,
        help="Random seed, 0 or more, of folds, development subsets and the order of batches.  [default: 0]",
    ),
)


class PretrainSettings(TypedDict):
    """Values of the options in `SETTINGS`; None if not given."""

    epochs: int | None
    steps: int | None
    batch_size: int | None
    max_seconds: float | None
    lr: float | None
    warmup_steps: int | None
    gumbel_max: float | None
    gumbel_min: float | None
    gumbel_decay: float | None
    precision: str | None
    seed: int | None
    data_seed: int | None


def settings_options(command: Any) -> Any:
    """Adds the options in `SETTINGS` to a command, in their order."""
    for option in reversed(SETTINGS):
        command = option(command)
    return command


@click.command(cls=Command)
@click.option(
    "--cache",
    required=True,
    type=click.Path(path_type=Path),
    help="Cache file of the corpus, or a quoted pattern of several files that form one corpus.",
)
@click.option(
    "--encoder",
    required=True,
    metavar="[NAME=]SOURCE",
    help="Encoder with a quantizer: catalog name, hub id, folder, or the name of an encoder in the cache.",
)
@click.option(
    "--from",
    "start",
    type=click.Choice(["conv", "wave"]),
    default="conv",
    show_default=True,
    help="Start from the stream NAME@conv (the convolutions stay frozen), or from the recordings (they learn too).",
)
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    help="Folder of the recordings, for --from wave.  [default: the folder that the cache records]",
)
@click.option(
    "--protocol",
    help="Split into folds: session, speaker, loso (leave one speaker out), session5, speakers:K (K groups of "
    "speakers), random5, official, actor6 (EmoBox's folds of RAVDESS), actor5 (five groups of speakers) or auto.  "
    "[default: that of the corpus]",
)
@folds_option
@click.option(
    "--labels",
    help="Label set; utterances of other labels take no part.  [default: that of the corpus]",
)
@click.option(
    "--only",
    multiple=True,
    metavar="COLUMN=VALUE",
    help="Use only utterances with this value of a column, the corpus' own columns included, such as style=improvised; "
    "join values by +; repeatable.  [default: all]",
)
@click.option("--fold", "folds", multiple=True, help="Fold to pre-train on; repeatable.  [default: all folds]")
@settings_options
@click.option(
    "--set",
    "fields",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Value of any field of the settings, such as mask_prob=0.5 (docs/pretrain.md lists them); repeatable.  "
    "[default: none]",
)
@click.option("--device", default="auto", show_default=True, help="Device to train on: auto, cpu, cuda, cuda:N or mps.")
@click.option(
    "--resident-share",
    type=float,
    callback=within(0, 1),
    default=0.5,
    show_default=True,
    help="Share of the device's memory that features may fill, from 0 to 1; larger features are read as needed.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Run folder to write.  [default: runs/CACHE-pretrain-ENCODER-DIGEST]"
)
@click.option("--replace", is_flag=True, help="Delete another pre-training that the run folder holds; train again.")
@click.option("--allow-leak", is_flag=True, help="Accept an encoder that was trained on test speakers of a fold.")
@json_option
def pretrain(
    *,
    cache: Path,
    fields: tuple[str, ...],
    device: str,
    resident_share: float,
    out: Path | None,
    replace: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Pre-trains a speech encoder on the training subset of each fold, without labels.

    The encoder of each fold becomes a folder that mmer-featurize reads; the command is printed. A run that was killed
    is resumed by the same command.

    \b
    Example:
        mmer-pretrain --cache cache/iemocap.h5 --encoder wav2vec2-base --protocol session --fold 2
    """
    with clean_errors():
        from cache.joined import open_cache

        opened = open_cache(cache)  # before torch is imported, so that a wrong path is answered at once
        config = _settings(options, fields)
        check_device(device)
        tune_process()
        run = _pretrained(opened, cache, config, options, device, out=out, share=resident_share, replace=replace)
        print_pretrained(run, as_json=as_json)


def print_pretrained(run: "PretrainedRun", *, as_json: bool = False) -> None:
    """Prints a finished pre-training: the table of losses, notes, cost, and the command that comes next.

    Args:
        run: to print.
        as_json: print it as one JSON object instead.
    """
    if as_json:
        print_json(run.results)
        return
    print_table(*run.table)
    for line in run.notes:
        echo(line)
    peak = size_text(max(fold.peak_bytes for fold in run.folds))
    echo(f"{run.folder}: {sum(fold.seconds for fold in run.folds):.1f} s of training, peak {peak}")
    echo("make streams of the encoders with")
    echo(run.command)


def _settings(options: dict[str, Any], fields: Sequence[str]) -> "PretrainConfig":
    from fusion.config import configured
    from fusion.end_to_end.pretraining.config import PretrainConfig
    from fusion.experiment.fields import parse_fields, united

    given = {name: options.pop(name) for name in PretrainSettings.__annotations__}
    flags = {name: value for name, value in given.items() if value is not None}
    return configured(PretrainConfig, united(flags, parse_fields(fields)), owner="pre-training")


def _pretrained(
    opened: "AnyCache",
    cache: Path,
    config: "PretrainConfig",
    options: dict[str, Any],
    device: str,
    *,
    out: Path | None,
    share: float,
    replace: bool,
) -> "PretrainedRun":
    import transformers

    from cli.progress import PretrainBar
    from featurize.runtime.device import choose_device
    from fusion.end_to_end.pretraining.pretrain import PretrainRequest, pretrain_encoder
    from fusion.experiment.fields import parse_fields
    from fusion.protocols.filters import parse_filters
    from fusion.protocols.own_folds import read_own_folds
    from fusion.training.interrupt import deferred_interrupts

    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    filters = parse_filters(parse_fields(options.pop("only"), form="COLUMN=VALUE", such_as="--only style=improvised"))
    file = options.pop("folds_file")
    own_folds = read_own_folds(file) if file else None
    request = PretrainRequest(config=config, only=filters, own_folds=own_folds, **options)
    with PretrainBar() as bar, deferred_interrupts() as stopping:
        return pretrain_encoder(
            request,
            opened,
            out=out,
            named_after=cache,
            device=choose_device(device),
            progress=bar,
            resident_share=share,
            replace=replace,
            stopping=stopping,
        )


if __name__ == "__main__":
    sys.exit(pretrain())
