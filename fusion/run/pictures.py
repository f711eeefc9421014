"""Figures of a run: confusion matrix, and rated against predicted values; drawn by matplotlib without a display."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fusion.evaluation.statistics import RatedPredictions
from fusion.run.folder import CONFUSION_PNG, VALUES_PNG, RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_confusion(folder: RunFolder, counts: npt.NDArray[np.int64], names: Sequence[str], title: str) -> None:
    """Writes a figure of a confusion matrix.

    Rows are the truth, shades are recall, numbers are utterances.

    Args:
        folder: folder of the run.
        counts: numbers of utterances, int64 ``(classes, classes)``.
        names: names of the classes.
        title: title of the figure.

    Raises:
        MmerError: if the figure cannot be written.
    """
    with folder.replacing(CONFUSION_PNG) as path:
        draw_confusion(counts, names, title).savefig(path, dpi=150, format="png")


def draw_confusion(counts: npt.NDArray[np.int64], names: Sequence[str], title: str) -> "Figure":
    """Returns the figure that `plot_confusion` writes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # imported here, since it takes a second
    from matplotlib.figure import Figure

    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = 0.8 * len(names)
    figure = Figure(figsize=(2.2 + size, 1.6 + size), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    labels = [_plain(name) for name in names]
    axes.set_xticks(range(len(names)), labels=labels, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), labels=labels)
    axes.set(xlabel="guess", ylabel="truth", title=_plain(title))
    for row, column in np.ndindex(counts.shape):
        cell = f"{counts[row, column]:,}\n{100 * shares[row, column]:.0f}%"
        shade = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, cell, ha="center", va="center", color=shade, fontsize=9)
    figure.colorbar(image, label="share of the truth", shrink=0.8)
    return figure


def plot_values(folder: RunFolder, predictions: RatedPredictions, names: Sequence[str], title: str) -> None:
    """Writes a figure of rated and predicted values.

    Args:
        folder: folder of the run.
        predictions: test predictions of all folds and seeds.
        names: names of the dimensions.
        title: title of the figure.

    Raises:
        MmerError: if the figure cannot be written.
    """
    with folder.replacing(VALUES_PNG) as path:
        draw_values(predictions.truth, predictions.guess, names, title).savefig(path, dpi=150, format="png")


def draw_values(
    truth: npt.NDArray[np.float64], guess: npt.NDArray[np.float64], names: Sequence[str], title: str
) -> "Figure":
    """Returns the figure that `plot_values` writes: a scatter plot for each dimension, with the line of equality."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # imported here, since it takes a second
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.0 + 3.4 * len(names), 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    alpha = min(1.0, max(0.1, 300 / len(truth)))  # thousands of points would cover each other
    for index, name in enumerate(names):
        axes: Any = figure.add_subplot(1, len(names), index + 1)
        both = np.concatenate([truth[:, index], guess[:, index]])
        ends = [float(both.min()), float(both.max())]
        axes.scatter(truth[:, index], guess[:, index], s=8, alpha=alpha, linewidths=0)
        axes.plot(ends, ends, color="grey", linewidth=1)
        axes.set(xlabel="rated", ylabel="predicted", title=_plain(name), aspect="equal")
    figure.suptitle(_plain(title))
    return figure


def _plain(text: str) -> str:
    """Escapes dollar signs, which matplotlib would read as mathematics."""
    return text.replace("$", r"\$")
