"""Confusion matrix: rows are the truth, shades are recall, numbers are utterances and shares of the truth."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fusion.pictures.canvas import (
    CELL,
    COLUMN,
    INK,
    MUTED,
    PAPER,
    SIZE,
    SMALL,
    drawn,
    letters_of,
    new_figure,
    set_title,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LETTERS = 22  # of a label
NARROW = 0.34  # least width of a cell in inches: three digits of `SMALL`
LARGE = 0.5  # inches; numbers are larger in such a cell
DARK = 0.55  # share above which numbers are light


def draw_confusion(counts: npt.NDArray[np.int64], names: Sequence[str], title: str = "") -> "Figure":
    """Returns the figure of a confusion matrix.

    Args:
        counts: numbers of utterances, int64 ``(classes, classes)``, rows are the truth.
        names: names of the classes.
        title: title of the figure.
    """
    from matplotlib.patches import Rectangle

    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    labels = [drawn(name, LETTERS) for name in names]
    margin = 0.45 + 0.065 * max(map(len, labels))  # inches that the labels of the rows take
    width = max(COLUMN, margin + NARROW * len(names))
    cell = (width - margin) / len(names)
    size = SMALL + 1.5 if cell > LARGE else SMALL
    figure = new_figure(width, min(cell, 0.62) * len(names) + 0.3 + 0.75 * margin + (0.2 if title else 0))
    axes = figure.add_subplot()
    for row, column in np.ndindex(counts.shape):
        share = float(shares[row, column])
        axes.add_patch(Rectangle((column, row), 0.95, 0.95, color=CELL, alpha=0.05 + 0.95 * share, linewidth=0))
        ink: Any = {"ha": "center", "color": PAPER if share > DARK else INK}
        percent = "" if counts[row, column] == 0 else f"{100 * share:.0f}%"
        both = counts[row, column] > 0
        axes.text(
            column + 0.475,
            row + (0.36 if both else 0.475),
            f"{counts[row, column]:,}",
            va="center",
            fontsize=size,
            **ink,
        )
        if both:
            axes.text(column + 0.475, row + 0.68, percent, va="center", fontsize=size - 1, **ink)
    axes.set(xlim=(0, len(names)), ylim=(len(names), 0), xlabel="guess", ylabel="truth")
    fonts, middles = letters_of(*names), np.arange(len(names)) + 0.475
    axes.set_xticks(middles, labels=labels, rotation=45, ha="right", rotation_mode="anchor", **fonts)
    axes.set_yticks(middles, labels=labels, **fonts)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=SMALL, colors=INK, pad=2)
    axes.xaxis.label.set(color=MUTED, size=SIZE)
    axes.yaxis.label.set(color=MUTED, size=SIZE)
    set_title(figure, title)
    return figure
