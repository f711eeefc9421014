"""Selection of combinations: for each fold by its own dev scores, and over all folds by the mean dev score.

The first is nested selection (Varma and Simon, 2006, doi:10.1186/1471-2105-7-91; Cawley and Talbot, 2010, JMLR 11):
the combination that is scored on the test subset of a fold was selected without it. The second is not nested, since the
development subset of one fold may contain the test speakers of another. Scores are reported as mean and standard
deviation over folds of the mean over seeds.

Of combinations with equal scores, the one with the lower loss on dev is selected, then the first of the grid. Ties are
named in the report, since a small development subset cannot tell such combinations apart.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from cache.errors import MmerError
from fusion.evaluation.classes import CLASSIFICATION
from fusion.evaluation.task import LOSS, Task
from fusion.grid.combinations import FieldValues, ModelScores, value_text
from fusion.training.evaluate import LOSS_DECIMALS

DECIMALS = 12  # scores are compared with: float rounding must not hide a tie
UNSET = "default"  # text for an axis that a combination does not set


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Mean and standard deviation of scores, by metric.

    Attributes:
        mean: mean over folds of the mean over seeds; with equal seeds on all folds the order does not matter.
        std: standard deviation over folds of the mean over seeds, with the divisor n - 1; None for a single fold.
        std_seeds: standard deviation over seeds of the mean over folds, likewise; None for a single seed.
    """

    mean: Mapping[str, float]
    std: Mapping[str, float | None]
    std_seeds: Mapping[str, float | None] = field(default_factory=dict)

    def deviation(self, metric: str) -> float | None:
        """Returns the standard deviation over folds, of a single fold that over seeds; None without either."""
        over_folds = self.std.get(metric)
        return self.std_seeds.get(metric) if over_folds is None else over_folds


def spread(scores: Mapping[str, Sequence[Mapping[str, float]]], metrics: Iterable[str]) -> Spread:
    """Computes mean and standard deviation over folds of the mean over seeds.

    Args:
        scores: fold -> scores of each seed.
        metrics: names of the scores; those that a model lacks, since version 0.1 trained it, are left out.

    Example:
        >>> spread({"1": [{"wa": 0.5}, {"wa": 0.7}], "2": [{"wa": 0.8}, {"wa": 0.8}]}, ["wa"]).mean["wa"]
        0.7
    """
    by_metric = {
        metric: [fmean(by_name[metric] for by_name in seeds) for seeds in scores.values()]
        for metric in metrics
        if all(metric in by_name for seeds in scores.values() for by_name in seeds)
    }
    seeds = {len(held) for held in scores.values()}
    by_seed = {
        metric: [fmean(by_name[metric] for by_name in held) for held in zip(*scores.values(), strict=True)]
        for metric in (by_metric if len(seeds) == 1 else ())  # a fold that lacks a seed has no pair for it
    }
    return Spread(
        mean={metric: fmean(values) for metric, values in by_metric.items()},
        std={metric: _std(values) for metric, values in by_metric.items()},
        std_seeds={metric: _std(by_seed.get(metric, [])) for metric in by_metric},
    )


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """A combination in the ranking of a grid.

    Attributes:
        rank: counted from 1; None unless all models are trained, since other scores are not comparable.
        combination: index in the grid.
        fields: the values that it sets, by axis.
        dev: scores over the trained models, with ``loss``; None without a trained model.
        test: scores over all models; None unless the test subsets of all models are open.
        models: number of trained models; a model is one fold with one seed.
        expected: number of models of a complete combination.
        failures: number of failed models.
        failure: reason of the first failure, empty without failures.
        seconds: training time of all models.
    """

    rank: int | None
    combination: int
    fields: FieldValues
    dev: Spread | None
    test: Spread | None
    models: int
    expected: int
    failures: int
    failure: str
    seconds: float

    @property
    def complete(self) -> bool:
        """All models are trained."""
        return 0 < self.models == self.expected

    def text(self, axis: str) -> str:
        """Formats its value on an axis."""
        return value_text(self.fields[axis]) if axis in self.fields else UNSET


def rank(
    combinations: Sequence[FieldValues],
    scores: Sequence[ModelScores],
    monitor: str,
    *,
    folds: Sequence[str] = (),
    task: Task = CLASSIFICATION,
) -> list[Ranked]:
    """Ranks combinations by their mean dev score, best first; ties by the loss on dev, then by the grid.

    Combinations with a missing or failed model follow all complete ones; those without a trained model come last.

    Args:
        combinations: fields of the combinations of the grid.
        scores: scores of their models.
        monitor: name of the dev score to rank by.
        folds: names of the folds that a complete combination is trained on; those of the scores by default.
        task: task of the grid.
    """
    by_combination: dict[int, list[ModelScores]] = defaultdict(list)
    for model in scores:
        by_combination[model.combination].append(model)
    expected = len(folds or _folds(scores)) * len({model.seed for model in scores})
    ranked = [
        _unranked(index, fields, by_combination[index], expected, task) for index, fields in enumerate(combinations)
    ]
    ranked.sort(key=lambda row: _order(row, monitor, task))
    return [replace(row, rank=number) if row.complete else row for number, row in enumerate(ranked, 1)]


@dataclass(frozen=True, kw_only=True)
class FoldWinner:
    """The combination that is selected for a fold; its scores on that fold are means over seeds, by metric.

    Attributes:
        fold: name of the fold.
        combination: index in the grid.
        dev: dev scores, with ``loss``.
        test: test scores, None while the test subset is closed.
    """

    fold: str
    combination: int
    dev: Mapping[str, float]
    test: Mapping[str, float] | None


def single_best(ranked: Sequence[Ranked]) -> Ranked | None:
    """Returns the combination with the best mean dev score (not nested), None unless it is complete."""
    return ranked[0] if ranked and ranked[0].complete else None


def select_winners(
    scores: Sequence[ModelScores], monitor: str, *, folds: Sequence[str] = (), task: Task = CLASSIFICATION
) -> dict[str, int]:
    """Selects for each fold the combination with the best dev score on it, in the mean over seeds.

    Only combinations that are trained on the fold with every seed take part; of equal scores the lower loss on dev
    wins, then the earliest combination.

    Args:
        scores: scores of all models.
        monitor: name of the dev score to select by.
        folds: names of the folds that need a winner; those of the scores by default.
        task: task of the grid.

    Returns:
        Index of the winning combination, by fold.

    Raises:
        MmerError: if a fold has no winner, with the reason of its first failure.
    """
    seeds = {model.seed for model in scores}
    return {fold: _select_winner(fold, scores, seeds, monitor, task) for fold in folds or _folds(scores)}


def tied_with_best(ranked: Sequence[Ranked], monitor: str, task: Task = CLASSIFICATION) -> list[Ranked]:
    """Returns the complete combinations with the best mean dev score, if there are several; else nothing.

    Args:
        ranked: combinations in the order of their rank.
        monitor: name of the dev score that ranks.
        task: task of the grid.
    """
    complete = [
        (row, _utility(row.dev.mean.get(monitor, math.nan), monitor, task))
        for row in ranked
        if row.complete and row.dev
    ]
    tied = [row for row, utility in complete if utility == complete[0][1]]
    return tied if len(tied) > 1 else []


def tied_with_winners(
    scores: Sequence[ModelScores], winners: Mapping[str, int], monitor: str, task: Task = CLASSIFICATION
) -> dict[str, list[int]]:
    """Returns the combinations whose dev score on a fold equals that of its winner, by fold with such a tie.

    Args:
        scores: scores of all models.
        winners: index of the winning combination, by fold.
        monitor: name of the dev score that selects.
        task: task of the grid.
    """
    seeds = {model.seed for model in scores}
    tied = {}
    for fold, winner in winners.items():
        candidates = _candidates(fold, scores, seeds)
        reached = _merit(candidates[winner], monitor, task)[0]
        equal = [index for index, models in candidates.items() if _merit(models, monitor, task)[0] == reached]
        if len(equal) > 1:
            tied[fold] = equal
    return tied


def fold_winners(scores: Sequence[ModelScores], winners: Mapping[str, int]) -> list[FoldWinner]:
    """Returns the scores of each fold's winner on that fold."""
    rows = []
    for fold, combination in winners.items():
        models = [model for model in scores if (model.fold, model.combination) == (fold, combination)]
        tests = [model.test for model in models if model.test is not None]
        test = _mean(tests) if len(tests) == len(models) else None
        dev = _mean([model.dev for model in models])
        rows.append(FoldWinner(fold=fold, combination=combination, dev=dev, test=test))
    return rows


def nested_scores(scores: Sequence[ModelScores], winners: Mapping[str, int], task: Task = CLASSIFICATION) -> Spread:
    """Computes the result of a grid: test scores of each fold's winner on that fold.

    Raises:
        ValueError: if the test subset of a winner is closed, or there is no winner.
    """
    tests: dict[str, list[Mapping[str, float]]] = {fold: [] for fold in winners}
    missing = []
    for model in scores:
        if winners.get(model.fold) == model.combination:
            if model.test is None:
                missing.append(model.fold)
            else:
                tests[model.fold].append(model.test)
    missing += [fold for fold, held in tests.items() if not held]
    if missing:
        names = ", ".join(dict.fromkeys(fold for fold in winners if fold in missing))
        raise ValueError(f"the winner of each fold must be scored on test; not scored on fold {names}")
    return spread(tests, task.names)


def hide_unselected_tests(scores: Sequence[ModelScores], winners: Mapping[str, int]) -> list[ModelScores]:
    """Removes test scores of models that are not selected; another grid with the same journal may have opened them."""
    return [model if winners.get(model.fold) == model.combination else replace(model, test=None) for model in scores]


def shows_unselected_tests(scores: Sequence[ModelScores], winners: Mapping[str, int]) -> bool:
    """Checks whether there are test scores of models that are not selected."""
    return any(model.test is not None and winners.get(model.fold) != model.combination for model in scores)


def _std(values: Sequence[float]) -> float | None:
    if len(values) < 2:
        return None
    mean = fmean(values)  # statistics.stdev raises on an infinite loss
    return math.sqrt(math.fsum((value - mean) * (value - mean) for value in values) / (len(values) - 1))


def _unranked(
    combination: int, fields: FieldValues, models: Sequence[ModelScores], expected: int, task: Task
) -> Ranked:
    trained: dict[str, list[Mapping[str, float]]] = defaultdict(list)
    opened: dict[str, list[Mapping[str, float]]] = defaultdict(list)
    for model in models:
        if model.dev:
            trained[model.fold].append(model.dev)
        if model.test is not None:
            opened[model.fold].append(model.test)
    failures = [model.failure for model in models if model.failure]
    return Ranked(
        rank=None,
        combination=combination,
        fields=fields,
        dev=spread(trained, (*task.names, LOSS)) if trained else None,
        test=spread(opened, task.names) if sum(map(len, opened.values())) == expected > 0 else None,
        models=sum(map(len, trained.values())),
        expected=expected,
        failures=len(failures),
        failure=failures[0] if failures else "",
        seconds=math.fsum(model.seconds for model in models),
    )


def _order(row: Ranked, monitor: str, task: Task) -> tuple[int, float, float]:
    """Returns the sort key of a row: complete rows first, then incomplete ones, then those without a trained model."""
    if row.dev is None:
        return 2, 0.0, 0.0
    utility = _utility(row.dev.mean.get(monitor, math.nan), monitor, task)
    return 0 if row.complete else 1, -utility, -_calm(row.dev.mean.get(LOSS, math.nan))


def _utility(score: float, monitor: str, task: Task) -> float:
    """Returns a number that is larger for better scores; NaN is the worst score."""
    if math.isnan(score):
        return -math.inf
    return round(score if task.score(monitor).higher_is_better else -score, DECIMALS)


def _calm(loss: float) -> float:
    """Returns a number that is larger for a lower loss; NaN is the worst loss."""
    return -math.inf if math.isnan(loss) else -round(loss, LOSS_DECIMALS)


def _merit(models: Sequence[ModelScores], monitor: str, task: Task) -> tuple[float, float]:
    """Returns the sort key of a combination on a fold: its dev score, then its loss, in the mean over seeds."""
    reached, loss = (fmean(model.dev.get(name, math.nan) for model in models) for name in (monitor, LOSS))
    return _utility(reached, monitor, task), _calm(loss)


def _candidates(fold: str, scores: Sequence[ModelScores], seeds: set[int]) -> dict[int, list[ModelScores]]:
    """Returns the models on a fold of each combination that is trained with every seed, in the order of the grid."""
    by_combination: dict[int, list[ModelScores]] = defaultdict(list)
    for model in scores:
        if model.fold == fold:
            by_combination[model.combination].append(model)
    return {
        combination: by_combination[combination]
        for combination in sorted(by_combination)
        if {model.seed for model in by_combination[combination] if model.dev} == seeds
    }


def _select_winner(fold: str, scores: Sequence[ModelScores], seeds: set[int], monitor: str, task: Task) -> int:
    candidates = _candidates(fold, scores, seeds)
    if not candidates:
        failures = (f"first: {model.failure}" for model in scores if model.fold == fold and model.failure)
        raise MmerError(
            f"no combination was trained on fold {fold} with every seed ({next(failures, 'no model is trained')}); "
            "give the grid other values"
        )
    return max(candidates, key=lambda combination: _merit(candidates[combination], monitor, task))


def _folds(scores: Sequence[ModelScores]) -> list[str]:
    return list(dict.fromkeys(model.fold for model in scores))


def _mean(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    common = [metric for metric in scores[0] if all(metric in by_name for by_name in scores)]
    return {metric: fmean(by_name[metric] for by_name in scores) for metric in common}
