"""Rows and file of the probe in the report of a grid: its dev and test scores next to those of the combinations."""

from collections.abc import Sequence

from fusion.evaluation.task import Task
from fusion.fingerprint import Plain
from fusion.grid.report.tables import MISSING, spread_text
from fusion.grid.selection import Spread, spread
from fusion.run.folder import Folder
from fusion.run.names import main_streams

REFERENCE_CSV = "reference.csv"


def ranking_row(reference: Plain, axes: Sequence[str], task: Task, *, tests: bool) -> list[object]:
    """Returns the row below the ranking of the combinations.

    Args:
        reference: scores of the probe, as `fusion.grid.reference.train_reference` returns them.
        axes: names of the axes.
        task: task of the grid.
        tests: whether the ranking has columns of test scores.
    """
    dev, test = spreads(reference, task)
    shown = (dev, test) if tests else (dev,)
    cells = [spread_text(scores, score) for scores in shown for score in task.scores]
    note = f"reference on {', '.join(main_streams(reference['streams']))}"
    return [reference["fusion"], *[MISSING] * len(axes), *cells, note]


def fold_rows(reference: Plain, task: Task, columns: int) -> list[list[object]]:
    """Returns a row for each fold, and one of all, for the table of folds.

    Args:
        reference: scores of the probe.
        task: task of the grid.
        columns: number of columns of the table; those after the scores are empty.
    """
    name = str(reference["fusion"])
    rows: list[list[object]] = [
        [fold["fold"], name, *(score.text(scores.get(score.name)) for scores in _both(fold) for score in task.scores)]
        for fold in reference["folds"]
    ]
    every = (spread_text(scores, score) for scores in spreads(reference, task) for score in task.scores)
    rows.append(["mean", name, *every])
    return [[*row, *[""] * (columns - len(row))] for row in rows]


def spreads(reference: Plain, task: Task) -> tuple[Spread, Spread]:
    """Returns mean and deviation over folds of the dev and of the test scores."""
    dev, test = ({fold["fold"]: [_both(fold)[subset]] for fold in reference["folds"]} for subset in (0, 1))
    return spread(dev, task.names), spread(test, task.names)


def write_reference(folder: Folder, reference: Plain, task: Task) -> None:
    """Writes `REFERENCE_CSV` with a row for each fold.

    Raises:
        MmerError: if the file cannot be written.
    """
    header = ["fold", *(f"{subset}_{name}" for subset in ("dev", "test") for name in task.names)]
    rows = (
        [fold["fold"], *(scores.get(name, "") for scores in _both(fold) for name in task.names)]
        for fold in reference["folds"]
    )
    folder.write_rows(REFERENCE_CSV, header, rows)


def _both(fold: Plain) -> tuple[Plain, Plain]:
    return fold["dev_scores"], fold
