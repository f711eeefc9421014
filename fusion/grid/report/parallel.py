"""Parallel coordinates: every combination of a grid is a line through its values to its dev score."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from fusion.grid.report.scale import LETTERS, PlotData, Scale, scale_of, score_scale
from fusion.pictures.canvas import ACCENT, COLUMN, INK, MUTED, SIZE, SMALL, drawn, letters_of, new_figure, set_title

Floats = npt.NDArray[np.float64]

SMOOTH = 40  # points of a line between two axes
BAND = 0.4  # share of the space between two values that the parallel lines of one value take
WIDEST = 0.14  # share of an axis: largest height of such a band
EDGE = 0.08  # share of an axis beyond each end: room for half a band
DARK, LIGHT, WORST = INK, MUTED, "#bcc6d2"
LETTER, LINE = 0.062, 0.11  # inches of a letter and of a line of `SMALL`
MANY = 12  # combinations above which lines are transparent


def draw_parallel(data: PlotData, axes: Sequence[str]) -> Figure:
    """Draws parallel axes and the dev score; lines are coloured by the score, and the best is on top.

    Args:
        data: the combinations.
        axes: names of the axes to draw.
    """
    scores = np.array(data.scores)
    scales = [*(scale_of(data.ranked, axis) for axis in axes), score_scale(data.scores)]
    heights = np.stack([_heights(scale, scores) for scale in scales[:-1]] + [_relative(scales[-1], scores)])
    figure = new_figure(*_size(scales))
    plot: Any = figure.add_subplot()
    colours = _colours(data)
    _draw_lines(plot, heights, colours.to_rgba(scores))
    for index, scale in enumerate(scales):
        _draw_axis(plot, index, scale, side=1 if scale is scales[-1] else -1)
    names = [*(drawn(axis, LETTERS) for axis in axes), f"dev {data.name}"]
    plot.set_xticks(range(len(scales)), labels=names, **letters_of(*names))
    plot.tick_params(axis="x", length=0, pad=5, labelsize=SMALL, labelcolor=INK)
    plot.set(xlim=(-0.55, len(axes) + 0.3), ylim=(-EDGE, 1 + EDGE), yticks=[])
    plot.spines[:].set_visible(False)
    bar: Any = figure.colorbar(colours, ax=plot, shrink=0.9, pad=0.02)
    bar.set_label(data.label, size=SIZE, color=INK)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=SMALL, length=2.5, width=0.6, color=MUTED, labelcolor=INK)
    set_title(figure, data.title("over all axes"))
    return figure


def _size(scales: Sequence[Scale]) -> tuple[float, float]:
    """Computes width and height in inches with room for the labels between axes and above each other."""
    letters = max(len(label) for scale in scales for label in scale.labels)
    between = max(0.8, LETTER * letters + 0.25)
    most = max(len(scale.ticks) for scale in scales)
    return max(COLUMN, 1.3 + between * (len(scales) - 1)), max(2.9, LINE * most + 0.7)


def _relative(scale: Scale, positions: Floats) -> Floats:
    """Computes heights on an axis, in [0, 1], from positions."""
    low, high = scale.limits
    return (positions - low) / (high - low)


def _heights(scale: Scale, scores: Floats) -> Floats:
    """Computes where lines cross an axis, ``(combinations,)``; lines of one value are in the order of scores."""
    heights = _relative(scale, np.array(scale.positions))
    distinct = np.unique(heights)
    if not scale.grouped:
        return heights
    band = min(WIDEST, BAND * np.diff(distinct).min()) if len(distinct) > 1 else WIDEST
    moved = heights.copy()
    for height in distinct:
        group = np.flatnonzero(heights == height)
        ordered = group[np.argsort(scores[group], kind="stable")]
        moved[ordered] += band * (np.arange(1, len(group) + 1) / (len(group) + 1) - 0.5)
    return moved


def _colours(data: PlotData) -> Any:
    """Returns a colour map of scores: better scores are darker on white, and bluer on black."""
    low, high = min(data.scores), max(data.scores)
    inks = LinearSegmentedColormap.from_list("mmer", [WORST, ACCENT])
    limits = (low, high) if high > low else (low - 0.5, high + 0.5)
    return ScalarMappable(norm=Normalize(*limits), cmap=inks if data.score.higher_is_better else inks.reversed())


def _draw_lines(plot: Any, heights: Floats, colours: Floats) -> None:
    """Draws the lines.

    Args:
        plot: axes of matplotlib.
        heights: height of each line on each axis, ``(axes, combinations)``; the best combination is the first.
        colours: colour of each line, ``(combinations, 4)``.
    """
    share = np.linspace(0, 1, SMOOTH, endpoint=False)
    eased = share**2 * (3 - 2 * share)  # lines cross an axis at a right angle
    steps = eased[:, None] * np.diff(heights, axis=0)[:, None]
    between = heights[:-1, None] + steps  # (axes - 1, points, combinations)
    up = np.concatenate([between.reshape(-1, heights.shape[1]), heights[-1:]]).T  # (combinations, points)
    right = np.broadcast_to(np.append(np.arange(len(heights) - 1)[:, None] + share, len(heights) - 1), up.shape)
    lines = list(np.stack([right, up], axis=-1)[::-1])  # the best is the last and therefore on top
    alpha = float(np.clip(np.sqrt(MANY / len(lines)), 0.3, 0.95))
    plot.add_collection(LineCollection(lines[:-1], colors=colours[::-1][:-1], linewidths=0.9, alpha=alpha, zorder=2))
    casing = [withStroke(linewidth=3.5, foreground="white")]
    plot.add_collection(LineCollection(lines[-1:], colors=colours[:1], linewidths=2, path_effects=casing, zorder=3))


def _draw_axis(plot: Any, index: int, scale: Scale, *, side: int) -> None:
    """Draws an axis; labels are on the left with side -1, on the right with side 1."""
    plot.plot([index, index], [-EDGE, 1 + EDGE], color=LIGHT, linewidth=0.8, zorder=1)
    outline = [withStroke(linewidth=2, foreground="white", alpha=0.85)]
    for height, label in zip(_relative(scale, np.array(scale.ticks)), scale.labels, strict=True):
        plot.plot([index, index + 0.02 * side], [height, height], color=DARK, linewidth=0.6, zorder=4)
        alignment = {"ha": "right" if side < 0 else "left", "va": "center", "zorder": 5}
        fonts = {"fontsize": SMALL, "color": DARK, "path_effects": outline, **letters_of(label)}
        plot.text(index + 0.04 * side, height, label, **alignment, **fonts)
