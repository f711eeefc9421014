"""Pictures of a grid: the dev score along each of its axes, and parallel coordinates over all of them."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fusion.arrays import Indices
from fusion.evaluation.task import CLASSIFICATION, Task
from fusion.grid.report.parallel import draw_parallel
from fusion.grid.report.scale import PlotData, Scale, plain, plot_data, scale_of, varied
from fusion.grid.selection import Ranked
from fusion.run.folder import Folder

PARALLEL_PNG = "parallel.png"
POINT, MEAN, BEST = "#5b8db8", "#17263c", "#d1495b"
GOLDEN = 0.618034  # multiples of it, modulo 1, spread evenly however many there are
WIDTH, MIDDLE = 0.5, 0.06  # of the space between two values: where points of one of them lie, and room for the mean
NEIGHBOURS = 6  # groups that numbers too many for a tick each are averaged in
LETTERS_PER_INCH = 9  # of labels side by side


def plot_grid(
    folder: Folder,
    ranked: Sequence[Ranked],
    axes: Sequence[str],
    monitor: str,
    task: Task = CLASSIFICATION,
) -> list[str]:
    """Draws a plot for each axis with at least two values, and parallel coordinates over them.

    Args:
        folder: where the pictures go.
        ranked: the combinations; those that lack a model are not drawn.
        axes: of the grid.
        monitor: the dev score.
        task: task of the grid.

    Returns:
        The names of the files; none where fewer than two combinations can be drawn.

    Raises:
        MmerError: if one cannot be written.
    """
    shown = plot_data(ranked, monitor, task)
    drawn = varied(shown.ranked, axes)
    figures = {f"axis-{quote(axis, safe='')}.png": draw_axis(shown, axis) for axis in drawn}
    if drawn:
        figures[PARALLEL_PNG] = draw_parallel(shown, drawn)
    for name, figure in figures.items():
        with folder.replacing(name) as path:
            figure.savefig(path, dpi=150, format="png")
    return list(figures)


def draw_axis(shown: PlotData, axis: str) -> Figure:
    """Draws the dev score of each combination along an axis, with mean and standard deviation of each value.

    Where each value has one combination, the standard deviation is that over folds.
    """
    scale = scale_of(shown.ranked, axis)
    groups = _groups(scale)
    places = np.array(scale.places) + _jitter(scale, groups)
    figure = Figure(figsize=(_inches(scale), 4.9 if _is_crowded(scale) else 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    plot: Any = figure.add_subplot()
    if len(groups) < len(places):
        points = {"s": 26, "color": POINT, "alpha": _alpha(len(places)), "linewidths": 0}
        plot.scatter(places, shown.scores, **points, label="combination")
    _draw_means(plot, scale, groups, shown)
    best = {"s": 95, "facecolors": "none", "edgecolors": BEST, "linewidths": 1.8, "zorder": 5}
    plot.scatter(places[:1], shown.scores[:1], **best, label="best by mean dev")
    _dress(plot, scale)
    plot.set(xlabel=plain(axis), ylabel=shown.label)
    plot.set_title(shown.title(f"by {plain(axis)}"), fontsize=11)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


def _groups(scale: Scale) -> list[Indices]:
    """Gives the combinations that are averaged together: of one value, or of neighbouring ones where there are many."""
    places = np.array(scale.places)
    if scale.grouped:
        return [np.flatnonzero(places == place) for place in np.unique(places)]
    return [group for group in np.array_split(np.argsort(places, kind="stable"), NEIGHBOURS) if len(group)]


def _jitter(scale: Scale, groups: Sequence[Indices]) -> npt.NDArray[np.float64]:
    """Gives how far each point is moved so that those of one value do not hide each other, ``(combinations,)``."""
    moved = np.zeros(len(scale.places))
    if scale.grouped and len(groups) < len(moved):
        for group in groups:
            aside = (np.arange(len(group)) * GOLDEN + 0.5) % 1 - 0.5
            moved[group] = scale.gap * (WIDTH * aside + np.where(aside < 0, -MIDDLE, MIDDLE))
    return moved


def _draw_means(plot: Any, scale: Scale, groups: Sequence[Indices], shown: PlotData) -> None:
    places, scores = np.array(scale.places), np.array(shown.scores)
    centres, means = ([of[group].mean() for group in groups] for of in (places, scores))
    if len(groups) == len(scores):
        spreads = [shown.spreads[int(group[0])] for group in groups]
        told = "mean ± std over folds" if any(spreads) else "combination"
    else:
        spreads = [float(scores[group].std(ddof=1)) if len(group) > 1 else 0.0 for group in groups]
        told = f"mean ± std of {'each value' if scale.grouped else 'neighbours'}"
    if scale.numeric:
        plot.plot(centres, means, color=MEAN, linewidth=1, alpha=0.5, zorder=3)
    bars = {"fmt": "o", "color": MEAN, "markersize": 7, "markeredgecolor": "white", "capsize": 4, "linewidth": 1.6}
    plot.errorbar(centres, means, yerr=spreads, **bars, zorder=4, label=told)


def _dress(plot: Any, scale: Scale) -> None:
    turned = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if _is_crowded(scale) else {}
    plot.set_xticks(scale.ticks, labels=scale.labels, **turned)
    low, high = scale.limits
    edge = max(0.06 * (high - low), 0.5 * scale.gap if scale.grouped else 0.0)
    plot.set_xlim(low - edge, high + edge)
    plot.margins(y=0.08)
    plot.grid(axis="y", color="#e3e6ea", linewidth=0.8)
    plot.set_axisbelow(True)
    plot.spines[["top", "right"]].set_visible(False)


def _is_crowded(scale: Scale) -> bool:
    return sum(map(len, scale.labels)) > LETTERS_PER_INCH * _inches(scale)


def _inches(scale: Scale) -> float:
    """Gives a width that leaves each value room."""
    return min(max(5.6, 0.45 * len(scale.ticks) + 1.5), 16)


def _alpha(count: int) -> float:
    """Gives how opaque one of so many is drawn."""
    return float(np.clip(6 / np.sqrt(count), 0.25, 0.9))
