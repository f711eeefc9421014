"""Rated against predicted values, each dimension a panel with the line of equality."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fusion.pictures.canvas import (
    ACCENT,
    COLUMN,
    INK,
    MUTED,
    SIZE,
    drawn,
    letters_of,
    new_figure,
    plain_axes,
    set_title,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_values(
    truth: npt.NDArray[np.float64], guess: npt.NDArray[np.float64], names: Sequence[str], title: str = ""
) -> "Figure":
    """Returns a scatter plot for each dimension.

    Args:
        truth: rated values, ``(n, dimensions)``.
        guess: predicted values, ``(n, dimensions)``.
        names: names of the dimensions.
        title: title of the figure.
    """
    width = max(COLUMN, 2.0 * len(names))
    figure = new_figure(width, min(3.2, width / len(names) + 0.5))
    alpha = min(1.0, max(0.1, 300 / len(truth)))  # thousands of points would cover each other
    for index, name in enumerate(names):
        axes = plain_axes(figure, 1, len(names), index + 1)
        both = np.concatenate([truth[:, index], guess[:, index]])
        ends = [float(both.min()), float(both.max())]
        axes.scatter(truth[:, index], guess[:, index], s=8, alpha=alpha, linewidths=0, color=ACCENT)
        axes.plot(ends, ends, color=MUTED, linewidth=0.9)
        axes.set(xlabel="rated", ylabel="predicted", aspect="equal")
        axes.set_title(drawn(name, 18), fontsize=SIZE, color=INK, **letters_of(name))
    set_title(figure, title)
    return figure
