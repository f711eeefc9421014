"""A grid from its space to its scores: plans combinations, has them trained, opens the tests of those it chose.

Opens test parts of models that a grid chose, and gathers what the journal holds of all of them.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from cache.joined import AnyCache
from fusion.data.features import RESIDENT_SHARE
from fusion.evaluation.statistics import Interval, bootstrap_interval
from fusion.experiment.experiment import Experiment
from fusion.experiment.plan import RunPlan
from fusion.grid.combinations import (
    Combination,
    FieldValues,
    Model,
    ModelOutcome,
    ModelScores,
    Skipped,
    check_any,
    fields_text,
    models_of,
    plan_combinations,
    skipped_by_reason,
)
from fusion.grid.engine.local import GridProgress
from fusion.grid.engine.sources import Sources
from fusion.grid.journal import Journal
from fusion.grid.selection import close_unchosen, winners
from fusion.grid.space import RANDOM, TPE, Search, Space, key_of
from fusion.grid.tpe import TreeSearch
from fusion.run.results import pooled

# Trains all models that a journal does not hold; gives what failed and is not in it, by key.
Trainer = Callable[[Sequence[Model], Sources], Mapping[str, ModelOutcome]]
ROUNDS = 10  # that a search by scores is asked in at least, so that most of it knows of earlier scores
TRIES = 20  # combinations of which one at least should be possible


class Findings:
    """What is known of the models of a grid.

    Args:
        combinations: of the grid.
        journal: that holds their models.
        failed: those that failed and are not in the journal, by key.
    """

    def __init__(
        self, combinations: Sequence[Combination], journal: Journal, failed: Mapping[str, ModelOutcome] | None = None
    ) -> None:
        self.combinations, self.journal = combinations, journal
        self._failed = failed or {}

    @property
    def results(self) -> list[ModelScores]:
        """Of every model that was trained or has failed."""
        known = [
            self._result(place, model)
            for place, combination in enumerate(self.combinations)
            for model in models_of(combination)
        ]
        return [one for one in known if one is not None]

    @property
    def notes(self) -> list[str]:
        """What heads noted of all models of a combination, with the combinations that it holds for."""
        noted: dict[str, list[str]] = {}
        for combination in self.combinations:
            every = [self.journal.notes(model) for model in models_of(combination) if self.journal.holds(model)]
            for note in (one for one in (every or [[]])[0] if all(one in notes for notes in every)):
                noted.setdefault(note, []).append(fields_text(combination.fields))
        return [
            f"{note} (of {names[0]}{f' and {len(names) - 1} more' if names[1:] else ''})"
            if len(names) < len(self.combinations)
            else note
            for note, names in noted.items()
        ]

    def open(self, chosen: Iterable[tuple[int, str]], sources: Sources) -> None:
        """Opens the test part of folds to combinations, for all their seeds.

        Args:
            chosen: place of each combination, and the name of the fold.
            sources: of the features.
        """
        for place, fold in chosen:
            source = sources.of(self.combinations[place].plan)
            for model in self._models(place, fold):
                if self.journal.trained(model):
                    self.journal.open_test(model, source)

    def interval(self, winners: Mapping[str, int], cache: AnyCache) -> dict[str, Interval | None]:
        """Gives the interval of the nested score, over the test predictions of each fold's winner; 95%, clustered."""
        models = [model for fold, place in winners.items() for model in self._models(place, fold)]
        names = list(self.combinations[0].plan.inputs.classes)
        return bootstrap_interval(pooled([self.journal.folder(model) for model in models], cache, names))

    def _models(self, place: int, fold: str) -> list[Model]:
        return models_of(self.combinations[place], folds=[fold])

    def _result(self, place: int, model: Model) -> ModelScores | None:
        if self.journal.holds(model):
            return self.journal.result(model, place)
        if model.key not in self._failed:
            return None
        failure = self._failed[model.key].failure
        return ModelScores(
            combination=place, fold=model.fold.name, seed=model.seed, dev={}, epoch=0, seconds=0.0, failure=failure
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class GridResults:
    """What a grid found.

    Attributes:
        combinations: that were trained.
        skipped: those that could not be.
        results: of every model; test scores only where they are to be shown.
        winners: place of the combination that was chosen for each fold.
        interval: of the nested score, by metric.
        notes: of the heads.
        seconds: that this run of the grid took.
    """

    combinations: Sequence[Combination]
    skipped: Sequence[Skipped]
    results: Sequence[ModelScores]
    winners: Mapping[str, int]
    interval: Mapping[str, Interval | None]
    notes: Sequence[str]
    seconds: float


@dataclass(kw_only=True, eq=False)
class GridSession:
    """One run of a grid.

    Attributes:
        cache: that is read.
        experiment_of: gives the run that a combination would be alone.
        journal: that keeps models.
        train: how models are trained.
        device: where tests are scored.
        watcher: told what is to be known.
        resident_share: share of the device's memory that features may take to be held there.
        sources: of the features of all that is planned; what is read stays.
    """

    cache: AnyCache
    experiment_of: Callable[[FieldValues], Experiment]
    journal: Journal
    train: Trainer
    device: torch.device
    watcher: GridProgress
    resident_share: float = RESIDENT_SHARE
    sources: Sources = field(init=False)
    combinations: list[Combination] = field(default_factory=list, init=False)
    skipped: list[Skipped] = field(default_factory=list, init=False)
    _failed: dict[str, ModelOutcome] = field(default_factory=dict, init=False)
    _places: dict[object, int | None] = field(default_factory=dict, init=False)

    def run(self, space: Space, search: Search, *, seed: int, all_tests: bool = False) -> GridResults:
        """Trains what is not trained yet, chooses, and opens the tests of what was chosen.

        Args:
            space: of the combinations.
            search: how it is searched.
            seed: of the search.
            all_tests: open those of all combinations.

        Raises:
            MmerError: if no combination can be trained, or a fold has no winner.
        """
        began = time.monotonic()
        if search.kind == TPE:
            self._follow(space, search, seed)
        else:
            self.plan(space.combinations(search, seed))
            self._train([model for one in self.combinations for model in models_of(one)])
        return self._found(all_tests, began)

    def __post_init__(self) -> None:
        self.sources = Sources([], self.device, self.resident_share)

    def plan(self, every: Sequence[FieldValues]) -> None:
        """Plans combinations that were not planned before.

        Raises:
            MmerError: if none that is planned can be trained.
        """
        new = [fields for fields in every if key_of(fields) not in self._places]
        planned, skipped = plan_combinations(new, self.experiment_of, self.cache)
        for one in skipped:
            self._places[key_of(one.fields)] = None
        for combination in planned:
            self._places[key_of(combination.fields)] = len(self.combinations)
            self.combinations.append(combination)
            self.sources.add(combination.plan)
        self.skipped += skipped
        check_any(self.combinations, self.skipped)
        for line in skipped_by_reason(skipped):
            self.watcher.note(line)

    def _train(self, models: Sequence[Model]) -> None:
        self._failed |= self.train(models, self.sources)

    def _follow(self, space: Space, search: Search, seed: int) -> None:
        """Searches each fold by its own dev scores, so that what is chosen for it knows of no other fold's dev."""
        plan = self._any_plan(space, seed)
        monitor = plan.experiment.training.monitor
        for place, fold in enumerate(plan.split.folds):
            tree = TreeSearch(space, seed=seed + place, maximize=plan.task.score(monitor).higher_is_better)
            left = search.count
            while left:
                asked = tree.ask(min(left, max(1, search.count // ROUNDS)))
                if not asked:
                    break
                left -= len(asked)
                self.plan(asked)
                chosen = [self._places[key_of(fields)] for fields in asked]
                places = [one for one in chosen if one is not None]
                self._train([one for at in places for one in models_of(self.combinations[at], folds=[fold.name])])
                for fields, at in zip(asked, chosen, strict=True):
                    tree.tell(fields, None if at is None else self._dev(at, fold.name, monitor))

    def _any_plan(self, space: Space, seed: int) -> RunPlan:
        """Gives the plan of the first combination at hand that can be trained: it knows the folds."""
        skipped: list[Skipped] = []
        for fields in space.combinations(Search(kind=RANDOM, count=TRIES), seed):
            planned, left_out = plan_combinations([fields], self.experiment_of, self.cache)
            if planned:
                return planned[0].plan
            skipped += left_out
        check_any([], skipped)
        raise AssertionError("a search without combinations")

    def _dev(self, place: int, fold: str, monitor: str) -> float | None:
        """Gives the mean dev score of a combination on a fold; None if a seed failed or an older version lacks it."""
        models = models_of(self.combinations[place], folds=[fold])
        if not all(self.journal.trained(model) for model in models):
            return None
        scores = [self.journal.result(model, place).dev for model in models]
        return sum(one[monitor] for one in scores) / len(models) if all(monitor in one for one in scores) else None

    def _found(self, all_tests: bool, began: float) -> GridResults:
        plan = self.combinations[0].plan
        folds = [fold.name for fold in plan.split.folds]
        findings = Findings(self.combinations, self.journal, self._failed)
        chosen = winners(findings.results, plan.experiment.training.monitor, folds=folds, task=plan.task)
        findings.open([(place, fold) for fold, place in chosen.items()], self.sources)
        if all_tests:
            findings.open([(place, fold) for place in range(len(self.combinations)) for fold in folds], self.sources)
        results = findings.results
        return GridResults(
            combinations=self.combinations,
            skipped=self.skipped,
            results=results if all_tests else close_unchosen(results, chosen),
            winners=chosen,
            interval=findings.interval(chosen, self.cache),
            notes=findings.notes,
            seconds=time.monotonic() - began,
        )
