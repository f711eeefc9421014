"""Data of the plots of a grid: combinations with their dev scores, and scales with positions, ticks and labels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from matplotlib.ticker import MaxNLocator

from fusion.evaluation.classes import CLASSIFICATION
from fusion.evaluation.task import Score, Task
from fusion.grid.report.tables import count_text
from fusion.grid.selection import UNSET, Ranked
from fusion.pictures.canvas import drawn

DECADE = 10.0  # ratio of the largest to the smallest number above which the scale is logarithmic
FEW = 8  # distinct numbers that have a tick each
MAX_TICKS = 32  # ticks of words
CLOSE = 0.06  # share of an axis: labels of ticks that are closer would overlap
MANY_DECADES = 3  # above this number of decades, only powers of ten have ticks
LETTERS = 18  # of a label


@dataclass(frozen=True, kw_only=True)
class PlotData:
    """The combinations of a plot.

    Attributes:
        ranked: complete combinations with a finite score, the best first.
        scores: mean dev score of each combination, in percent unless it is a loss.
        spreads: standard deviation of each combination over folds, in the same unit; 0 for a single fold.
        score: the plotted score.
        left_out: number of combinations that the plot leaves out.
    """

    ranked: tuple[Ranked, ...]
    scores: tuple[float, ...]
    spreads: tuple[float, ...]
    score: Score
    left_out: int

    @property
    def name(self) -> str:
        """Title of the score."""
        return self.score.title

    @property
    def label(self) -> str:
        """Label of an axis of scores, with unit and direction."""
        notes = ["%"] if self.score.in_percent else []
        if not self.score.higher_is_better:
            notes.append("lower is better")
        return f"mean dev {self.name} ({', '.join(notes)})" if notes else f"mean dev {self.name}"

    def title(self, subject: str) -> str:
        """Formats the title of a plot."""
        left_out = f", {self.left_out} failed left out" if self.left_out else ""
        return f"dev {self.name} {subject}, {count_text(len(self.ranked), 'combination')}{left_out}"


def plot_data(ranked: Sequence[Ranked], monitor: str, task: Task = CLASSIFICATION) -> PlotData:
    """Selects the complete combinations with a finite mean dev score."""
    score = task.score(monitor)
    complete = [(combination, combination.dev) for combination in ranked if combination.complete and combination.dev]
    shown = [(combination, dev) for combination, dev in complete if math.isfinite(dev.mean.get(monitor, math.nan))]
    return PlotData(
        ranked=tuple(combination for combination, _ in shown),
        scores=tuple(score.unit * dev.mean[monitor] for _, dev in shown),
        spreads=tuple(score.unit * (dev.std[monitor] or 0.0) for _, dev in shown),
        score=score,
        left_out=len(ranked) - len(shown),
    )


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The scale of an axis.

    Attributes:
        positions: position of each combination, in their order.
        ticks: positions with a label.
        labels: label of each tick.
        grouped: combinations with the same value form a group, and each value has a tick if there is room.
        numeric: all values are numbers, so that a line may join them.
    """

    positions: tuple[float, ...]
    ticks: tuple[float, ...]
    labels: tuple[str, ...]
    grouped: bool
    numeric: bool = True

    @property
    def gap(self) -> float:
        """Smallest distance between the positions of two combinations; 0 for a single position."""
        distinct = sorted(set(self.positions))
        return min((after - before for before, after in pairwise(distinct)), default=0.0)

    @property
    def limits(self) -> tuple[float, float]:
        """Lowest and highest position; 0.5 below and above a single position."""
        positions = (*self.positions, *self.ticks) if self.grouped else self.positions
        low, high = min(positions), max(positions)
        return (low, high) if high > low else (low - 0.5, high + 0.5)


def varied_axes(ranked: Sequence[Ranked], axes: Sequence[str]) -> list[str]:
    """Lists the axes with at least two values."""
    return [axis for axis in axes if len({combination.text(axis) for combination in ranked}) > 1]


def scale_of(ranked: Sequence[Ranked], axis: str) -> Scale:
    """Builds the scale of an axis.

    Positive numbers over more than a decade have a logarithmic scale, more than 8 other numbers a linear one; other
    values are categories.

    Args:
        ranked: the combinations.
        axis: name of an axis.
    """
    numbers = _numbers(ranked, axis)
    if numbers and min(numbers) > 0 and max(numbers) > DECADE * min(numbers):
        return _logarithmic(numbers)
    if numbers and len(set(numbers)) > FEW:
        low, high = min(numbers), max(numbers)
        ticks = [tick for tick in _round_numbers(low, high) if low <= tick <= high]
        return Scale(positions=tuple(numbers), ticks=tuple(ticks), labels=_even_labels(ticks), grouped=False)
    return _categories(ranked, axis)


def score_scale(scores: Sequence[float]) -> Scale:
    """Builds a linear scale of scores, with ticks below and above them."""
    low, high = min(scores), max(scores)
    if not high > low:
        low, high = low - 1, high + 1
    ticks = _round_numbers(low, high)
    return Scale(positions=tuple(scores), ticks=tuple(ticks), labels=_even_labels(ticks), grouped=True)


def _numbers(ranked: Sequence[Ranked], axis: str) -> list[float]:
    """Returns the values of an axis if all are finite numbers, else an empty list."""
    values = [combination.fields.get(axis, UNSET) for combination in ranked]
    numbers = [float(value) for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    return numbers if len(numbers) == len(values) and all(map(math.isfinite, numbers)) else []


def _logarithmic(numbers: Sequence[float]) -> Scale:
    distinct = sorted(set(numbers))
    grouped = len(distinct) <= FEW
    ticks = _separate(distinct if grouped else _log_ticks(distinct[0], distinct[-1]))
    return Scale(
        positions=tuple(map(math.log10, numbers)),
        ticks=tuple(map(math.log10, ticks)),
        labels=_labels(ticks),
        grouped=grouped,
    )


def _log_ticks(low: float, high: float) -> list[float]:
    """Returns powers of ten between two numbers, and three times each if there are few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 3) if last - first <= MANY_DECADES else (1,)
    ticks = [float(f"{step}e{power}") for power in range(first, last + 1) for step in steps]
    return [tick for tick in ticks if low <= tick <= high]


def _separate(numbers: Sequence[float]) -> list[float]:
    """Removes numbers whose labels would overlap on a logarithmic scale."""
    distance = CLOSE * math.log10(numbers[-1] / numbers[0])
    kept = [numbers[0]]
    for number in numbers[1:]:
        if math.log10(number / kept[-1]) >= distance:
            kept.append(number)
    return kept


def _categories(ranked: Sequence[Ranked], axis: str) -> Scale:
    """Builds a scale with one position for each value: numbers by size, then words in the order of the grid."""
    ordered = sorted(ranked, key=lambda combination: combination.combination)
    values = {combination.text(axis): combination.fields.get(axis, UNSET) for combination in ordered}
    names = sorted(values, key=lambda name: _order(values[name]))
    positions = {name: float(index) for index, name in enumerate(names)}
    shown = names[:: math.ceil(len(names) / MAX_TICKS)]
    return Scale(
        positions=tuple(positions[combination.text(axis)] for combination in ranked),
        ticks=tuple(positions[name] for name in shown),
        labels=tuple(drawn(name, LETTERS) for name in shown),
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
    """Formats numbers with the same number of decimals."""
    labels = _labels(numbers)
    decimals = max((len(label.partition(".")[2]) for label in labels), default=0)
    return labels if any("e" in label for label in labels) else tuple(f"{number:.{decimals}f}" for number in numbers)
