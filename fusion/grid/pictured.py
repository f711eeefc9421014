"""Which combinations of a grid a picture shows, by which score, and what it is called."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fusion.grid.report import NAMES, counted
from fusion.grid.selection import Ranked
from fusion.scoring import MONITORS

IN_PERCENT = 100.0


@dataclass(frozen=True, kw_only=True)
class Pictured:
    """The combinations that a picture shows.

    Attributes:
        ranked: those whose models are all trained, in the order of the ranking: the best first.
        scores: mean dev score of each, in percent unless it is a loss.
        spreads: standard deviation of each over folds, in the same unit; 0 for a single fold.
        monitor: which score.
        left_out: how many combinations are not shown.
    """

    ranked: tuple[Ranked, ...]
    scores: tuple[float, ...]
    spreads: tuple[float, ...]
    monitor: str
    left_out: int

    @property
    def more_is_better(self) -> bool:
        """Whether a high score is a good one."""
        return MONITORS[self.monitor]

    @property
    def name(self) -> str:
        """What the score is called."""
        return NAMES.get(self.monitor, self.monitor)

    @property
    def label(self) -> str:
        """What an axis of scores is called."""
        return f"mean dev {self.name} ({'%' if self.more_is_better else 'lower is better'})"

    def title(self, what: str) -> str:
        """Says what a picture shows."""
        lost = f", {self.left_out} failed left out" if self.left_out else ""
        return f"dev {self.name} {what}\n{counted(len(self.ranked), 'combination')}{lost}"


def pictured(ranked: Sequence[Ranked], monitor: str) -> Pictured:
    """Takes the combinations whose mean over all folds and seeds is known and finite."""
    known = [(one, one.dev) for one in ranked if one.complete and one.dev]
    shown = [(one, dev) for one, dev in known if math.isfinite(dev.mean[monitor])]
    factor = IN_PERCENT if MONITORS[monitor] else 1.0
    return Pictured(
        ranked=tuple(one for one, _ in shown),
        scores=tuple(factor * dev.mean[monitor] for _, dev in shown),
        spreads=tuple(factor * (dev.std[monitor] or 0.0) for _, dev in shown),
        monitor=monitor,
        left_out=len(ranked) - len(shown),
    )
