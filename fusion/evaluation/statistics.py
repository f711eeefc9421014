"""What scores are worth: mean and spread over seeds and folds, clustered intervals, paired comparison of two runs.

Utterances of one speaker resemble each other, so intervals and tests draw whole clusters: speakers, or dialogues where
the corpus shares speakers between train and test (MELD). A cluster enters as its confusion matrix, so that a draw is a
weighted sum of small matrices; `scipy.stats.bootstrap` cannot draw clusters.

Intervals: percentile bootstrap (Efron and Tibshirani, 1993), over whole clusters (Davison and Hinkley, 1997, 3.8).
Test: the two runs' predictions are exchanged cluster by cluster (approximate randomization, Noreen, 1989).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from cache.errors import MmerError
from cache.utterance import Utterance
from fusion.evaluation.metrics import METRICS, Classes, Scores, score_confusions

Matrix: TypeAlias = npt.NDArray[Any]
Interval: TypeAlias = tuple[float, float]

RESAMPLES, LEVEL = 2_000, 0.95
ROUNDING = 1e-12  # must not hide a tie
BLOCK_VALUES = 4_000_000  # drawn weights held at once: 32 MB
CLUSTERS: Mapping[str, str] = {"meld": "dialogue"}  # corpus -> column that clusters its utterances; others: speaker


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """Test predictions pooled over folds, one row for each utterance and seed.

    Attributes:
        ids: utterance ids, ``(n,)``.
        truth: their classes, int64 ``(n,)``.
        guess: what was predicted, int64 ``(n,)``.
        clusters: what they are drawn by, ``(n,)``.
        classes: how many classes the label set has.
    """

    ids: npt.NDArray[np.str_]
    truth: Classes
    guess: Classes
    clusters: npt.NDArray[np.str_]
    classes: int

    def __post_init__(self) -> None:
        sizes = {len(self.ids), len(self.truth), len(self.guess), len(self.clusters)}
        if len(sizes) > 1 or not len(self.ids):
            raise ValueError(f"ids, truth, guess and clusters must be equally long and not empty, got {sorted(sizes)}")


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The scores of a run, each by metric.

    Attributes:
        mean: over seeds of the mean over folds.
        std: over folds of their mean over seeds, with the divisor n - 1; None for a single fold.
        interval: of the pooled score, 95%; None for a single cluster.
        pooled: over the predictions of all folds and seeds together.
    """

    mean: dict[str, float]
    std: dict[str, float | None]
    interval: dict[str, Interval | None]
    pooled: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much better the first of two runs is, in pooled scores by metric.

    Attributes:
        difference: first minus second.
        interval: 95%; None for a single cluster.
        p: share of exchanges with a difference at least as large, two-sided.
    """

    difference: dict[str, float]
    interval: dict[str, Interval | None]
    p: dict[str, float]


def clusters_of(utterances: Sequence[Utterance], corpus: str) -> npt.NDArray[np.str_]:
    """Names the cluster of each utterance, ``(n,)``; one without speaker (or dialogue) is a cluster of its own."""
    column = CLUSTERS.get(corpus, "speaker")
    return np.array([getattr(one, column) or f"utterance {one.id}" for one in utterances])


def summarize(scores: Mapping[int, Sequence[Scores]], predictions: Predictions, *, seed: int = 0) -> Summary:
    """Summarizes the test scores of a run.

    Args:
        scores: seed -> the scores of its folds, in the same order for every seed.
        predictions: those of all folds and seeds.
        seed: of the bootstrap.

    Raises:
        ValueError: if there is no score, or the seeds have different numbers of folds.
    """
    table = np.array([[list(one.as_dict().values()) for one in folds] for folds in _even(scores)])  # (seeds, folds, 3)
    by_fold = table.mean(axis=0)
    spread = by_fold.std(axis=0, ddof=1).tolist() if len(by_fold) > 1 else [None] * len(METRICS)
    return Summary(
        mean=_by_metric(by_fold.mean(axis=0)),
        std=dict(zip(METRICS, spread, strict=True)),
        interval=bootstrap_interval(predictions, seed=seed),
        pooled=pooled_scores(predictions),
    )


def pooled_scores(predictions: Predictions) -> dict[str, float]:
    """Scores all predictions together."""
    return _by_metric(score_confusions(cluster_confusions(predictions).sum(axis=0)))


def bootstrap_interval(
    predictions: Predictions, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Interval | None]:
    """Gives the 95% interval of each pooled score, drawing clusters with replacement; None for a single cluster.

    A draw that lacks a class has the UA of those that are there.
    """
    confusions = cluster_confusions(predictions)
    if len(confusions) < 2:
        return dict.fromkeys(METRICS)
    return _intervals(_resampled(confusions[None], resamples, seed)[0])


def compare(first: Predictions, second: Predictions, *, resamples: int = RESAMPLES, seed: int = 0) -> Difference:
    """Compares two runs on the same utterances, cluster by cluster.

    With few clusters all exchanges are tried, with many `resamples` of them; n clusters give no p below 2 / 2**n.

    Raises:
        MmerError: if the runs were not scored on the same utterances with the same classes.
    """
    _check_same(first, second)
    both = np.stack([_per_utterance(first), _per_utterance(second)])  # (2, clusters, classes, classes)
    scores = score_confusions(both.sum(axis=1))
    difference = scores[0] - scores[1]
    drawn = _resampled(both, resamples, seed)
    return Difference(
        difference=_by_metric(difference),
        interval=_intervals(drawn[0] - drawn[1]) if both.shape[1] > 1 else dict.fromkeys(METRICS),
        p=_by_metric(_exchanged(both, difference, resamples, seed)),
    )


def cluster_confusions(predictions: Predictions) -> Matrix:
    """Counts a confusion matrix for each cluster in sorted order, float64 ``(clusters, classes, classes)``."""
    names, cluster = np.unique(predictions.clusters, return_inverse=True)
    size = predictions.classes
    cells = (cluster * size + predictions.truth) * size + predictions.guess
    counts = np.bincount(cells, minlength=len(names) * size * size)
    return counts.reshape(len(names), size, size).astype(np.float64)


def _even(scores: Mapping[int, Sequence[Scores]]) -> list[Sequence[Scores]]:
    folds = list(scores.values())
    sizes = {len(one) for one in folds}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(f"every seed must have the same folds, got {sorted(sizes)} of them")
    return folds


def _by_metric(values: Matrix) -> dict[str, float]:
    return dict(zip(METRICS, values.tolist(), strict=True))


def _per_utterance(predictions: Predictions) -> Matrix:
    """Weighs every utterance alike, however many seeds predicted it."""
    seeds = len(predictions.ids) / len(np.unique(predictions.ids))
    return cluster_confusions(predictions) / seeds


def _resampled(confusions: Matrix, resamples: int, seed: int) -> Matrix:
    """Scores draws of clusters with replacement, the same draws for each run, ``(runs, resamples, 3)``."""
    runs, count, size, _ = confusions.shape
    generator = np.random.default_rng(seed)
    flat = confusions.reshape(runs, count, size * size)
    scores = []
    for draws in _blocks(resamples, count):
        weights = generator.multinomial(count, np.full(count, 1 / count), size=draws).astype(np.float64)
        scores.append(score_confusions((weights @ flat).reshape(runs, draws, size, size)))
    return np.concatenate(scores, axis=1)


def _blocks(rows: int, width: int) -> list[int]:
    """Divides rows so that a block of them stays small."""
    most = max(1, BLOCK_VALUES // width)
    return [min(most, rows - start) for start in range(0, rows, most)]


def _intervals(scores: Matrix) -> dict[str, Interval | None]:
    """Cuts both tails off the scores of the draws, ``(resamples, 3)``."""
    low, high = np.quantile(scores, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return {name: (float(low[place]), float(high[place])) for place, name in enumerate(METRICS)}


def _exchanged(both: Matrix, difference: Matrix, resamples: int, seed: int) -> Matrix:
    """Gives the share of exchanges whose difference is at least as large as the real one, ``(3,)``."""
    count = both.shape[1]
    total, change = both.sum(axis=1), (both[1] - both[0]).reshape(count, -1)
    exact = 2**count <= resamples
    as_large = np.zeros(len(METRICS))
    for swaps in _swaps(count, None if exact else resamples, seed):
        moved = (swaps @ change).reshape(-1, *both.shape[2:])  # (exchanges, classes, classes)
        differences = score_confusions(total[0] + moved) - score_confusions(total[1] - moved)
        as_large += (np.abs(differences) >= np.abs(difference) - ROUNDING).sum(axis=0)
    return as_large / 2**count if exact else (as_large + 1) / (resamples + 1)


def _swaps(count: int, draws: int | None, seed: int) -> Iterator[Matrix]:
    """Gives 1.0 where a cluster is exchanged, ``(exchanges, clusters)``, in blocks; every exchange for no draws."""
    if draws is None:
        yield ((np.arange(2**count)[:, None] >> np.arange(count)) & 1).astype(np.float64)
        return
    generator = np.random.default_rng(seed)
    for size in _blocks(draws, count):
        yield generator.integers(0, 2, size=(size, count)).astype(np.float64)


def _check_same(first: Predictions, second: Predictions) -> None:
    truths = [
        dict(zip(run.ids.tolist(), zip(run.truth.tolist(), run.clusters.tolist(), strict=True), strict=True))
        for run in (first, second)
    ]
    alone = sorted(truths[0].keys() ^ truths[1].keys())
    if alone:
        raise MmerError(
            f"the runs were scored on different utterances: {len(alone)} are in one of them only (first: {alone[0]})"
        )
    if first.classes != second.classes or truths[0] != truths[1]:
        raise MmerError(
            "the runs disagree on the truth or on the speakers; train both with the same cache and --labels"
        )
