"""Parallel coordinates: every combination of a grid is a line through its values to its dev score."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from fusion.grid.report.scale import PlotData, Scale, plain, scale_of, score_scale

Places = npt.NDArray[np.float64]

SMOOTH = 40  # points of a line between two axes
BAND = 0.4  # of the space between two values: the lines of one value lie side by side in it
WIDEST = 0.14  # of an axis: greatest height of such a band
EDGE = 0.08  # of an axis: what lies beyond its ends, room for half a band
DARK, LIGHT = "#17263c", "#9aa5b1"
MANY = 12  # combinations that can be drawn without being seen through


def draw_parallel(shown: PlotData, axes: Sequence[str]) -> Figure:
    """Draws axes and the dev score side by side; lines are coloured by the score, and the best lies on top.

    Args:
        shown: the combinations.
        axes: those to draw.
    """
    scores = np.array(shown.scores)
    scales = [*(scale_of(shown.ranked, axis) for axis in axes), score_scale(shown.scores)]
    heights = np.stack([_heights(scale, scores) for scale in scales[:-1]] + [_along(scales[-1], scores)])
    figure = Figure(figsize=(2.6 + 1.6 * len(axes), 5), layout="constrained")
    FigureCanvasAgg(figure)
    plot: Any = figure.add_subplot()
    colours = _colours(shown)
    _draw_lines(plot, heights, colours.to_rgba(scores))
    for place, scale in enumerate(scales):
        _draw_axis(plot, place, scale, side=1 if scale is scales[-1] else -1)
    plot.set_xticks(range(len(scales)), labels=[*map(plain, axes), f"dev {shown.name}"])
    plot.tick_params(axis="x", length=0, pad=10, labelsize=10)
    plot.set(xlim=(-0.55, len(axes) + 0.3), ylim=(-EDGE, 1 + EDGE), yticks=[])
    plot.spines[:].set_visible(False)
    plot.set_title(shown.title("over all axes"), fontsize=11)
    figure.colorbar(colours, ax=plot, label=shown.label, shrink=0.9, pad=0.02).outline.set_visible(False)
    return figure


def _along(scale: Scale, places: Places) -> Places:
    """Gives how high on an axis places lie, from 0 to 1."""
    low, high = scale.limits
    return (places - low) / (high - low)


def _heights(scale: Scale, scores: Places) -> Places:
    """Gives how high on an axis the lines cross it, ``(combinations,)``; those of one value in the order of scores."""
    places = np.array(scale.places)
    heights = _along(scale, places)
    distinct = np.unique(heights)
    if not scale.grouped:
        return heights
    band = min(WIDEST, BAND * np.diff(distinct).min()) if len(distinct) > 1 else WIDEST
    moved = heights.copy()
    for height in distinct:
        own = np.flatnonzero(heights == height)
        in_order = own[np.argsort(scores[own], kind="stable")]
        moved[in_order] += band * (np.arange(1, len(own) + 1) / (len(own) + 1) - 0.5)
    return moved


def _colours(shown: PlotData) -> Any:
    """Gives colours of scores: the better, the darker, which is what is seen best on white."""
    low, high = min(shown.scores), max(shown.scores)
    limits = (low, high) if high > low else (low - 0.5, high + 0.5)
    return ScalarMappable(norm=Normalize(*limits), cmap="viridis_r" if shown.more_is_better else "viridis")


def _draw_lines(plot: Any, heights: Places, colours: Places) -> None:
    """Draws the lines, the best of which comes first.

    Args:
        plot: to draw into.
        heights: where each crosses each axis, ``(axes, combinations)``.
        colours: ``(combinations, 4)``.
    """
    share = np.linspace(0, 1, SMOOTH, endpoint=False)
    eased = share**2 * (3 - 2 * share)  # leaves and meets an axis at a right angle
    steps = eased[:, None] * np.diff(heights, axis=0)[:, None]
    between = heights[:-1, None] + steps  # (axes - 1, points, combinations)
    up = np.concatenate([between.reshape(-1, heights.shape[1]), heights[-1:]]).T  # (combinations, points)
    right = np.broadcast_to(np.append(np.arange(len(heights) - 1)[:, None] + share, len(heights) - 1), up.shape)
    lines = list(np.stack([right, up], axis=-1)[::-1])  # the best last, which is on top
    alpha = float(np.clip(np.sqrt(MANY / len(lines)), 0.3, 0.95))
    plot.add_collection(LineCollection(lines[:-1], colors=colours[::-1][:-1], linewidths=1.3, alpha=alpha, zorder=2))
    casing = [withStroke(linewidth=5.5, foreground="white")]
    plot.add_collection(LineCollection(lines[-1:], colors=colours[:1], linewidths=3, path_effects=casing, zorder=3))


def _draw_axis(plot: Any, place: int, scale: Scale, *, side: int) -> None:
    """Draws an axis; its labels are on the left with side -1, on the right with side 1."""
    plot.plot([place, place], [-EDGE, 1 + EDGE], color=LIGHT, linewidth=1, zorder=1)
    outline = [withStroke(linewidth=3, foreground="white", alpha=0.85)]
    for height, label in zip(_along(scale, np.array(scale.ticks)), scale.labels, strict=True):
        plot.plot([place, place + 0.02 * side], [height, height], color=DARK, linewidth=1, zorder=4)
        where = {"ha": "right" if side < 0 else "left", "va": "center", "zorder": 5}
        plot.text(place + 0.04 * side, height, label, **where, fontsize=9, color=DARK, path_effects=outline)
