"""Stand-ins for pictures in tests of other things: to draw one takes as long as a small training."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import pytest

from fusion.evaluation.statistics import RatedPredictions
from fusion.evaluation.task import CLASSIFICATION, Task
from fusion.grid.report import plots
from fusion.grid.report.scale import plot_data, varied_axes
from fusion.grid.selection import Ranked
from fusion.run import pictures, results
from fusion.run.folder import CONFUSION_PNG, VALUES_PNG, Folder, RunFolder

DRAWN = (pictures.plot_confusion, plots.plot_grid, pictures.plot_values)


def write_counts(folder: RunFolder, counts: npt.NDArray[np.int64], names: Sequence[str], title: str) -> None:
    """Writes all that the picture of a confusion matrix shows to its file, as text."""
    with folder.replacing(CONFUSION_PNG) as path:
        path.write_text(f"{title} {list(names)} {counts.tolist()}")


def write_axes(
    folder: Folder, ranked: Sequence[Ranked], axes: Sequence[str], monitor: str, task: Task = CLASSIFICATION
) -> list[str]:
    """Writes the files of the pictures of a grid, with the name of an axis in each."""
    drawn = varied_axes(plot_data(ranked, monitor, task).ranked, axes)
    names = {f"axis-{quote(axis, safe='')}.png": axis for axis in drawn}
    if drawn:
        names[plots.PARALLEL_PNG] = " ".join(drawn)
    for name, text in names.items():
        with folder.replacing(name) as path:
            path.write_text(text)
    return list(names)


def write_values(folder: RunFolder, predictions: RatedPredictions, names: Sequence[str], title: str) -> None:
    """Writes what the picture of rated values shows to its file, as text."""
    with folder.replacing(VALUES_PNG) as path:
        path.write_text(f"{title} {list(names)} {predictions.truth.tolist()} {predictions.guess.tolist()}")


@contextmanager
def pictures_by(plot_confusion: object, plot_grid: object, plot_values: object) -> Iterator[None]:
    """Has pictures made by these functions: `DRAWN`, or the stand-ins."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "plot_confusion", plot_confusion)
        patch.setattr(plots, "plot_grid", plot_grid)
        patch.setattr(results, "plot_values", plot_values)
        yield
