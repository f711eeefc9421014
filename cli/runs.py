"""The command ``mmer-runs``: lists the runs and grids of a folder, and deletes those that are named."""

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.command import Command
from cli.ending import clean_errors
from cli.options import json_option
from cli.output import echo, print_json, print_table, size_text

if TYPE_CHECKING:
    from fusion.run.listing import RunList


@click.command(cls=Command)
@click.argument("folder", metavar="[DIR]", default="runs", type=click.Path(path_type=Path))
@click.option(
    "--sort",
    default="name",
    show_default=True,
    metavar="KEY",
    help="Order of the list: name, changed (latest first), size (largest first), a score such as ua (best first), or "
    "a field such as lr.",
)
@click.option(
    "--only",
    multiple=True,
    metavar="FIELD=VALUE",
    help="List only runs with this value, or pattern, of a field, such as head=rescmfa; repeatable.  [default: all]",
)
@click.option(
    "--delete",
    "names",
    multiple=True,
    metavar="NAME",
    help="Delete this run or grid of DIR after a question, and nothing that is not its own; repeatable.  "
    "[default: none]",
)
@click.option("--yes", is_flag=True, help="Delete without a question.")
@json_option
def runs(*, folder: Path, sort: str, only: tuple[str, ...], names: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """Lists the runs and grids in DIR with the fields in which they differ and their mean test scores.

    A grid has a row for each of its reports, with the nested scores. A run in progress is not deleted.

    \b
    Example:
        mmer-runs
        mmer-runs --sort ua --only head=concat
        mmer-runs --delete demo-audio-wav2vec2-tiny-e6ca2552
    """
    with clean_errors():
        from fusion.run.listing import list_runs

        if names:
            _delete(folder, names, yes=yes)
            return
        print_list(list_runs(folder, sort=sort, only=_filters(only)), as_json=as_json)


def print_list(found: "RunList", *, as_json: bool = False) -> None:
    """Prints a list of runs: a table, and the definitions of its scores.

    Args:
        found: to print.
        as_json: print one JSON object instead.
    """
    if as_json:
        print_json(found.json)
        return
    from fusion.run.score_table import definitions

    fields = found.fitting(shutil.get_terminal_size().columns) if sys.stdout.isatty() else found.differing
    print_table(*found.table(fields))
    if hidden := [name for name in found.differing if name not in fields]:
        echo(f"these differ too: {', '.join(hidden)}; --only FIELD=VALUE narrows the list, --json has all fields")
    for task in {run.task.name: run.task for run in found.runs if run.scores}.values():
        echo(definitions(task))
    rest = {"pre-trained encoders": found.pretrainings, "not runs": found.others}
    others = "".join(f"; {kind}: {', '.join(names)}" for kind, names in rest.items() if names)
    count = "1 run or grid" if len(found.runs) == 1 else f"{len(found.runs)} runs and grids"
    echo(f"{found.folder}: {count}, {size_text(found.size_bytes)}{others}")


def _filters(only: tuple[str, ...]) -> dict[str, str]:
    if not only:
        return {}
    from fusion.experiment.fields import parse_fields

    return parse_fields(only, form="FIELD=VALUE", such_as="--only head=rescmfa")


def _delete(folder: Path, names: tuple[str, ...], *, yes: bool) -> None:
    from fusion.run.listing import check_deletable, delete_run

    for name in names:  # a wrong name ends the command before anything is deleted
        check_deletable(folder, name)
    for name in names:
        if not yes and not click.confirm(f"delete {folder / name}?"):
            continue
        left = delete_run(folder, name)
        kept = f", except {', '.join(left)}, which are not its own" if left else ""
        echo(f"deleted {folder / name}{kept}")


if __name__ == "__main__":
    sys.exit(runs())
