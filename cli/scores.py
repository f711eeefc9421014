"""Prints the results of a run: the table of folds, what they mean, and what they took."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from cli.options import print_table, size_text

SHOWN = 5  # utterances over a head's limits that are named; scores.json of each fold lists all


def print_results(results: Mapping[str, Any], notes: Sequence[str], *, latex: bool = False) -> None:
    """Prints a finished run.

    Args:
        results: as `fusion.results.collect` gives them.
        notes: to print below the scores.
        latex: print a row of a LaTeX table too.
    """
    from fusion.results import HEADER, latex_row, score_table

    print_table(HEADER, score_table(results))
    for note in [*notes, *_noted(results["folds"])]:
        click.echo(note)
    click.echo(_cost(results))
    if latex:
        click.echo(latex_row(results))


def _noted(folds: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Gives what the head noted of every fold, and the utterances it cannot take in full."""
    yield from (note for note in folds[0]["notes"] if all(note in one["notes"] for one in folds))
    over = list(dict.fromkeys(name for one in folds for name in one["over_limits"]))
    if over:
        more = f" and {len(over) - SHOWN} more" if len(over) > SHOWN else ""
        told = "test utterances are longer than the head takes in full"
        yield f"{len(over)} {told}: {', '.join(over[:SHOWN])}{more}"


def _cost(results: Mapping[str, Any]) -> str:
    from fusion.results import cost_of
    from fusion.run import RunFolder

    folder = RunFolder(Path(results["run"]))
    seconds, peak_bytes = cost_of(folder, folder.described)
    took = f", {seconds:.1f} s of training, peak {size_text(peak_bytes)}" if seconds else ""
    return f"{results['run']}: {results['folds'][0]['parameters']:,} parameters{took}"
