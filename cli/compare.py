"""The command ``mmer-compare``: compares finished runs over the same test utterances."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.command import Command
from cli.ending import clean_errors
from cli.options import check_one_form, check_run, json_option
from cli.output import echo, print_json, print_table

if TYPE_CHECKING:
    from fusion.run.compare import RunComparison


@click.command(cls=Command)
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN...", type=click.Path(path_type=Path))
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    help="Cache file, or a quoted pattern of files, with the speakers of the utterances.  [default: the first run's]",
)
@click.option(
    "--latex",
    is_flag=True,
    help="Also print the runs as rows of a LaTeX table; a star marks p < 0.05 against the first.",
)
@json_option
def compare(*, runs: tuple[Path, ...], cache: Path | None, latex: bool, as_json: bool) -> None:
    """Compares finished runs with the first RUN, utterance by utterance.

    For each score: the difference with a 95% interval over speakers, a permutation test that exchanges whole speakers,
    and the paired t-test over folds and seeds; for accuracy McNemar's test. The runs must have the same label set and
    the same test utterances.

    \b
    Example:
        mmer-compare runs/demo-audio-wav2vec2-tiny-7f3818a6 runs/demo-rescmfa-wav2vec2-tiny+roberta-tiny-c68a5223
    """
    with clean_errors():
        check_one_form(as_json=as_json, latex=latex)
        _check_runs(runs)
        from fusion.run.compare import compare_runs

        found = compare_runs(runs, cache=cache)
        print_comparison(found, as_json=as_json, latex=latex)


def _check_runs(runs: Sequence[Path]) -> None:
    from fusion.run.folder import check_compared

    for run in runs:
        check_run(run)
    check_compared(runs)


def print_comparison(found: "RunComparison", *, as_json: bool = False, latex: bool = False) -> None:
    """Prints a comparison: a table for each run, then its notes.

    Args:
        found: to print.
        as_json: print one JSON object instead.
        latex: also print rows of a LaTeX table.
    """
    if as_json:
        print_json(found.json)
        return
    for pair in found.pairs:
        print_table(*found.table(pair))
        if line := found.mcnemar_line(pair):
            echo(line)
    echo(found.legend)
    for note in found.notes:
        echo(f"note: {note}")
    if latex:
        echo(found.latex)


if __name__ == "__main__":
    sys.exit(compare())
