"""Class-averaged attention from tokens to frames, each class a panel (LE-MER, arXiv:2309.02106, Fig. 4)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fusion.pictures.canvas import CELL, COLUMN, INK, MUTED, SMALL, drawn, letters_of, new_figure, set_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 2


def draw_attention(by_class: Mapping[str, npt.NDArray[Any]], title: str = "") -> "Figure":
    """Returns a panel for each class: shades are attention in proportion to the greatest of all panels.

    Args:
        by_class: name of the class -> mean attention, ``(token bins, time bins)``; 1 is uniform attention.
        title: title of the figure.
    """
    from matplotlib.patches import Rectangle

    rows = -(-len(by_class) // COLUMNS)
    figure = new_figure(COLUMN, 1.25 * rows + 0.4)
    values = np.stack(list(by_class.values()))
    low, high = float(values.min()), float(values.max())
    for index, (name, panel) in enumerate(by_class.items()):
        axes: Any = figure.add_subplot(rows, COLUMNS, index + 1)
        tokens, frames = panel.shape
        for row, column in np.ndindex(panel.shape):
            shade = (panel[row, column] - low) / max(high - low, 1e-9)
            cell = ((column / frames, row / tokens), 1 / frames * 1.01, 1 / tokens * 1.01)
            axes.add_patch(Rectangle(*cell, color=CELL, alpha=0.04 + 0.96 * float(shade), linewidth=0))
        axes.set(xlim=(0, 1), ylim=(1, 0))
        last = index >= len(by_class) - COLUMNS
        axes.set_xticks([0.02, 0.98], labels=["start", "end"] if last else ["", ""])
        axes.set_yticks([0.04, 0.96], labels=["first", "last"] if index % COLUMNS == 0 else ["", ""])
        axes.tick_params(length=0, labelsize=SMALL - 0.5, colors=MUTED)
        axes.spines[:].set_visible(False)
        axes.set_title(drawn(name, 18), fontsize=SMALL, color=INK, loc="left", pad=2, **letters_of(name))
    figure.supxlabel("recording", fontsize=SMALL, color=INK)
    figure.supylabel("token", fontsize=SMALL, color=INK)
    figure.text(
        0.99, 0.005, f"{low:.2f} to {high:.2f} of uniform", ha="right", va="bottom", fontsize=SMALL - 1, color=MUTED
    )
    set_title(figure, title)
    return figure
