"""Pictures of a run, by matplotlib without a display."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fusion.run import CONFUSION_PNG, RunFolder


def plot_confusion(folder: RunFolder, counts: npt.NDArray[np.int64], names: Sequence[str], title: str) -> None:
    """Draws a confusion matrix: rows are the truth, shades are recall, numbers are utterances.

    Args:
        folder: where the picture goes.
        counts: int64 ``(classes, classes)``.
        names: of the classes.
        title: over the picture.

    Raises:
        MmerError: if it cannot be written.
    """
    with folder.replacing(CONFUSION_PNG) as path:
        draw_confusion(counts, names, title).savefig(path, dpi=150, format="png")


def draw_confusion(counts: npt.NDArray[np.int64], names: Sequence[str], title: str) -> Figure:
    """Draws the picture that `plot_confusion` writes."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = 0.8 * len(names)
    figure = Figure(figsize=(2.2 + size, 1.6 + size), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    told = [_plain(name) for name in names]
    axes.set_xticks(range(len(names)), labels=told, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), labels=told)
    axes.set(xlabel="guess", ylabel="truth", title=_plain(title))
    for row, column in np.ndindex(counts.shape):
        cell = f"{counts[row, column]:,}\n{100 * shares[row, column]:.0f}%"
        shade = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, cell, ha="center", va="center", color=shade, fontsize=9)
    figure.colorbar(image, label="share of the truth", shrink=0.8)
    return figure


def _plain(text: str) -> str:
    """Keeps a dollar sign from being taken for mathematics."""
    return text.replace("$", r"\$")
