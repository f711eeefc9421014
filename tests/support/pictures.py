"""Stand-ins for pictures in tests of other things: to draw one takes as long as a small training."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import quote

import pytest

from fusion.evaluation.classes import CLASSIFICATION
from fusion.evaluation.statistics import Predictions, RatedPredictions
from fusion.evaluation.task import Task
from fusion.fingerprint import Plain
from fusion.grid.combinations import ModelScores
from fusion.grid.report import plots
from fusion.grid.report.scale import plot_data, varied_axes
from fusion.grid.selection import Ranked
from fusion.run import pictures, results
from fusion.run.folder import CONFUSION_PICTURE, VALUES, Folder, RunFolder

DRAWN = (pictures.plot_run, plots.plot_grid)


def write_run(
    folder: RunFolder, identity: Plain, results: Plain, predictions: Predictions, *, subject: str, kind: str = "png"
) -> None:
    """Writes all that the picture of a confusion matrix, or of rated values, shows to its file, as text."""
    rated = isinstance(predictions, RatedPredictions)
    with folder.replacing(f"{VALUES if rated else CONFUSION_PICTURE}.{kind}") as path:
        names = list(identity["labels"])
        path.write_text(f"{subject} {names} {predictions.truth.tolist()} {predictions.guess.tolist()}")


def write_axes(
    folder: Folder,
    ranked: Sequence[Ranked],
    axes: Sequence[str],
    monitor: str,
    task: Task = CLASSIFICATION,
    *,
    scores: Sequence[ModelScores] = (),
    kind: str = "png",
) -> list[str]:
    """Writes the files of the pictures of a grid, with the name of an axis in each."""
    drawn = varied_axes(plot_data(ranked, monitor, task).ranked, axes)
    names = {f"axis-{quote(axis, safe='')}.{kind}": axis for axis in drawn}
    if drawn:
        names[f"{plots.PARALLEL}.{kind}"] = " ".join(drawn)
    for name, text in names.items():
        with folder.replacing(name) as path:
            path.write_text(text)
    return list(names)


@contextmanager
def pictures_by(plot_run: object, plot_grid: object) -> Iterator[None]:
    """Has pictures made by these functions: `DRAWN`, or the stand-ins."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "plot_run", plot_run)
        patch.setattr(plots, "plot_grid", plot_grid)
        yield
