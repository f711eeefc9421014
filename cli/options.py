"""What commands share: options, clean errors, tables, lazily loaded subcommands.

Options that say what is trained on what, and the experiment that they ask for.
"""

import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

import click

if TYPE_CHECKING:
    from fusion.experiment.experiment import ExperimentRequest

Number = TypeVar("Number", int, float)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
file_argument = click.argument("file", type=click.Path(path_type=Path))


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called, so that help needs no torch."""

    def __init__(self, *args: Any, commands_at: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._commands_at = commands_at or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names the commands, in the order of the table."""
        return list(self._commands_at)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports a command, given as ``module:name``."""
        if cmd_name not in self._commands_at:
            return None
        module, name = self._commands_at[cmd_name].split(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


@contextmanager
def clean_errors() -> Iterator[None]:
    """Turns an MmerError into one line and exit code 1, and Ctrl-C into a word on how to go on."""
    from cache.errors import MmerError

    try:
        yield
    except MmerError as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted; what is committed stays, and the same command goes on from there")


def fail(message: str) -> None:
    """Prints one line and ends the command with exit code 1."""
    click.echo(f"Error: {' '.join(message.split())}", err=True)
    sys.exit(1)


def check_one_form(*, as_json: bool, latex: bool) -> None:
    """Refuses a row of LaTeX inside an object for machines."""
    from cache.errors import MmerError

    if as_json and latex:
        raise MmerError("--latex prints below the table, and --json prints one object alone; leave one of them out")


def tune_process() -> None:
    """Sets up this process for encoders and heads; called before torch is imported."""
    # Threads of OpenMP spin while they wait, which starves a machine that others use too: with one of two cores busy,
    # early sleep is 1.6 times as fast (benchmarks/bench_process.py). To be set before torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    from featurize.runtime.memory import keep_freed_memory

    keep_freed_memory()


def print_json(value: object) -> None:
    """Prints one JSON object."""
    click.echo(json.dumps(value, ensure_ascii=False))


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints a table: fitted to a terminal, plain text where stdout is anything else.

    In plain text the first column is set to the left and all others to the right.
    """
    texts = [[_cell(value) for value in row] for row in rows]
    if sys.stdout.isatty():
        from cli.terminal import print_fitted

        print_fitted(header, texts)
        return
    cells = [list(header), *texts]
    widths = [max(len(row[place]) for row in cells) for place in range(len(header))]
    for row in cells:
        first, *others = (
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        click.echo("  ".join([first, *others]).rstrip())


def print_aligned(rows: Sequence[Sequence[str]], widths: Sequence[int]) -> None:
    """Prints rows of text without a header, with the last cell wrapped on a terminal.

    Args:
        rows: cells of each row.
        widths: least width in plain text of all columns but the last.
    """
    if sys.stdout.isatty():
        from cli.terminal import print_aligned as print_wrapped

        print_wrapped(rows)
        return
    for *first, last in rows:
        click.echo(" ".join([*(cell.ljust(width) for cell, width in zip(first, widths, strict=True)), last]))


def size_text(size_bytes: float) -> str:
    """Writes a number of bytes for people.

    Example:
        >>> size_text(1_234_567)
        '1.2 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} B" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"


def positive(kind: type[Number]) -> Callable[[click.Context, click.Parameter, Number | None], Number | None]:
    """Makes a callback that refuses numbers of zero and below."""

    def check(ctx: click.Context, param: click.Parameter, value: Number | None) -> Number | None:
        if value is not None and not 0 < value < float("inf"):
            raise click.BadParameter(f"must be a number above 0, got {value}")
        return value

    return check


def share(ctx: click.Context, param: click.Parameter, value: float) -> float:
    """Refuses what is no share of a whole."""
    if not 0 <= value <= 1:
        raise click.BadParameter(f"must be a number from 0 to 1, got {value}")
    return value


OPTIONS: Sequence[Callable[[Any], Any]] = (
    click.option(
        "--fusion",
        metavar="HEAD",
        help="Name of the head, see --list-heads, or package.module:Class of your own; a recipe names its own.",
    ),
    click.option(
        "--cache",
        required=True,
        type=click.Path(path_type=Path),
        help="Cache to train on; a quoted pattern for several files that are one corpus.",
    ),
    click.option("--recipe", help="Settings of a paper, see --list-recipes; NAME:paper for its optimizer too."),
    click.option(
        "--protocol",
        help="session, speaker, session5, random5, official, actor6, actor5, auto.  [default: the corpus']",
    ),
    click.option("--labels", help="Name of a label set, or happy=hap+exc,sad=sad.  [default: the corpus']"),
    click.option(
        "--only",
        multiple=True,
        metavar="COLUMN=VALUE",
        help="Take these utterances alone, such as style=improvised; repeatable, several values by +.",
    ),
    click.option("--audio", metavar="STREAM", help="Stream to read as audio, where the cache has several."),
    click.option("--text", metavar="STREAM", help="Stream to read as text, where the cache has several."),
    click.option(
        "--stream", "streams", multiple=True, metavar="ROLE=STREAM", help="Stream for another role; repeatable."
    ),
    click.option("--modalities", type=click.Choice(["both", "audio", "text"]), help="Read one modality alone."),
    click.option("--modality-dropout", type=float, help="How often training takes one of two modalities away."),
    click.option("--epochs", type=int, callback=positive(int), help="At most."),
    click.option("--batch-size", type=int, callback=positive(int)),
    click.option("--lr", type=float, callback=positive(float), help="Learning rate."),
    click.option("--data-seed", type=int, help="Of random folds, dev parts and the order of batches.  [default: 0]"),
    click.option(
        "--set", "fields", multiple=True, metavar="FIELD=VALUE", help="Any field of head or training; repeatable."
    ),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps."),
    click.option(
        "--resident-share",
        type=float,
        callback=share,
        default=0.5,
        show_default=True,
        help="Share of the device's memory that features may be held in; they are read as needed where they take more.",
    ),
    click.option(
        "--allow-missing", is_flag=True, help="Score the test utterances that have features where some have none."
    ),
    click.option(
        "--allow-leak", is_flag=True, help="Take an encoder that has seen test speakers; printed in the results."
    ),
)


class ExperimentOptions(TypedDict):
    """Values of those of `OPTIONS` that say what is trained on what; None or empty where they are not given."""

    fusion: str | None
    recipe: str | None
    protocol: str | None
    labels: str | None
    only: tuple[str, ...]
    audio: str | None
    text: str | None
    streams: tuple[str, ...]
    modalities: str | None
    modality_dropout: float | None
    epochs: int | None
    batch_size: int | None
    lr: float | None
    data_seed: int | None
    fields: tuple[str, ...]
    allow_missing: bool
    allow_leak: bool


def experiment_request(options: ExperimentOptions, *, seeds: Sequence[int]) -> "ExperimentRequest":
    """Reads the options of an experiment.

    Args:
        options: as given on the command line.
        seeds: of the models; empty for 0 alone.

    Raises:
        MmerError: if a pair is not of its form, a name is given twice, or there is no such head or recipe.
    """
    from fusion.experiment.experiment import ExperimentRequest
    from fusion.experiment.fields import parse_fields, united
    from fusion.protocols.split import parse_filters

    flags: dict[str, object] = {
        "modalities": options["modalities"],
        "modality_dropout": options["modality_dropout"],
        "epochs": options["epochs"],
        "batch_size": options["batch_size"],
        "lr": options["lr"],
        "data_seed": options["data_seed"],
    }
    streams = {role: name for role, name in (("audio", options["audio"]), ("text", options["text"])) if name}
    return ExperimentRequest(
        fusion=options["fusion"] or "",
        recipe=options["recipe"] or "",
        fields=united(_given(flags), parse_fields(options["fields"])),
        streams=united(streams, parse_fields(options["streams"], form="ROLE=STREAM", such_as="--stream mel=logmel80")),
        labels=options["labels"] or None,
        protocol=options["protocol"] or None,
        only=parse_filters(parse_fields(options["only"], form="COLUMN=VALUE", such_as="--only style=improvised")),
        seeds=tuple(seeds) or (0,),
        allow_missing=options["allow_missing"],
        allow_leak=options["allow_leak"],
    )


def experiment_options(command: Any) -> Any:
    """Gives a command the options of `OPTIONS`, in their order."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def _given(options: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in options.items() if value is not None}


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
