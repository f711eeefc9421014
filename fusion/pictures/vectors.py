"""Map of vectors: a point for each utterance, an ink for each class."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fusion.arrays import ClassIds
from fusion.pictures.canvas import CLASSES, COLUMN, RULE, drawn, legend_below, new_figure, set_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKS = "osD^vP"  # one for every ten classes
LETTERS = 14  # of a label


def draw_vectors(points: npt.NDArray[Any], classes: ClassIds, names: Sequence[str], title: str = "") -> "Figure":
    """Returns the map of utterances.

    Args:
        points: ``(n, 2)``.
        classes: class of each utterance, int64 ``(n,)``.
        names: names of the classes.
        title: title of the figure.
    """
    figure = new_figure(COLUMN, 3.0 + 0.15 * -(-len(names) // 4))
    axes: Any = figure.add_subplot()
    size = float(np.clip(2200 / max(1, len(points)), 5, 20))
    for index, name in enumerate(names):
        of_class = points[classes == index]
        mark = MARKS[index // len(CLASSES) % len(MARKS)]
        color = CLASSES[index % len(CLASSES)]
        axes.scatter(
            of_class[:, 0],
            of_class[:, 1],
            s=size,
            color=color,
            marker=mark,
            linewidths=0,
            alpha=0.85,
            label=drawn(name, LETTERS),
        )
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color(RULE)
    shape = {"ncols": min(4, len(names)), "handletextpad": 0.1, "columnspacing": 0.9, "markerscale": 1.3}
    legend_below(figure, *names, **shape)
    set_title(figure, title)
    return figure
