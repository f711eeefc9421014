"""Changes to a base: a dot with its interval for each, and a line at the base."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fusion.pictures.canvas import (
    ACCENT,
    COLUMN,
    INK,
    MUTED,
    SMALL,
    drawn,
    letters_of,
    new_figure,
    plain_axes,
    set_title,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LETTERS = 30  # of a change


@dataclass(frozen=True, kw_only=True)
class Change:
    """A change to a base and the score that it leads to.

    Attributes:
        name: the changed fields.
        value: the score, as it is printed.
        ends: the value plus the ends of the interval of its difference to the base; None where there is none.
    """

    name: str
    value: float
    ends: tuple[float, float] | None


def draw_changes(base: float, changes: Sequence[Change], *, label: str, note: str = "", title: str = "") -> "Figure":
    """Returns a dot with its interval for each change; an interval that misses the line of the base is a difference.

    Args:
        base: score of the base, as it is printed.
        changes: changes, from the top.
        label: name of the score with its unit.
        note: line below the axis that defines the intervals.
        title: title of the figure.
    """
    figure = new_figure(COLUMN + 0.6, 0.95 + 0.24 * (len(changes) + 1))
    axes = plain_axes(figure, grid="x")
    axes.axvline(base, color=MUTED, linewidth=0.9, linestyle=(0, (3, 2)))
    axes.plot([base], [0], "D", color=INK, markersize=4.5, zorder=4)
    for row, change in enumerate(changes, 1):
        if change.ends:
            axes.plot(change.ends, [row, row], color=ACCENT, linewidth=1.6, solid_capstyle="butt")
        axes.plot([change.value], [row], "o", color=ACCENT, markersize=5, zorder=4)
        words = {"xytext": (3, 0), "textcoords": "offset points", "xycoords": axes.get_yaxis_transform()}
        axes.annotate(f"{change.value - base:+.1f}", (1, row), va="center", fontsize=SMALL, color=INK, **words)
    names = ["base", *(drawn(change.name, LETTERS) for change in changes)]
    fonts = letters_of(*(change.name for change in changes))
    axes.set_yticks(range(len(names)), labels=names, **fonts)
    axes.set(ylim=(len(changes) + 0.5, -0.5), xlabel=label)
    axes.margins(x=0.08)
    if note:
        figure.supxlabel(note, fontsize=SMALL - 0.5, color=MUTED)
    set_title(figure, title)
    return figure
