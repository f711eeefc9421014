"""Uncertainty of scores: mean and spread over seeds and folds, clustered intervals, paired comparison of two runs.

Utterances of one speaker resemble each other, so intervals and tests resample whole clusters: speakers, or dialogues
where training and test share speakers (MELD). scipy resamples the indices of the clusters; the score of a resample
follows from the sum of the confusion matrices of its clusters, or of the moments of rated values.

Interval: percentile bootstrap (Efron and Tibshirani, 1993) over whole clusters (Davison and Hinkley, 1997, 3.8).
Test: approximate randomization (Noreen, 1989), which exchanges the predictions of the two runs cluster by cluster.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from cache.errors import MmerError
from cache.utterance import Utterance
from fusion.arrays import ClassIds
from fusion.evaluation.dimensions import AGREEMENT, agreement, mean_agreement, value_moments
from fusion.evaluation.metrics import METRICS, Scores, score_confusions
from fusion.evaluation.votes import SOFT, divergences

Matrix: TypeAlias = npt.NDArray[Any]
Interval: TypeAlias = tuple[float, float]
FoldScores: TypeAlias = Scores | Mapping[str, float]

RESAMPLES, LEVEL = 2_000, 0.95
ROUNDING = 1e-12  # rounding errors of tied differences stay below it
BATCH_VALUES = 1_000_000  # cluster indices resampled at once; each array of a batch takes up to 8 MB
CLUSTERS: Mapping[str, str] = {"meld": "dialogue"}  # corpus -> column that clusters its utterances; others: speaker


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """Test predictions pooled over folds, with a row for each utterance and seed.

    Attributes:
        ids: utterance ids, ``(n,)``.
        truth: true classes, int64 ``(n,)``.
        guess: predicted classes, int64 ``(n,)``.
        clusters: names of the clusters, ``(n,)``.
        classes: number of classes in the label set.
    """

    ids: npt.NDArray[np.str_]
    truth: ClassIds
    guess: ClassIds
    clusters: npt.NDArray[np.str_]
    classes: int

    def __post_init__(self) -> None:
        sizes = {len(self.ids), len(self.truth), len(self.guess), len(self.clusters)}
        if len(sizes) > 1 or not len(self.ids):
            raise ValueError(f"ids, truth, guess and clusters must be equally long and not empty, got {sorted(sizes)}")

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the scores."""
        return METRICS

    def of_clusters(self) -> Matrix:
        """Computes the confusion matrix of each cluster, from which all scores follow."""
        return cluster_confusions(self)

    def scores_of(self, sums: Matrix) -> Matrix:
        """Computes the scores of summed confusion matrices, ``(..., 4)``."""
        return score_confusions(sums)


@dataclass(frozen=True, kw_only=True, eq=False)
class RatedPredictions(Predictions):
    """Test predictions of rated values, pooled over folds, with a row for each utterance and seed.

    Attributes:
        truth: rated values, float64 ``(n, dimensions)``.
        guess: predicted values, float64 ``(n, dimensions)``.
        classes: number of dimensions.
        dimension: index of the only dimension that is scored; None for the mean of all.
    """

    truth: Matrix
    guess: Matrix
    dimension: int | None = None

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the scores."""
        return AGREEMENT

    def of_clusters(self) -> Matrix:
        """Computes the moments of each cluster in the order of sorted names, ``(clusters, dimensions, 7)``."""
        cluster = np.unique(self.clusters, return_inverse=True)[1]
        return value_moments(self.truth, self.guess, cluster)

    def scores_of(self, sums: Matrix) -> Matrix:
        """Computes the scores of summed moments, ``(..., 3)``."""
        if self.dimension is None:
            return mean_agreement(sums)
        return agreement(sums)[..., self.dimension, :]


@dataclass(frozen=True, kw_only=True, eq=False)
class SoftPredictions(Predictions):
    """Test predictions of shares of votes, pooled over folds, with a row for each utterance and seed.

    Attributes:
        truth: shares of votes, float64 ``(n, classes)``.
        guess: probabilities, float64 ``(n, classes)``.
    """

    truth: Matrix
    guess: Matrix

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the scores."""
        return SOFT.names

    @property
    def majority(self) -> Predictions:
        """The classes with the most votes, and the most probable ones."""
        truth, guess = self.truth.argmax(axis=1), self.guess.argmax(axis=1)
        return Predictions(ids=self.ids, truth=truth, guess=guess, clusters=self.clusters, classes=self.classes)

    def of_clusters(self) -> Matrix:
        """Computes the confusion matrix of each cluster as a row, then its utterances and their divergence."""
        names, cluster = np.unique(self.clusters, return_inverse=True)
        counts = cluster_confusions(self.majority).reshape(len(names), -1)
        size = np.bincount(cluster)
        divergence = np.bincount(cluster, weights=divergences(self.truth, self.guess))
        return np.column_stack([counts, size, divergence])

    def scores_of(self, sums: Matrix) -> Matrix:
        """Computes the scores of summed rows, ``(..., 5)``."""
        counts = sums[..., :-2].reshape(*sums.shape[:-1], self.classes, self.classes)
        return np.concatenate([score_confusions(counts), sums[..., -1:] / sums[..., -2:-1]], axis=-1)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The scores of a run by metric, with their spread and interval.

    Attributes:
        mean: mean over seeds of the mean over folds.
        std: standard deviation over folds of the mean over seeds, with the divisor n - 1; None for a single fold.
        std_seeds: standard deviation over seeds of the mean over folds, with the divisor n - 1; None for a single seed.
        interval: 95% interval of the pooled score; None for a single cluster.
        pooled: score of the predictions of all folds and seeds together.
    """

    mean: dict[str, float]
    std: dict[str, float | None]
    std_seeds: dict[str, float | None]
    interval: dict[str, Interval | None]
    pooled: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The difference of two runs in pooled scores, by metric.

    Attributes:
        difference: score of the first run minus score of the second.
        interval: 95% interval of the difference; None for a single cluster.
        p: share of exchanges whose difference is at least as large in absolute value (two-sided p-value).
    """

    difference: dict[str, float]
    interval: dict[str, Interval | None]
    p: dict[str, float]


def clusters_of(utterances: Sequence[Utterance], corpus: str) -> npt.NDArray[np.str_]:
    """Returns the cluster of each utterance, ``(n,)``.

    An utterance without a speaker (or dialogue) is a cluster of its own.
    """
    column = CLUSTERS.get(corpus, "speaker")
    return np.array([getattr(utterance, column) or f"utterance {utterance.id}" for utterance in utterances])


def summarize(scores: Mapping[int, Sequence[FoldScores]], predictions: Predictions, *, seed: int = 0) -> Summary:
    """Summarizes the test scores of a run.

    Args:
        scores: scores of the folds by seed, in the same order for every seed.
        predictions: test predictions of all folds and seeds.
        seed: random seed of the bootstrap.

    Raises:
        ValueError: if there is no score, or the seeds have different numbers of folds.
    """
    names = predictions.metrics
    table = [[[_plain(fold)[name] for name in names] for fold in folds] for folds in _same_folds(scores)]
    by_seed = np.array(table)  # (seeds, folds, metrics)
    by_fold = by_seed.mean(axis=0)
    return Summary(
        mean=_by_metric(by_fold.mean(axis=0), names),
        std=_spread(by_fold, names),
        std_seeds=_spread(by_seed.mean(axis=1), names),
        interval=bootstrap_interval(predictions, seed=seed),
        pooled=pooled_scores(predictions),
    )


def pooled_scores(predictions: Predictions) -> dict[str, float]:
    """Computes the scores of all predictions together."""
    return _by_metric(predictions.scores_of(predictions.of_clusters().sum(axis=0)), predictions.metrics)


def bootstrap_interval(
    predictions: Predictions, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Interval | None]:
    """Computes the 95% interval of each pooled score; None for a single cluster.

    A resample of clusters that lacks a class has the UA of the classes that it contains.
    """
    return _interval(predictions.of_clusters(), predictions.scores_of, predictions.metrics, resamples, seed)


def compare(first: Predictions, second: Predictions, *, resamples: int = RESAMPLES, seed: int = 0) -> Difference:
    """Computes the difference of two runs on the same utterances.

    If there are no more than `resamples` ways to exchange the clusters, the test tries each of them; otherwise it
    tries `resamples` random exchanges. With n clusters no p-value is below 2 / 2**n.

    Raises:
        MmerError: if the runs were not scored on the same utterances with the same classes.
    """
    _check_same(first, second)
    both = np.stack([_per_utterance(first), _per_utterance(second)], axis=1)  # (clusters, 2, classes, classes)
    names = first.metrics

    def difference(pairs: Matrix) -> Matrix:
        return _difference(pairs, first.scores_of)

    return Difference(
        difference=_by_metric(difference(both.sum(axis=0)), names),
        interval=_interval(both, difference, names, resamples, seed),
        p=_by_metric(_p_values(both, difference, len(names), resamples, seed), names),
    )


def cluster_confusions(predictions: Predictions) -> Matrix:
    """Computes the confusion matrix of each cluster in the order of sorted names.

    The result is float64 ``(clusters, classes, classes)``.
    """
    names, cluster = np.unique(predictions.clusters, return_inverse=True)
    size = predictions.classes
    cells = (cluster * size + predictions.truth) * size + predictions.guess
    counts = np.bincount(cells, minlength=len(names) * size * size)
    return counts.reshape(len(names), size, size).astype(np.float64)


def _plain(scores: FoldScores) -> Mapping[str, float]:
    return scores.as_dict() if isinstance(scores, Scores) else scores


def _same_folds(scores: Mapping[int, Sequence[FoldScores]]) -> list[Sequence[FoldScores]]:
    """Returns the scores of each seed; all must have the same number of folds."""
    by_seed = list(scores.values())
    sizes = {len(folds) for folds in by_seed}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(f"every seed must have the same folds, got numbers of folds {sorted(sizes)}")
    return by_seed


def _spread(values: Matrix, names: Sequence[str]) -> dict[str, float | None]:
    """Computes the standard deviation of each score over the rows, ``(n, metrics)``; None for a single row."""
    if len(values) < 2:
        return dict.fromkeys(names)
    return dict(_by_metric(values.std(axis=0, ddof=1), names))


def _by_metric(values: Matrix, names: Sequence[str]) -> dict[str, float]:
    return dict(zip(names, values.tolist(), strict=True))


def _per_utterance(predictions: Predictions) -> Matrix:
    """Computes confusion matrices of clusters with weight 1 for each utterance.

    An utterance has this weight independently of the number of seeds.
    """
    seeds = len(predictions.ids) / len(np.unique(predictions.ids))
    return predictions.of_clusters() / seeds


def _difference(pairs: Matrix, scores_of: Callable[[Matrix], Matrix]) -> Matrix:
    """Computes the scores of the first run minus those of the second.

    Args:
        pairs: confusion matrices or moments of both runs, ``(..., 2, rows, columns)``.
        scores_of: computes scores from confusion matrices or moments.

    Returns:
        Differences, float64 ``(..., scores)``.
    """
    scores = scores_of(pairs)  # (..., 2, scores)
    return scores[..., 0, :] - scores[..., 1, :]


def _interval(
    confusions: Matrix, scores_of: Callable[[Matrix], Matrix], names: Sequence[str], resamples: int, seed: int
) -> dict[str, Interval | None]:
    """Computes the percentile bootstrap interval of each score.

    Args:
        confusions: confusion matrices or moments of each cluster, float64 ``(clusters, ..., rows, columns)``.
        scores_of: computes scores ``(resamples, scores)`` from sums of `confusions` over clusters ``(resamples, ...)``.
        names: names of the scores.
    """
    from scipy.stats import bootstrap  # imported here, since it takes longer than most commands

    count = len(confusions)
    if count < 2:  # scipy resamples two clusters or more
        return dict.fromkeys(names)
    flat = confusions.reshape(count, -1)

    def statistic(drawn: npt.NDArray[np.int64], axis: int) -> Matrix:  # (batch, clusters) -> (4, batch)
        cells = drawn + count * np.arange(len(drawn))[:, None]
        times = np.bincount(cells.ravel(), minlength=drawn.size).reshape(drawn.shape)  # how often each cluster is drawn
        return scores_of((times @ flat).reshape(-1, *confusions.shape[1:])).T

    options = _shared_options(count, resamples, seed)
    result = bootstrap((np.arange(count),), statistic, confidence_level=LEVEL, method="percentile", **options)
    low, high = result.confidence_interval
    return dict(zip(names, zip(low.tolist(), high.tolist(), strict=True), strict=True))


def _p_values(both: Matrix, difference: Callable[[Matrix], Matrix], scores: int, resamples: int, seed: int) -> Matrix:
    """Computes the two-sided p-value of each score, ``(scores,)``.

    It is the share of exchanges whose difference is at least as large as the observed difference.
    """
    from scipy.stats import permutation_test  # imported here, since it takes longer than most commands

    count = len(both)
    if count < 2:  # scipy permutes two clusters or more; exchanging a single cluster only changes the sign
        return np.ones(scores)
    total = both.sum(axis=0)  # (2, classes, classes)
    change = (both[:, 1] - both[:, 0]).reshape(count, -1)
    observed = np.abs(difference(total))

    def statistic(first: npt.NDArray[np.int64], second: npt.NDArray[np.int64], axis: int) -> Matrix:
        # first is 1 where a cluster is exchanged, (..., clusters) -> (..., 4)
        moved = (first @ change).reshape(*first.shape[:-1], *total.shape[1:])
        differences = np.abs(difference(np.stack([total[0] + moved, total[1] - moved], axis=-total.ndim)))
        return np.where(np.abs(differences - observed) <= ROUNDING, observed, differences)

    runs = np.zeros(count, np.int64), np.ones(count, np.int64)
    options = _shared_options(count, resamples, seed)
    result = permutation_test(runs, statistic, permutation_type="samples", alternative="greater", **options)
    p_values: Matrix = result.pvalue
    return p_values


def _shared_options(count: int, resamples: int, seed: int) -> dict[str, Any]:
    batch = max(1, BATCH_VALUES // count)
    return {"n_resamples": resamples, "batch": batch, "vectorized": True, "rng": np.random.default_rng(seed)}


def _check_same(first: Predictions, second: Predictions) -> None:
    truths = [
        dict(zip(run.ids.tolist(), zip(run.truth.tolist(), run.clusters.tolist(), strict=True), strict=True))
        for run in (first, second)
    ]
    unshared = sorted(truths[0].keys() ^ truths[1].keys())
    if unshared:
        raise MmerError(
            f"the runs were scored on different utterances: {len(unshared)} are in only one of them "
            f"(first: {unshared[0]}); train both with the same cache and --protocol"
        )
    if first.classes != second.classes or truths[0] != truths[1]:
        raise MmerError(
            "the runs have different labels or speakers for the same utterances; "
            "train both with the same cache and --labels"
        )
