"""Plots of a grid: the dev score along each axis, parallel coordinates over all axes; of an ablation, its changes.

An average over all combinations with a value means something where the other axes are crossed with it. In an ablation,
where each combination changes the base in a way of its own, it does not: the plot is then a dot for each change.
"""

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from fusion.arrays import Indices
from fusion.evaluation.classes import CLASSIFICATION
from fusion.evaluation.task import Task
from fusion.grid.combinations import ModelScores
from fusion.grid.report.ablation import changes_to_base, is_ablation
from fusion.grid.report.parallel import draw_parallel
from fusion.grid.report.scale import LETTERS, PlotData, Scale, plot_data, scale_of, varied_axes
from fusion.grid.selection import Ranked
from fusion.pictures.canvas import (
    ACCENT,
    COLUMN,
    INK,
    PAGE,
    SECOND,
    drawn,
    legend_below,
    letters_of,
    new_figure,
    plain_axes,
    save,
    set_title,
)
from fusion.pictures.changes import draw_changes
from fusion.run.folder import Folder

PARALLEL, ABLATION = "parallel", "ablation"  # without the ending of the format
POINT, MEAN, BEST = ACCENT, INK, SECOND
GOLDEN = 0.618034  # golden ratio: its multiples modulo 1 are spread evenly, whatever their number
WIDTH, MIDDLE = 0.12, 0.03  # shares of the space between two values: points this close read as the same value
NEIGHBOURS = 6  # groups of neighbours that are averaged where numbers are too many for a tick each
LETTERS_PER_INCH = 13  # of labels in a row


def plot_grid(
    folder: Folder,
    ranked: Sequence[Ranked],
    axes: Sequence[str],
    monitor: str,
    task: Task = CLASSIFICATION,
    *,
    scores: Sequence[ModelScores] = (),
    kind: str = "png",
) -> list[str]:
    """Writes a plot for each axis with at least two values and parallel coordinates; of an ablation, its changes.

    Args:
        folder: folder of the files.
        ranked: the combinations; only complete ones are drawn.
        axes: names of the axes.
        monitor: name of the dev score.
        task: task of the grid.
        scores: scores of the models, for the intervals of an ablation.
        kind: format of the files: ``png``, ``svg`` or ``pdf``.

    Returns:
        Names of the files; empty if fewer than two combinations can be drawn.

    Raises:
        MmerError: if a file cannot be written.
    """
    figures = {f"{name}.{kind}": figure for name, figure in grid_figures(ranked, axes, monitor, task, scores).items()}
    for name, figure in figures.items():
        with folder.replacing(name) as path:
            save(figure, path, kind)
    return list(figures)


def grid_figures(
    ranked: Sequence[Ranked],
    axes: Sequence[str],
    monitor: str,
    task: Task = CLASSIFICATION,
    scores: Sequence[ModelScores] = (),
) -> dict[str, Figure]:
    """Returns the figures that `plot_grid` writes, by the name of the file without its ending."""
    data = plot_data(ranked, monitor, task)
    drawn = varied_axes(data.ranked, axes)
    if is_ablation(data.ranked, drawn):
        found = changes_to_base(data.ranked, scores, monitor, task)
        note = "bars: 95% of the difference to the base, paired by fold (t)" if found.paired else ""
        left_out = f"; {data.left_out} failed left out" if data.left_out else ""
        title = f"dev {data.name} of the base and of each change{left_out}"
        return {ABLATION: draw_changes(found.base, found.changes, label=data.label, note=note, title=title)}
    figures = {f"axis-{quote(axis, safe='')}": draw_axis(data, axis) for axis in drawn}
    return {**figures, PARALLEL: draw_parallel(data, drawn)} if drawn else figures


def draw_axis(data: PlotData, axis: str) -> Figure:
    """Draws the dev score of each combination along an axis, with mean and standard deviation of each value.

    If each value has one combination, the standard deviation is that over folds.
    """
    scale = scale_of(data.ranked, axis)
    groups = _groups(scale)
    positions = np.array(scale.positions) + _jitter(scale, groups)
    figure = new_figure(_inches(scale), 3.1 if _is_crowded(scale) else 2.6)
    plot = plain_axes(figure)
    if len(groups) < len(positions):
        points = {"s": 11, "color": POINT, "alpha": _alpha(len(positions)), "linewidths": 0}
        plot.scatter(positions, data.scores, **points, label="combination")
    _draw_means(plot, scale, groups, data)
    best = {"s": 42, "facecolors": "none", "edgecolors": BEST, "linewidths": 1.3, "zorder": 5}
    plot.scatter(positions[:1], data.scores[:1], **best, label="best by mean dev")
    _format_axes(plot, scale)
    plot.set_xlabel(drawn(axis, LETTERS), **letters_of(axis))
    plot.set_ylabel(data.label)
    legend_below(figure, ncols=3, handletextpad=0.3, columnspacing=0.9, handlelength=1.2)
    set_title(figure, data.title(f"by {axis}"))
    return figure


def _groups(scale: Scale) -> list[Indices]:
    """Returns the combinations to average: those of one value, or neighbours if there are many values."""
    positions = np.array(scale.positions)
    if scale.grouped:
        return [np.flatnonzero(positions == position) for position in np.unique(positions)]
    return [group for group in np.array_split(np.argsort(positions, kind="stable"), NEIGHBOURS) if len(group)]


def _jitter(scale: Scale, groups: Sequence[Indices]) -> npt.NDArray[np.float64]:
    """Returns horizontal offsets, ``(combinations,)``, so that points of one value do not hide each other."""
    offsets = np.zeros(len(scale.positions))
    if scale.grouped and len(groups) < len(offsets):
        for group in groups:
            spread = (np.arange(len(group)) * GOLDEN + 0.5) % 1 - 0.5  # in [-0.5, 0.5)
            offsets[group] = scale.gap * (WIDTH * spread + np.where(spread < 0, -MIDDLE, MIDDLE))
    return offsets


def _draw_means(plot: Any, scale: Scale, groups: Sequence[Indices], data: PlotData) -> None:
    positions, scores = np.array(scale.positions), np.array(data.scores)
    centres, means = ([values[group].mean() for group in groups] for values in (positions, scores))
    if len(groups) == len(scores):
        spreads = [data.spreads[int(group[0])] for group in groups]
        label = "mean ± std over folds" if any(spreads) else "combination"
    else:
        spreads = [float(scores[group].std(ddof=1)) if len(group) > 1 else 0.0 for group in groups]
        label = f"mean ± std of {'each value' if scale.grouped else 'neighbours'}"
    if scale.numeric:
        plot.plot(centres, means, color=MEAN, linewidth=0.8, alpha=0.5, zorder=3)
    bars = {"fmt": "o", "color": MEAN, "markersize": 4.5, "markeredgecolor": "white", "capsize": 2.5, "linewidth": 1.1}
    plot.errorbar(centres, means, yerr=spreads, **bars, zorder=4, label=label)


def _format_axes(plot: Any, scale: Scale) -> None:
    rotation = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if _is_crowded(scale) else {}
    plot.set_xticks(scale.ticks, labels=scale.labels, **rotation, **letters_of(*scale.labels))
    low, high = scale.limits
    edge = max(0.06 * (high - low), 0.5 * scale.gap if scale.grouped else 0.0)
    plot.set_xlim(low - edge, high + edge)
    plot.margins(y=0.08)


def _is_crowded(scale: Scale) -> bool:
    return sum(map(len, scale.labels)) > LETTERS_PER_INCH * _inches(scale)


def _inches(scale: Scale) -> float:
    """Computes a width in inches with room for each value."""
    return min(max(COLUMN, 0.22 * len(scale.ticks) + 0.6), PAGE)


def _alpha(count: int) -> float:
    """Computes the opacity of a point among many."""
    return float(np.clip(6 / np.sqrt(count), 0.25, 0.9))
