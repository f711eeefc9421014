"""Pictures of a run, by matplotlib without a display."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fusion.run import RunFolder

CONFUSION_PNG = "confusion.png"


def plot_confusion(folder: RunFolder, counts: Any, names: Sequence[str], title: str) -> None:
    """Draws a confusion matrix: rows are the truth, shades are recall, numbers are utterances.

    Args:
        folder: where the picture goes.
        counts: ``(classes, classes)``.
        names: of the classes.
        title: over the picture.
    """
    counts = np.asarray(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(1.6 + 0.8 * len(names), 1.2 + 0.8 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), labels=list(names), rotation=45, ha="right")
    axes.set_yticks(range(len(names)), labels=list(names))
    axes.set(xlabel="guess", ylabel="truth", title=title)
    for row, column in np.ndindex(counts.shape):
        told = f"{counts[row, column]:,}\n{100 * shares[row, column]:.0f}%"
        shade = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, told, ha="center", va="center", color=shade, fontsize=9)
    figure.colorbar(image, label="share of the truth", shrink=0.8)
    with folder.replacing(CONFUSION_PNG) as path:
        figure.savefig(path, dpi=150, format="png")
