"""Learning curves: losses and dev scores by epoch, a line for each model, with the epoch that was chosen."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fusion.pictures.canvas import ACCENT, COLUMN, INK, SECOND, SMALL, drawn, new_figure, plain_axes, set_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The course of one training.

    Attributes:
        name: fold and seed.
        train_loss: loss on the training subset by epoch.
        dev_loss: loss on the development subset by epoch; empty where it is not recorded.
        dev_score: score that chose the epoch, as it is printed; empty where the loss chose it.
        chosen: the chosen epoch, counted from 1.
    """

    name: str
    train_loss: tuple[float, ...]
    dev_loss: tuple[float, ...]
    dev_score: tuple[float, ...]
    chosen: int


def draw_losses(curves: Sequence[Curve], title: str = "") -> "Figure":
    """Returns the figure of the losses on train and dev by epoch."""
    figure = new_figure(COLUMN, 2.3)
    axes = plain_axes(figure)
    for curve in curves:
        _line(axes, curve.train_loss, INK, len(curves), 0)
        _line(axes, curve.dev_loss, SECOND, len(curves), curve.chosen)
    _legend(axes, {"train": INK, "dev": SECOND} if any(curve.dev_loss for curve in curves) else {"train": INK})
    _format(axes, curves, "loss")
    set_title(figure, title)
    return figure


def draw_dev_scores(curves: Sequence[Curve], score: str, title: str = "") -> "Figure":
    """Returns the figure of the dev score that chose the epoch.

    Args:
        curves: the trainings.
        score: name of the score, with its unit.
        title: title of the figure.
    """
    figure = new_figure(COLUMN, 2.3)
    axes = plain_axes(figure)
    for curve in curves:
        _line(axes, curve.dev_score, ACCENT, len(curves), curve.chosen)
    _legend(axes, {"dev, dot: chosen epoch": ACCENT})
    _format(axes, curves, score)
    set_title(figure, title)
    return figure


def _line(axes: Any, values: Sequence[float], color: str, lines: int, chosen: int) -> None:
    alpha = max(0.35, min(1.0, 2.5 / lines))
    marks = {"marker": "."} if len(values) == 1 else {}
    axes.plot(range(1, len(values) + 1), values, color=color, linewidth=1.1, alpha=alpha, **marks)
    if 0 < chosen <= len(values):
        axes.plot([chosen], [values[chosen - 1]], "o", color=color, markersize=3.6, zorder=4)


def _legend(axes: Any, inks: dict[str, str]) -> None:
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], color=color, linewidth=1.4) for color in inks.values()]
    axes.legend(lines, list(inks), frameon=False, fontsize=SMALL, labelcolor=INK, handlelength=1.2, loc="best")


def _format(axes: Any, curves: Sequence[Curve], label: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set(xlabel="epoch", ylabel=drawn(label))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True, min_n_ticks=1))
    longest = max((len(curve.train_loss) for curve in curves), default=1)
    axes.set_xlim(0.5, longest + 0.5)
