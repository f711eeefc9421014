"""Mean and standard deviation of scores over folds and seeds."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Scores over folds and seeds, each by metric.

    Attributes:
        mean: over folds of the mean over seeds; with the same seeds on every fold, also the mean the other way round.
        std: over folds of their mean over seeds, with the divisor n - 1; None for a single fold.
    """

    mean: Mapping[str, float]
    std: Mapping[str, float | None]


def spread(scores: Mapping[str, Sequence[Mapping[str, float]]], metrics: Iterable[str]) -> Spread:
    """Gives mean and standard deviation over folds of the mean over seeds.

    Args:
        scores: fold -> the scores of its seeds.
        metrics: those to take.

    Example:
        >>> spread({"1": [{"wa": 0.5}, {"wa": 0.7}], "2": [{"wa": 0.8}, {"wa": 0.8}]}, ["wa"]).mean["wa"]
        0.7
    """
    by_metric = {metric: [fmean(one[metric] for one in seeds) for seeds in scores.values()] for metric in metrics}
    return Spread(
        mean={metric: fmean(values) for metric, values in by_metric.items()},
        std={metric: _std(values) for metric, values in by_metric.items()},
    )


def _std(values: Sequence[float]) -> float | None:
    if len(values) < 2:
        return None
    mean = fmean(values)  # statistics.stdev does not take an infinite loss
    return math.sqrt(math.fsum((value - mean) * (value - mean) for value in values) / (len(values) - 1))
