"""Where the values of an axis of a grid lie in a picture, and how they are told there.

Which combinations of a grid a picture shows, by which score, and what it is called.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from matplotlib.ticker import MaxNLocator

from fusion.evaluation.task import CLASSIFICATION, Score, Task
from fusion.grid.report.tables import counted
from fusion.grid.selection import UNSET, Ranked

DECADE = 10.0  # numbers that span more than one are told on a logarithmic scale
FEW = 8  # numbers that can have a tick each
MOST_TICKS = 32  # words that can
CLOSE = 0.06  # of an axis: ticks nearer to each other than this would be written over each other
MANY_DECADES = 3  # where powers of ten are ticks enough
LETTERS = 18  # of a label
PRINTED = 0x250  # the font has all letters below


@dataclass(frozen=True, kw_only=True)
class PlotData:
    """The combinations that a picture shows.

    Attributes:
        ranked: those whose models are all trained, in the order of the ranking: the best first.
        scores: mean dev score of each, in percent unless it is a loss.
        spreads: standard deviation of each over folds, in the same unit; 0 for a single fold.
        score: the score that is shown.
        left_out: how many combinations are not shown.
    """

    ranked: tuple[Ranked, ...]
    scores: tuple[float, ...]
    spreads: tuple[float, ...]
    score: Score
    left_out: int

    @property
    def more_is_better(self) -> bool:
        """Whether a high score is a good one."""
        return self.score.higher_is_better

    @property
    def name(self) -> str:
        """What the score is called."""
        return self.score.title

    @property
    def label(self) -> str:
        """What an axis of scores is called."""
        notes = ["%"] if self.score.in_percent else []
        if not self.more_is_better:
            notes.append("lower is better")
        return f"mean dev {self.name} ({', '.join(notes)})" if notes else f"mean dev {self.name}"

    def title(self, what: str) -> str:
        """Says what a picture shows."""
        lost = f", {self.left_out} failed left out" if self.left_out else ""
        return f"dev {self.name} {what}\n{counted(len(self.ranked), 'combination')}{lost}"


def plot_data(ranked: Sequence[Ranked], monitor: str, task: Task = CLASSIFICATION) -> PlotData:
    """Takes the combinations whose mean over all folds and seeds is known and finite."""
    score = task.score(monitor)
    known = [(one, one.dev) for one in ranked if one.complete and one.dev]
    shown = [(one, dev) for one, dev in known if math.isfinite(dev.mean.get(monitor, math.nan))]
    return PlotData(
        ranked=tuple(one for one, _ in shown),
        scores=tuple(score.unit * dev.mean[monitor] for _, dev in shown),
        spreads=tuple(score.unit * (dev.std[monitor] or 0.0) for _, dev in shown),
        score=score,
        left_out=len(ranked) - len(shown),
    )


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Where values lie on an axis.

    Attributes:
        places: of each combination, in their order.
        ticks: places that are told.
        labels: what is told there.
        grouped: whether each value is told, so that combinations form groups.
        numeric: whether all values are numbers, so that a line may join them.
    """

    places: tuple[float, ...]
    ticks: tuple[float, ...]
    labels: tuple[str, ...]
    grouped: bool
    numeric: bool = True

    @property
    def gap(self) -> float:
        """The least distance between two places that hold combinations; 0 where there is one place."""
        distinct = sorted(set(self.places))
        return min((after - before for before, after in pairwise(distinct)), default=0.0)

    @property
    def limits(self) -> tuple[float, float]:
        """The lowest and the highest place; a little apart where they are one."""
        every = (*self.places, *self.ticks) if self.grouped else self.places
        low, high = min(every), max(every)
        return (low, high) if high > low else (low - 0.5, high + 0.5)


def varied(ranked: Sequence[Ranked], axes: Sequence[str]) -> list[str]:
    """Names the axes with at least two values."""
    return [axis for axis in axes if len({one.text(axis) for one in ranked}) > 1]


def scale_of(ranked: Sequence[Ranked], axis: str) -> Scale:
    """Gives a logarithmic scale to positive numbers over more than a decade, categories to few values and to words.

    Args:
        ranked: the combinations.
        axis: of the grid.
    """
    numbers = _numbers(ranked, axis)
    if numbers and min(numbers) > 0 and max(numbers) > DECADE * min(numbers):
        return _logarithmic(numbers)
    if numbers and len(set(numbers)) > FEW:
        low, high = min(numbers), max(numbers)
        ticks = [tick for tick in _round_numbers(low, high) if low <= tick <= high]
        return Scale(places=tuple(numbers), ticks=tuple(ticks), labels=_even_labels(ticks), grouped=False)
    return _categories(ranked, axis)


def score_scale(scores: Sequence[float]) -> Scale:
    """Gives the scale of scores, with ticks on both sides of them."""
    low, high = min(scores), max(scores)
    if not high > low:
        low, high = low - 1, high + 1
    ticks = _round_numbers(low, high)
    return Scale(places=tuple(scores), ticks=tuple(ticks), labels=_even_labels(ticks), grouped=True)


def plain(text: str, letters: int = LETTERS) -> str:
    """Writes text that a picture can hold: short, of letters that its font has, no mathematics."""
    held = "".join(sign if sign.isprintable() and ord(sign) < PRINTED else "?" for sign in text)
    short = held if len(held) <= letters else f"{held[: letters - 3]}..."
    return short.replace("$", r"\$")


def _numbers(ranked: Sequence[Ranked], axis: str) -> list[float]:
    """Gives the values of an axis of finite numbers, empty for any other."""
    values = [one.fields.get(axis, UNSET) for one in ranked]
    numbers = [float(value) for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    return numbers if len(numbers) == len(values) and all(map(math.isfinite, numbers)) else []


def _logarithmic(numbers: Sequence[float]) -> Scale:
    distinct = sorted(set(numbers))
    grouped = len(distinct) <= FEW
    told = _apart(distinct if grouped else _marks(distinct[0], distinct[-1]))
    return Scale(
        places=tuple(map(math.log10, numbers)),
        ticks=tuple(map(math.log10, told)),
        labels=_labels(told),
        grouped=grouped,
    )


def _marks(low: float, high: float) -> list[float]:
    """Gives powers of ten between two numbers, and their threefold where there are few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 3) if last - first <= MANY_DECADES else (1,)
    marks = [float(f"{step}e{power}") for power in range(first, last + 1) for step in steps]
    return [mark for mark in marks if low <= mark <= high]


def _apart(numbers: Sequence[float]) -> list[float]:
    """Leaves out numbers that would be written over those before them."""
    least = CLOSE * math.log10(numbers[-1] / numbers[0])
    told = [numbers[0]]
    for number in numbers[1:]:
        if math.log10(number / told[-1]) >= least:
            told.append(number)
    return told


def _categories(ranked: Sequence[Ranked], axis: str) -> Scale:
    """Gives each value a place: numbers in their order, words in that of the grid."""
    in_order = sorted(ranked, key=lambda one: one.combination)
    values = {one.text(axis): one.fields.get(axis, UNSET) for one in in_order}
    names = sorted(values, key=lambda name: _order(values[name]))
    places = {name: float(place) for place, name in enumerate(names)}
    shown = names[:: math.ceil(len(names) / MOST_TICKS)]
    return Scale(
        places=tuple(places[one.text(axis)] for one in ranked),
        ticks=tuple(places[name] for name in shown),
        labels=tuple(map(plain, shown)),
        grouped=True,
        numeric=bool(_numbers(ranked, axis)),
    )


def _order(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else math.inf


def _round_numbers(low: float, high: float) -> list[float]:
    return [float(tick) for tick in MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)]


def _labels(numbers: Sequence[float]) -> tuple[str, ...]:
    return tuple(f"{number:g}" for number in numbers)


def _even_labels(numbers: Sequence[float]) -> tuple[str, ...]:
    """Writes numbers with equally many decimals."""
    labels = _labels(numbers)
    decimals = max((len(label.partition(".")[2]) for label in labels), default=0)
    return labels if any("e" in label for label in labels) else tuple(f"{number:.{decimals}f}" for number in numbers)
