"""A grid from its space to its scores: plan combinations, train models, select winners, open their test subsets."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from cache.joined import AnyCache
from fusion.data.features import RESIDENT_SHARE
from fusion.evaluation.statistics import Interval, Predictions, bootstrap_interval
from fusion.evaluation.task import Task
from fusion.experiment.experiment import Experiment
from fusion.experiment.plan import EARLIER_DEV, RunPlan, Splits, plan_earlier
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
from fusion.grid.selection import hide_unselected_tests, rank, select_winners, single_best
from fusion.grid.space import RANDOM, TPE, Search, Space, fields_key
from fusion.grid.tpe import TreeSearch
from fusion.run.notes import arrange, limits
from fusion.run.results import cluster_notes, pooled_predictions

# Trains all models that the journal does not hold; returns the failures that are not in the journal, by key.
Trainer = Callable[[Sequence[Model], Sources], Mapping[str, ModelOutcome]]
ROUNDS = 10  # batches of a search by scores at least, so that most proposals know earlier scores
TRIES = 20  # random combinations of which at least one should be trainable


@dataclass(frozen=True, kw_only=True, eq=False)
class GridResults:
    """The results of a grid: scores of all models, winner of each fold, nested interval.

    Attributes:
        combinations: the trained combinations.
        skipped: combinations that cannot be trained.
        scores: scores of every trained or failed model; test scores only where they may be shown.
        winners: index of the combination that is selected for each fold.
        interval: 95% interval of the nested score by metric; None for a single cluster.
        notes: notes of the heads, and one on an interval over too few clusters.
        seconds: duration of this run of the grid.
    """

    combinations: Sequence[Combination]
    skipped: Sequence[Skipped]
    scores: Sequence[ModelScores]
    winners: Mapping[str, int]
    interval: Mapping[str, Interval | None]
    notes: Sequence[str]
    seconds: float

    @property
    def plan(self) -> RunPlan:
        """Plan of the first combination; all combinations share its folds, classes, seeds and task."""
        return self.combinations[0].plan

    @property
    def best(self) -> Combination | None:
        """The combination with the best mean dev score; None where each lacks a model."""
        folds = [fold.name for fold in self.plan.split.folds]
        fields = [combination.fields for combination in self.combinations]
        best = single_best(rank(fields, self.scores, self.monitor, folds=folds, task=self.task))
        return self.combinations[best.combination] if best else None

    @property
    def task(self) -> Task:
        """Task of all combinations."""
        return self.plan.task

    @property
    def monitor(self) -> str:
        """Name of the dev score that selects: that of the first combination."""
        return self.plan.experiment.training.monitor


@dataclass(kw_only=True, eq=False)
class GridSession:
    """One run of a grid.

    Attributes:
        cache: an open cache.
        experiment_of: returns the experiment that trains one combination only.
        journal: keeps the models.
        train: trains models.
        device: where models are scored on test.
        progress: notified of notes.
        resident_share: share of the device's memory that features may take, in [0, 1].
        splits: splits of the cache that are known already; None if there are none.
        sources: features of all planned combinations; they stay loaded.
        combinations: the planned combinations.
        skipped: combinations that cannot be trained.
    """

    cache: AnyCache
    experiment_of: Callable[[FieldValues], Experiment]
    journal: Journal
    train: Trainer
    device: torch.device
    progress: GridProgress
    resident_share: float = RESIDENT_SHARE
    splits: Splits | None = None
    sources: Sources = field(init=False)
    combinations: list[Combination] = field(default_factory=list, init=False)
    skipped: list[Skipped] = field(default_factory=list, init=False)
    _splits: Splits = field(init=False)
    _earlier_dev: bool | None = field(default=None, init=False)  # None before the first plan
    _failed: dict[str, ModelOutcome] = field(default_factory=dict, init=False)  # failures outside the journal, by key
    _noted: set[str] = field(default_factory=set, init=False)  # limits that were passed on
    _indices: dict[object, int | None] = field(default_factory=dict, init=False)  # by fields, None for a skipped one

    def __post_init__(self) -> None:
        self.sources = Sources([], self.device, self.resident_share)
        self._splits = self.splits or Splits(self.cache)

    def run(self, space: Space, search: Search, *, seed: int, all_tests: bool = False) -> GridResults:
        """Trains the models that the journal lacks, selects winners, and scores them on test.

        Args:
            space: the combinations.
            search: the search of the space.
            seed: random seed of the search.
            all_tests: score the test subsets of all combinations.

        Raises:
            MmerError: if no combination can be trained, or a fold has no winner.
        """
        started = time.monotonic()
        if search.kind == TPE:
            self._search_by_scores(space, search, seed)
        else:
            self.plan(space.combinations(search, seed))
            self._train([model for combination in self.combinations for model in models_of(combination)])
        return self._select(all_tests, started)

    def plan(self, requested: Sequence[FieldValues]) -> None:
        """Plans the combinations that are not planned yet.

        Raises:
            MmerError: if none of the planned combinations can be trained.
        """
        new = [fields for fields in requested if fields_key(fields) not in self._indices]
        planned, skipped = self._planned(new)
        for impossible in skipped:
            self._indices[fields_key(impossible.fields)] = None
        for combination in planned:
            self._indices[fields_key(combination.fields)] = len(self.combinations)
            self.combinations.append(combination)
            self.sources.add(combination.plan)
        self.skipped += skipped
        check_any(self.combinations, self.skipped)
        self._note_limits(planned)
        for line in skipped_by_reason(skipped):
            self.progress.note(line)

    def first_plan(self, space: Space, search: Search, seed: int) -> RunPlan:
        """Returns the plan of a combination that `run` with the same arguments trains; all plans have the same folds.

        Raises:
            MmerError: if no combination can be trained.
        """
        if search.kind == TPE:
            return self._any_plan(space, seed)
        self.plan(space.combinations(search, seed))
        return self.combinations[0].plan

    def _note_limits(self, planned: Sequence[Combination]) -> None:
        """Passes on, once, the notes that limit what the scores of new combinations will mean."""
        notes = [note for combination in planned for note in combination.plan.notes]
        for note in filter(limits, arrange(notes)):
            if note not in self._noted:
                self._noted.add(note)
                self.progress.note(note)

    def _planned(self, requested: Sequence[FieldValues]) -> tuple[list[Combination], list[Skipped]]:
        """Plans combinations; if version 0.1 trained one of them for this journal, dev is drawn as it did."""
        planned, skipped = plan_combinations(requested, self._experiment_of, self.cache, self._splits)
        if self._earlier_dev is None and planned:
            self._earlier_dev = self._was_begun_earlier(planned)
            if self._earlier_dev:
                self.progress.note(EARLIER_DEV)
                return self._planned(requested)
        return planned, skipped

    def _experiment_of(self, fields: FieldValues) -> Experiment:
        experiment = self.experiment_of(fields)
        return replace(experiment, earlier_dev=True) if self._earlier_dev else experiment

    def _was_begun_earlier(self, planned: Sequence[Combination]) -> bool:
        """Checks whether the journal has models of a combination with the dev of version 0.1, and none with another."""
        if not self.journal.has_models or any(self._held(combination) for combination in planned):
            return False
        earlier = [(combination.fields, plan_earlier(combination.plan)) for combination in planned]
        return any(self._held(Combination(fields=fields, plan=plan)) for fields, plan in earlier if plan)

    def _held(self, combination: Combination) -> bool:
        return any(self.journal.holds(model) for model in models_of(combination))

    def _train(self, models: Sequence[Model]) -> None:
        self._failed |= self.train(models, self.sources)

    def _search_by_scores(self, space: Space, search: Search, seed: int) -> None:
        """Searches each fold by its own dev scores: a selection must not depend on the dev scores of other folds."""
        plan = self._any_plan(space, seed)
        monitor = plan.experiment.training.monitor
        for number, fold in enumerate(plan.split.folds):
            tree = TreeSearch(space, seed=seed + number, maximize=plan.task.score(monitor).higher_is_better)
            remaining = search.count
            while remaining:
                proposed = tree.ask(min(remaining, max(1, search.count // ROUNDS)))
                if not proposed:
                    break
                remaining -= len(proposed)
                self.plan(proposed)
                indices = [self._indices[fields_key(fields)] for fields in proposed]
                possible = [index for index in indices if index is not None]
                self._train([model for index in possible for model in self._models(index, fold.name)])
                for fields, index in zip(proposed, indices, strict=True):
                    tree.tell(fields, None if index is None else self._dev_score(index, fold.name, monitor))

    def _any_plan(self, space: Space, seed: int) -> RunPlan:
        """Returns the plan of a random combination that can be trained; all plans have the same folds."""
        skipped: list[Skipped] = []
        for fields in space.combinations(Search(kind=RANDOM, count=TRIES), seed):
            planned, impossible = self._planned([fields])
            if planned:
                return planned[0].plan
            skipped += impossible
        check_any([], skipped)
        raise AssertionError("a search without combinations")

    def _dev_score(self, combination: int, fold: str, monitor: str) -> float | None:
        """Returns the mean dev score of a combination on a fold; None if a model failed or version 0.1 trained it."""
        models = self._models(combination, fold)
        if not all(self.journal.trained(model) for model in models):
            return None
        devs = [self.journal.scores(model, combination).dev for model in models]
        return sum(dev[monitor] for dev in devs) / len(models) if all(monitor in dev for dev in devs) else None

    def _select(self, all_tests: bool, started: float) -> GridResults:
        """Selects the winner of each fold, opens the test subsets and collects the results."""
        plan = self.combinations[0].plan
        folds = [fold.name for fold in plan.split.folds]
        winners = select_winners(self._scores(), plan.experiment.training.monitor, folds=folds, task=plan.task)
        self._open_tests((combination, fold) for fold, combination in winners.items())
        if all_tests:
            self._open_tests((combination, fold) for combination in range(len(self.combinations)) for fold in folds)
        scores, predictions = self._scores(), self._nested_predictions(winners)
        return GridResults(
            combinations=self.combinations,
            skipped=self.skipped,
            scores=scores if all_tests else hide_unselected_tests(scores, winners),
            winners=winners,
            interval=bootstrap_interval(predictions),
            notes=[*cluster_notes(predictions), *self._notes()],
            seconds=time.monotonic() - started,
        )

    def _scores(self) -> list[ModelScores]:
        """Returns the scores of every trained or failed model."""
        known = [
            self._model_scores(index, model)
            for index, combination in enumerate(self.combinations)
            for model in models_of(combination)
        ]
        return [scores for scores in known if scores is not None]

    def _model_scores(self, combination: int, model: Model) -> ModelScores | None:
        if self.journal.holds(model):
            return self.journal.scores(model, combination)
        if model.key not in self._failed:
            return None
        return ModelScores(
            combination=combination,
            fold=model.fold.name,
            seed=model.seed,
            dev={},
            epoch=0,
            seconds=0.0,
            failure=self._failed[model.key].failure,
        )

    def _open_tests(self, selected: Iterable[tuple[int, str]]) -> None:
        """Scores the trained models of combinations on the test subsets of folds, with all seeds."""
        for combination, fold in selected:
            source = self.sources.of(self.combinations[combination].plan)
            for model in self._models(combination, fold):
                if self.journal.trained(model):
                    self.journal.open_test(model, source)

    def _nested_predictions(self, winners: Mapping[str, int]) -> Predictions:
        """Reads the test predictions of the winners, which give the interval of the nested score."""
        models = [model for fold, combination in winners.items() for model in self._models(combination, fold)]
        plan = self.combinations[0].plan
        classes, task = list(plan.inputs.classes), plan.task
        return pooled_predictions([self.journal.folder(model) for model in models], self.cache, classes, task)

    def _notes(self) -> list[str]:
        """Returns the notes that all models of a combination share, each with the combinations that have it."""
        combinations_of: dict[str, list[str]] = {}
        for combination in self.combinations:
            by_model = [self.journal.notes(model) for model in models_of(combination) if self.journal.holds(model)]
            for note in (by_model or [[]])[0]:
                if all(note in notes for notes in by_model):
                    combinations_of.setdefault(note, []).append(fields_text(combination.fields))
        return [
            f"{note} (of {names[0]}{f' and {len(names) - 1} more' if names[1:] else ''})"
            if len(names) < len(self.combinations)
            else note
            for note, names in combinations_of.items()
        ]

    def _models(self, combination: int, fold: str) -> list[Model]:
        return models_of(self.combinations[combination], folds=[fold])
