"""What a grid chooses: for each fold by its own dev, and over all folds by mean dev.

The first is nested selection (Varma and Simon, 2006, doi:10.1186/1471-2105-7-91; Cawley and Talbot, 2010, JMLR 11):
what is scored on a fold's test part was chosen without it. The second is not nested, since the dev part of one fold may
hold the test speakers of another.

Mean and standard deviation of scores over folds and seeds.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from cache.errors import MmerError
from fusion.evaluation.task import CLASSIFICATION, LOSS, Task
from fusion.grid.combinations import FieldValues, ModelScores, value_text

DECIMALS = 12  # rounding must not hide a tie
UNSET = "default"  # what a combination has on an axis that it does not set


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
        metrics: those to take; one that a model lacks, since an older version trained it, is left out.

    Example:
        >>> spread({"1": [{"wa": 0.5}, {"wa": 0.7}], "2": [{"wa": 0.8}, {"wa": 0.8}]}, ["wa"]).mean["wa"]
        0.7
    """
    by_metric = {
        metric: [fmean(one[metric] for one in seeds) for seeds in scores.values()]
        for metric in metrics
        if all(metric in one for seeds in scores.values() for one in seeds)
    }
    return Spread(
        mean={metric: fmean(values) for metric, values in by_metric.items()},
        std={metric: _std(values) for metric, values in by_metric.items()},
    )


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """A combination in the ranking of a grid.

    Attributes:
        rank: counted from 1; None unless all its models are trained, since others are not comparable.
        combination: place among those of the grid.
        fields: what it sets, by axis.
        dev: over the models that are trained, with ``loss``; None where there is none.
        test: None unless the test parts of all its models are open.
        models: how many are trained, of how many; a model is one fold with one seed.
        of: how many there are to be.
        failures: how many failed.
        failure: why the first of them did, empty where none did.
        seconds: of training, over all models.
    """

    rank: int | None
    combination: int
    fields: FieldValues
    dev: Spread | None
    test: Spread | None
    models: int
    of: int
    failures: int
    failure: str
    seconds: float

    @property
    def complete(self) -> bool:
        """Whether all its models are trained."""
        return 0 < self.models == self.of

    def text(self, axis: str) -> str:
        """Writes its value on an axis."""
        return value_text(self.fields[axis]) if axis in self.fields else UNSET


def rank(
    combinations: Sequence[FieldValues],
    results: Sequence[ModelScores],
    monitor: str,
    *,
    folds: Sequence[str] = (),
    task: Task = CLASSIFICATION,
) -> list[Ranked]:
    """Ranks combinations by their mean dev score, best first; ties keep the order of the grid.

    Those that lack a model, or failed on one, come after all complete ones; those with no trained model come last.

    Args:
        combinations: of the grid.
        results: of their models.
        monitor: the dev score that decides.
        folds: that each is to be trained on; those of the results unless given.
        task: task of the grid.
    """
    own: dict[int, list[ModelScores]] = defaultdict(list)
    for one in results:
        own[one.combination].append(one)
    of = len(folds or _folds(results)) * len({one.seed for one in results})
    ranked = [_unranked(place, fields, own[place], of, task) for place, fields in enumerate(combinations)]
    ranked.sort(key=lambda one: _order(one, monitor, task))
    return [replace(one, rank=place) if one.complete else one for place, one in enumerate(ranked, 1)]


@dataclass(frozen=True, kw_only=True)
class FoldWinner:
    """The combination that was chosen for a fold; its scores on that fold are means over seeds, by metric.

    Attributes:
        fold: its name.
        combination: place among those of the grid.
        dev: with ``loss``.
        test: None while it is closed.
    """

    fold: str
    combination: int
    dev: Mapping[str, float]
    test: Mapping[str, float] | None


def single_best(ranked: Sequence[Ranked]) -> Ranked | None:
    """Gives the complete combination that is best by mean dev, which is no nested choice; None if there is none."""
    return ranked[0] if ranked and ranked[0].complete else None


def winners(
    results: Sequence[ModelScores], monitor: str, *, folds: Sequence[str] = (), task: Task = CLASSIFICATION
) -> dict[str, int]:
    """Chooses for each fold the combination that is best on its own dev, in the mean over seeds.

    Only combinations that succeeded there with every seed take part; ties go to the earlier one.

    Args:
        results: of all models.
        monitor: the dev score that decides.
        folds: that need a winner; those of the results unless given.
        task: task of the grid.

    Returns:
        The place of its combination, by fold.

    Raises:
        MmerError: if a fold has none, with the reason of its first failure.
    """
    seeds = {one.seed for one in results}
    return {fold: _winner(fold, results, seeds, monitor, task) for fold in folds or _folds(results)}


def fold_winners(results: Sequence[ModelScores], winners: Mapping[str, int]) -> list[FoldWinner]:
    """Gives the scores of each fold's winner on that fold."""
    told = []
    for fold, combination in winners.items():
        own = [one for one in results if (one.fold, one.combination) == (fold, combination)]
        opened = [one.test for one in own if one.test is not None]
        test = _mean(opened) if len(opened) == len(own) else None
        told.append(FoldWinner(fold=fold, combination=combination, dev=_mean([one.dev for one in own]), test=test))
    return told


def nested(results: Sequence[ModelScores], winners: Mapping[str, int], task: Task = CLASSIFICATION) -> Spread:
    """Gives the result of a grid: each winner's test scores on its own fold.

    Raises:
        ValueError: if the test part of a winner is closed, or there is no winner.
    """
    tests = {one.fold: [one.test] for one in fold_winners(results, winners) if one.test is not None}
    if len(tests) < len(winners):
        lacking = ", ".join(fold for fold in winners if fold not in tests)
        raise ValueError(f"the winner of each fold must be scored on test, not so on fold {lacking}")
    return spread(tests, task.names)


def close_unchosen(results: Sequence[ModelScores], winners: Mapping[str, int]) -> list[ModelScores]:
    """Leaves out the test scores of models that were not chosen: another grid over the journal may have opened them."""
    return [one if winners.get(one.fold) == one.combination else replace(one, test=None) for one in results]


def shows_unchosen(results: Sequence[ModelScores], winners: Mapping[str, int]) -> bool:
    """Tells whether the test score of a model that was not chosen is there."""
    return any(one.test is not None and winners.get(one.fold) != one.combination for one in results)


def _std(values: Sequence[float]) -> float | None:
    if len(values) < 2:
        return None
    mean = fmean(values)  # statistics.stdev does not take an infinite loss
    return math.sqrt(math.fsum((value - mean) * (value - mean) for value in values) / (len(values) - 1))


def _unranked(place: int, fields: FieldValues, own: Sequence[ModelScores], of: int, task: Task) -> Ranked:
    trained: dict[str, list[Mapping[str, float]]] = defaultdict(list)
    opened: dict[str, list[Mapping[str, float]]] = defaultdict(list)
    for one in own:
        if one.dev:
            trained[one.fold].append(one.dev)
        if one.test is not None:
            opened[one.fold].append(one.test)
    failed = [one.failure for one in own if one.failure]
    return Ranked(
        rank=None,
        combination=place,
        fields=fields,
        dev=spread(trained, (*task.names, LOSS)) if trained else None,
        test=spread(opened, task.names) if sum(map(len, opened.values())) == of > 0 else None,
        models=sum(map(len, trained.values())),
        of=of,
        failures=len(failed),
        failure=failed[0] if failed else "",
        seconds=math.fsum(one.seconds for one in own),
    )


def _order(one: Ranked, monitor: str, task: Task) -> tuple[int, float]:
    if one.dev is None:
        return 2, 0.0
    return 0 if one.complete else 1, -_worth(one.dev.mean.get(monitor, math.nan), monitor, task)


def _worth(score: float, monitor: str, task: Task) -> float:
    """Gives a number of which more is better; one that is not a number is worst."""
    if math.isnan(score):
        return -math.inf
    return round(score if task.score(monitor).higher_is_better else -score, DECIMALS)


def _winner(fold: str, results: Sequence[ModelScores], seeds: set[int], monitor: str, task: Task) -> int:
    own: dict[int, list[ModelScores]] = defaultdict(list)
    for one in results:
        if one.fold == fold:
            own[one.combination].append(one)
    taking_part = sorted(place for place, models in own.items() if {one.seed for one in models if one.dev} == seeds)
    if not taking_part:
        why = next((f"first: {one.failure}" for one in results if one.fold == fold and one.failure), "none is done")
        raise MmerError(
            f"no combination was trained on fold {fold} with every seed ({why}); give the grid other values"
        )

    def worth(place: int) -> float:
        return _worth(fmean(one.dev.get(monitor, math.nan) for one in own[place]), monitor, task)

    return max(taking_part, key=worth)


def _folds(results: Sequence[ModelScores]) -> list[str]:
    return list(dict.fromkeys(one.fold for one in results))


def _mean(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    common = [metric for metric in scores[0] if all(metric in one for one in scores)]
    return {metric: fmean(one[metric] for one in scores) for metric in common}
