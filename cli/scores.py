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
        notes: to print below those that are part of the results.
        latex: print a row of a LaTeX table too.
    """
    from fusion.results import HEADER, latex_row, recall_line, score_table

    print_table(HEADER, score_table(results))
    for line in [recall_line(results), *results["notes"], *notes, *_noted(results["folds"])]:
        click.echo(line)
    click.echo(_cost(results))
    if latex:
        click.echo(latex_row(results))


def _noted(folds: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Gives what the head noted of every fold, and the utterances it cannot take in full."""
    from fusion.records import OVER_LIMITS

    yield from (note for note in folds[0]["notes"] if all(note in one["notes"] for one in folds))
    over = {part: _over_limits(folds, key) for part, key in OVER_LIMITS.items()}
    names = list(dict.fromkeys(name for part in over.values() for name in part))
    if names:
        counts = ", ".join(f"{len(own)} {part}" for part, own in over.items() if own)
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        told = "utterances are longer than the head takes in full"
        yield f"{counts} {told}: {', '.join(names[:SHOWN])}{more}"


def _over_limits(folds: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    """Gathers what a part lists over all folds; a sum of runs lists that of test alone."""
    return list(dict.fromkeys(name for one in folds for name in one.get(key, ())))


def _cost(results: Mapping[str, Any]) -> str:
    from fusion.results import cost_of
    from fusion.run import RunFolder

    folder = RunFolder(Path(results["run"]))
    seconds, peak_bytes = cost_of(folder, folder.described)
    took = f", {seconds:.1f} s of training, peak {size_text(peak_bytes)}" if seconds else ""
    return f"{results['run']}: {results['folds'][0]['parameters']:,} parameters{took}"
