"""A range that a search draws values from, evenly or by their logarithm."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import stats

BY_LOG = "log:"
BETWEEN = ".."
FARTHEST = 1e15  # below 2 ** 53, so that whole numbers stay exact
LISTED = 100_000  # as many whole numbers as are ever listed
DIGITS = 4  # of a drawn number: it is read in tables, and set by hand to train it once more


@dataclass(frozen=True, kw_only=True)
class Span:
    """All numbers from one to another, both included.

    Attributes:
        low: the least.
        high: the greatest.
        log: whether each order of magnitude is as likely as the next; if not, each number is.
        whole: whether only whole numbers count.

    Raises:
        ValueError: if `high` is not above `low`, `low` not above 0 where it is by logarithm, or either too far
            from 0.

    Example:
        >>> str(Span(low=1e-5, high=1e-2, log=True)), str(Span(low=1, high=6, whole=True))
        ('log:1e-05..0.01', '1..6')
        >>> Span(low=1, high=6, whole=True).count
        6
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def __post_init__(self) -> None:
        if not self.high > self.low:
            raise ValueError(f"the end of a range must be above its start, got {self}")
        if max(-self.low, self.high) > FARTHEST:
            raise ValueError(f"a range must lie within {FARTHEST:g} of 0, got {self}")
        if self.log and not self.low > 0:
            raise ValueError(f"a range by {BY_LOG} must start above 0, got {self}")

    def __str__(self) -> str:
        return f"{BY_LOG if self.log else ''}{self.low}{BETWEEN}{self.high}"

    @property
    def count(self) -> int | None:
        """How many numbers it holds, None for more than can be listed."""
        count = int(self.high - self.low) + 1
        return count if self.whole and count <= LISTED else None

    def rvs(self, random_state: np.random.RandomState) -> float:
        """Draws a number; so scikit-learn's ParameterSampler asks for it."""
        return self.tidied(self._distribution.rvs(random_state=random_state))

    def tidied(self, number: float) -> float:
        """Rounds a number to one that the range holds and people can read.

        Example:
            >>> Span(low=1e-5, high=1e-2).tidied(0.000123456), Span(low=1, high=6, whole=True).tidied(2.4)
            (0.0001235, 2)
        """
        if self.whole:
            return int(min(max(round(number), self.low), self.high))
        return min(max(float(f"{number:.{DIGITS}g}"), self.low), self.high)

    @cached_property
    def _distribution(self) -> Any:
        if self.whole and not self.log:
            return stats.randint(self.low, self.high + 1)
        if self.whole:
            return stats.loguniform(self.low - 0.5, self.high + 0.5)  # then rounded: the ends are as likely as the rest
        if self.log:
            return stats.loguniform(self.low, self.high)
        return stats.uniform(self.low, self.high - self.low)


def spells_span(text: str) -> bool:
    """Tells whether a text is meant as a range.

    Example:
        >>> [spells_span(text) for text in ("0..0.5", "log:1e-5..1e-2", "0.5", "1e-4,3e-4")]
        [True, True, False, False]
    """
    return BETWEEN in text or text.startswith(BY_LOG)


def span_ends(text: str) -> tuple[str, str]:
    """Gives the two ends that a range is written with.

    Example:
        >>> span_ends("log:1e-5..1e-2"), span_ends("0..0.5")
        (('1e-5', '1e-2'), ('0', '0.5'))
    """
    low, _, high = text.removeprefix(BY_LOG).partition(BETWEEN)
    return low.strip(), high.strip()
