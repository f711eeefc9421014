"""Scores as dots with intervals, and the scores of folds as bars."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from fusion.pictures.canvas import (
    ACCENT,
    CLASSES,
    COLUMN,
    INK,
    MUTED,
    SMALL,
    drawn,
    legend_below,
    letters_of,
    new_figure,
    plain_axes,
    set_title,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Ends: TypeAlias = tuple[float, float] | None
LETTERS = 26  # of the name of a run
BARS = 0.72  # share of the space of a fold that its bars take


def draw_scores(
    scores: Sequence[str], runs: Mapping[str, Mapping[str, tuple[float, Ends]]], label: str = "", title: str = ""
) -> "Figure":
    """Returns a dot with its interval for each score and run.

    Args:
        scores: titles of the scores, from the top.
        runs: name of a run -> title of a score -> value and ends of its interval, as they are printed.
        label: label of the axis, with the unit.
        title: title of the figure.
    """
    count = len(runs)
    figure = new_figure(COLUMN, 0.75 + len(scores) * (0.14 + 0.17 * count) + (0.16 * count if count > 1 else 0))
    axes = plain_axes(figure, grid="x")
    offsets = (np.arange(count) - (count - 1) / 2) * min(0.2, 0.75 / count)
    for index, (name, values) in enumerate(runs.items()):
        color = ACCENT if count == 1 else CLASSES[index % len(CLASSES)]
        for row, score in enumerate(scores):
            if score not in values:
                continue
            value, ends = values[score]
            if ends:
                axes.plot(ends, [row + offsets[index]] * 2, color=color, linewidth=1.6, solid_capstyle="butt")
            axes.plot([value], [row + offsets[index]], "o", color=color, markersize=5)
            if count == 1:
                axes.text(value, row - 0.2, f"{value:.1f}", ha="center", va="bottom", fontsize=SMALL, color=INK)
        axes.plot([], [], "o-", color=color, markersize=4, linewidth=1.4, label=drawn(name, LETTERS))
    axes.set(ylim=(len(scores) - 0.5, -0.6), xlabel=label)
    axes.set_yticks(range(len(scores)), labels=list(scores))
    axes.margins(x=0.08)
    if count > 1:
        legend_below(figure, *runs, handlelength=1.4)
    set_title(figure, title)
    return figure


def draw_folds(
    folds: Mapping[str, Mapping[str, Sequence[float]]], label: str, chance: float | None = None, title: str = ""
) -> "Figure":
    """Returns a bar for each fold and run: the mean over seeds, with a dot for each seed where there are several.

    Args:
        folds: name of a run -> name of a fold -> score of each seed, as it is printed.
        label: name of the score with its unit.
        chance: score of a guess by chance, drawn as a line; None for none.
        title: title of the figure.
    """
    names = list(dict.fromkeys(name for of_run in folds.values() for name in of_run))
    figure = new_figure(max(COLUMN, 0.7 + 0.22 * len(names) * max(1, len(folds) * 0.6)), 2.3)
    axes = plain_axes(figure)
    wide = BARS / len(folds)
    for index, of_run in enumerate(folds.values()):
        color = ACCENT if len(folds) == 1 else CLASSES[index % len(CLASSES)]
        for position, name in enumerate(names):
            if not (values := of_run.get(name)):
                continue
            x = position - BARS / 2 + wide * (index + 0.5)
            mean = float(np.mean(values))
            axes.bar([x], [mean], width=wide * 0.9, color=color, alpha=0.85, linewidth=0)
            if len(values) > 1:
                axes.plot([x] * len(values), values, ".", color=INK, markersize=3.5)
            elif len(folds) == 1 and len(names) <= 12:
                axes.text(x, mean, f"{mean:.0f}", ha="center", va="bottom", fontsize=SMALL, color=INK)
    if chance is not None:
        axes.axhline(chance, color=MUTED, linewidth=0.9, linestyle=(0, (3, 2)))
        words = {"xytext": (2, 0), "textcoords": "offset points", "xycoords": axes.get_yaxis_transform()}
        axes.annotate("chance", (1, chance), va="center", fontsize=SMALL - 0.5, color=MUTED, **words)
    crowded = sum(map(len, names)) > 32
    turned = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
    axes.set_xticks(range(len(names)), labels=[drawn(name, 14) for name in names], **turned, **letters_of(*names))
    axes.set(xlabel="fold", ylabel=label, xlim=(-0.6, len(names) - 0.4))
    axes.margins(y=0.1)
    set_title(figure, title)
    return figure
