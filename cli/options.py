"""Options that commands share, the request that they describe, and checks of their values."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

import click

from cli.config import config_option, held_config

if TYPE_CHECKING:
    from featurize.runtime.cluster import Cluster
    from fusion.experiment.request import ExperimentRequest

Number = TypeVar("Number", int, float)
dashboard_option = click.option(
    "--dashboard",
    is_flag=True,
    help="Serve dask's dashboard of the processes of --workers to this machine, on a free port that is printed.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
latex_header_option = click.option(
    "--latex-header", is_flag=True, help="Print the rows of --latex with a row of column names first."
)
quiet_option = click.option(
    "--quiet",
    is_flag=True,
    help="Print no progress, and of the notes only those that limit what the scores mean; files hold all of them.",
)
with_probe_option = click.option(
    "--with-probe",
    is_flag=True,
    help="Also train head probe, a logistic regression of seconds, on the same streams and folds, and print its scores "
    "in the same table.",
)
pictures_option = click.option(
    "--pictures",
    type=click.Choice(["png", "svg", "pdf"]),
    default="png",
    show_default=True,
    help="Format of the pictures in the folder.",
)
file_argument = click.argument("file", type=click.Path(path_type=Path))


def check_one_form(*, as_json: bool, latex: bool) -> None:
    """Checks that a LaTeX row is not requested together with JSON.

    Raises:
        MmerError: if both are requested.
    """
    from cache.errors import MmerError

    if as_json and latex:
        raise MmerError("--latex and --json exclude each other (--json prints one object only); leave one of them out")


def check_device(name: str) -> None:
    """Checks the form of the name of a device, before torch is imported, which knows the devices of this machine.

    Raises:
        MmerError: if no device can have that name.
    """
    from featurize.runtime.device_name import check_device_name

    check_device_name(name)


def check_run(run: Path) -> None:
    """Checks that the folder of a run exists, before torch is imported; a bundle of a hub is looked up later.

    Raises:
        MmerError: if it does not exist, or is not a run.
    """
    from fusion.run.folder import RUN, RunFolder

    if not str(run).startswith("hf:") and not (run / RUN).exists():
        RunFolder(run).record  # noqa: B018 - raises the error


def tune_process() -> None:
    """Sets up this process for encoders and heads; called before torch is imported."""
    # Waiting OpenMP threads spin, which slows a machine that other programs use too: with one of two cores busy, early
    # sleep is 1.6 times as fast (benchmarks/bench_process.py). It takes effect only if it is set before torch loads.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # Messages of transformers while it loads a label encoder; both take effect when transformers is imported.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from featurize.runtime.memory import keep_freed_memory

    keep_freed_memory()


def positive(kind: type[Number]) -> Callable[[click.Context, click.Parameter, Number | None], Number | None]:
    """Builds a callback that accepts finite numbers above zero only."""

    def check(ctx: click.Context, param: click.Parameter, value: Number | None) -> Number | None:
        if value is not None and not 0 < value < float("inf"):
            raise click.BadParameter(f"must be a number above 0, got {value}")
        return value

    return check


def within(
    least: Number, most: float = float("inf")
) -> Callable[[click.Context, click.Parameter, Number | None], Number | None]:
    """Builds a callback that accepts numbers of a range; its help text, not click, states the range.

    Args:
        least: least number.
        most: greatest number.
    """

    def check(ctx: click.Context, param: click.Parameter, value: Number | None) -> Number | None:
        if value is not None and not least <= value <= most:
            allowed = f"from {least} to {most}" if most < float("inf") else f"of at least {least}"
            raise click.BadParameter(f"must be a number {allowed}, got {value}")
        return value

    return check


folds_option = click.option(
    "--folds",
    "folds_file",
    metavar="FILE",
    help="Folds of your own instead of a protocol: a table with the columns id,fold or id,fold,subset (the manifest "
    "may have them), or emobox:DIR for EmoBox's JSON lines.  [default: none]",
)

OPTIONS: Sequence[Callable[[Any], Any]] = (
    config_option,
    click.option(
        "--fusion",
        metavar="HEAD",
        help="Fusion head: a name (see --list-heads) or package.module:Class.  [default: the recipe's head]",
    ),
    click.option(
        "--cache",
        required=True,
        type=click.Path(path_type=Path),
        help="Cache file to train on, or a quoted pattern of several files that form one corpus.",
    ),
    click.option(
        "--recipe",
        help="Settings of a paper (see --list-recipes); NAME:paper also takes its optimizer.  [default: none]",
    ),
    click.option(
        "--protocol",
        help="Split into training, development and test subsets: session, speaker, loso (leave one speaker out), "
        "session5, speakers:K (K groups of speakers), random5, official, actor6 (EmoBox's folds of RAVDESS), "
        "actor5 (five groups of speakers) or auto.  "
        "[default: that of the corpus]",
    ),
    folds_option,
    click.option(
        "--labels",
        help="Label set: a name, or classes over raw labels such as happy=hap+exc,sad=sad.  [default: the corpus']",
    ),
    click.option(
        "--target",
        metavar="TARGET",
        help="Target to predict: classes; rated dimensions such as valence,activation,dominance (with the scale of the "
        "ratings, valence=1:5); soft for the votes of annotators, or soft,ties to train on ties too.  "
        "[default: classes]",
    ),
    click.option(
        "--only",
        multiple=True,
        metavar="COLUMN=VALUE",
        help="Use only utterances with this value of a column, the corpus' own columns included, such as "
        "style=improvised; join values by +; repeatable.  [default: all]",
    ),
    click.option("--audio", metavar="STREAM", help="Stream to read as audio.  [default: the only one that fits]"),
    click.option("--text", metavar="STREAM", help="Stream to read as text.  [default: the only one that fits]"),
    click.option(
        "--stream",
        "streams",
        multiple=True,
        metavar="ROLE=STREAM",
        help="Stream to read for another role, such as mel=logmel80; repeatable.  [default: the only one that fits]",
    ),
    click.option(
        "--modalities",
        type=click.Choice(["both", "audio", "text"]),
        help="Modalities that the head reads.  [default: both]",
    ),
    click.option(
        "--modality-dropout",
        type=float,
        help="Probability, in [0, 1), that training drops one of two modalities of an utterance.  [default: 0]",
    ),
    click.option(
        "--tune",
        "tunes",
        multiple=True,
        metavar="ROLE[=DEPTH]",
        help="Encoder that learns with the head: audio, text or patches; DEPTH is all, a number of top layers, "
        "wave (from the recordings, convolutions too) or lora:RANK; repeatable; none for frozen features.  "
        "[default: that of the recipe]",
    ),
    click.option(
        "--encoder",
        "encoders",
        multiple=True,
        metavar="NAME=FOLDER",
        help="Folder with the weights of an encoder that learns, if it did not come from a hub; repeatable.  "
        "[default: none]",
    ),
    click.option(
        "--root",
        type=click.Path(path_type=Path),
        help="Folder of the corpus, for --tune audio=wave.  [default: the one that the cache records]",
    ),
    click.option(
        "--epochs",
        type=int,
        callback=positive(int),
        help="Maximum number of epochs, above 0; early stopping may end sooner.  [default: see --list-fields]",
    ),
    click.option(
        "--batch-size",
        type=int,
        callback=positive(int),
        help="Number of utterances in a batch, above 0.  [default: see --list-fields]",
    ),
    click.option(
        "--lr",
        type=float,
        callback=positive(float),
        help="Learning rate after the warm-up, above 0.  [default: see --list-fields]",
    ),
    click.option(
        "--data-seed",
        type=int,
        help="Random seed, 0 or more, of folds, development subsets and the order of batches.  [default: 0]",
    ),
    click.option(
        "--set",
        "fields",
        multiple=True,
        metavar="FIELD=VALUE",
        help="Value of any field of the head or its training (see --list-fields HEAD); repeatable.  [default: none]",
    ),
    click.option(
        "--label-encoder",
        metavar="ENCODER",
        help="Text encoder that reads the words of each class for label embeddings: [NAME=]SOURCE[@LAYERS] as in "
        "mmer-featurize, or off for cached vectors of the words.  [default: that of the text stream, if available]",
    ),
    click.option(
        "--device", default="auto", show_default=True, help="Device to train on: auto, cpu, cuda, cuda:N or mps."
    ),
    click.option(
        "--resident-share",
        type=float,
        callback=within(0, 1),
        default=0.5,
        show_default=True,
        help="Share of the device's memory that features may fill, from 0 to 1; larger features are read as needed.",
    ),
    click.option(
        "--allow-missing",
        is_flag=True,
        help="Score only the test utterances that have features instead of failing when some have none.",
    ),
    click.option(
        "--allow-leak", is_flag=True, help="Accept an encoder that was trained on test speakers; the results state it."
    ),
)


class ExperimentOptions(TypedDict):
    """Values of the options in `OPTIONS` that define an experiment; None or empty if not given."""

    fusion: str | None
    recipe: str | None
    protocol: str | None
    folds_file: str | None
    labels: str | None
    target: str | None
    only: tuple[str, ...]
    audio: str | None
    text: str | None
    streams: tuple[str, ...]
    modalities: str | None
    modality_dropout: float | None
    tunes: tuple[str, ...]
    encoders: tuple[str, ...]
    root: Path | None
    epochs: int | None
    batch_size: int | None
    lr: float | None
    data_seed: int | None
    fields: tuple[str, ...]
    label_encoder: str | None
    allow_missing: bool
    allow_leak: bool


def worker_cluster(
    workers: int | None, scheduler: str | None, device: str, *, dashboard: bool = False
) -> "AbstractContextManager[Cluster | None]":
    """Starts processes on this machine, or connects to a dask cluster; None without either.

    Args:
        workers: number of processes to start.
        scheduler: address of a dask scheduler.
        device: device of each worker, as on the command line.
        dashboard: serve dask's dashboard of processes that are started here.

    Raises:
        MmerError: if both are given, or a dashboard without processes to start.
    """
    from cache.errors import MmerError

    if workers and scheduler:
        raise MmerError("--workers starts processes here, --scheduler joins a cluster; give one of the two")
    if dashboard and not workers:
        raise MmerError("--dashboard shows the processes of --workers; leave it out")
    if not workers and not scheduler:
        return nullcontext()
    from featurize.runtime.cluster import Workers, cluster_of

    return cluster_of(Workers(count=workers or 0, scheduler=scheduler or "", device=device, dashboard=dashboard))


def experiment_request(
    options: ExperimentOptions, *, seeds: Sequence[int], tune_all: bool = False
) -> "ExperimentRequest":
    """Builds the request that the options of an experiment describe.

    Args:
        options: values from the command line.
        seeds: random seeds of the models; empty means seed 0 only.
        tune_all: without --tune, the encoder of every role learns.

    Raises:
        MmerError: if a pair has the wrong form, a name is given twice, or the head or recipe is unknown.
    """
    from fusion.end_to_end.label_encoder import LabelEncoders
    from fusion.experiment.config_file import TABLES
    from fusion.experiment.fields import parse_fields, united
    from fusion.experiment.request import ExperimentRequest
    from fusion.protocols.filters import parse_filters
    from fusion.protocols.own_folds import read_own_folds

    flags: dict[str, object] = {
        "modalities": options["modalities"],
        "modality_dropout": options["modality_dropout"],
        "epochs": options["epochs"],
        "batch_size": options["batch_size"],
        "lr": options["lr"],
        "data_seed": options["data_seed"],
    }
    config = held_config()
    held: dict[str, dict[str, str]] = {name: config.texts(name) if config else {} for name in TABLES}
    folders = parse_fields(options["encoders"], form="NAME=FOLDER", such_as="--encoder my-encoder=folder")
    only = parse_fields(options["only"], form="COLUMN=VALUE", such_as="--only style=improvised")
    named = parse_fields(options["streams"], form="ROLE=STREAM", such_as="--stream mel=logmel80")
    streams = {role: name for role, name in (("audio", options["audio"]), ("text", options["text"])) if name}
    return ExperimentRequest(
        fusion=options["fusion"] or "",
        recipe=options["recipe"] or "",
        fields={**held["set"], **united(_given(flags), parse_fields(options["fields"]))},
        streams={**held["stream"], **united(streams, named)},
        labels=options["labels"] or None,
        target=options["target"] or "",
        protocol=options["protocol"] or None,
        only=parse_filters({**held["only"], **only}),
        seeds=tuple(seeds) or (0,),
        allow_missing=options["allow_missing"],
        allow_leak=options["allow_leak"],
        label_encoders=LabelEncoders(requested=options["label_encoder"] or ""),
        tune=options["tunes"],
        tune_all=tune_all,
        encoders={name: Path(folder) for name, folder in {**held["encoder"], **folders}.items()},
        root=options["root"],
        own_folds=read_own_folds(options["folds_file"]) if options["folds_file"] else None,
    )


def experiment_options(command: Any) -> Any:
    """Adds the options in `OPTIONS` to a command, in their order."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def _given(options: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in options.items() if value is not None}
