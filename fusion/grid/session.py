"""A grid from its space to its scores: plans combinations, has them trained, opens the tests of those it chose."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from cache.joined import AnyCache
from fusion.experiment import Experiment
from fusion.features import RESIDENT_SHARE
from fusion.grid.engine import GridWatcher
from fusion.grid.journal import Journal
from fusion.grid.models import Combination, Fields, Model, Outcome, Result
from fusion.grid.opening import Findings
from fusion.grid.planning import Skipped, check_any, models_of, plan_combinations, told_by_reason
from fusion.grid.search import RANDOM, TPE, Search, key_of
from fusion.grid.selection import close_unchosen, winners
from fusion.grid.sources import Sources
from fusion.grid.space import Space
from fusion.grid.tpe import TreeSearch
from fusion.plan import Plan
from fusion.scoring import MONITORS
from fusion.statistics import Interval

# Trains all models that a journal does not hold; gives what failed and is not in it, by key.
Trainer = Callable[[Sequence[Model], Sources], Mapping[str, Outcome]]

ROUNDS = 10  # that a search by scores is asked in at least, so that most of it knows of earlier scores
TRIES = 20  # combinations of which one at least should be possible


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
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
    results: Sequence[Result]
    winners: Mapping[str, int]
    interval: Mapping[str, Interval | None]
    notes: Sequence[str]
    seconds: float


@dataclass(kw_only=True, eq=False)
class Session:
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
    experiment_of: Callable[[Fields], Experiment]
    journal: Journal
    train: Trainer
    device: torch.device
    watcher: GridWatcher
    resident_share: float = RESIDENT_SHARE
    sources: Sources = field(init=False)
    combinations: list[Combination] = field(default_factory=list, init=False)
    skipped: list[Skipped] = field(default_factory=list, init=False)
    _failed: dict[str, Outcome] = field(default_factory=dict, init=False)
    _places: dict[object, int | None] = field(default_factory=dict, init=False)

    def run(self, space: Space, search: Search, *, seed: int, all_tests: bool = False) -> Found:
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

    def plan(self, every: Sequence[Fields]) -> None:
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
        for line in told_by_reason(skipped):
            self.watcher.note(line)

    def _train(self, models: Sequence[Model]) -> None:
        self._failed |= self.train(models, self.sources)

    def _follow(self, space: Space, search: Search, seed: int) -> None:
        """Searches each fold by its own dev scores, so that what is chosen for it knows of no other fold's dev."""
        plan = self._any_plan(space, seed)
        monitor = plan.experiment.training.monitor
        for place, fold in enumerate(plan.split.folds):
            tree = TreeSearch(space, seed=seed + place, maximize=MONITORS[monitor])
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

    def _any_plan(self, space: Space, seed: int) -> Plan:
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
        """Gives the mean dev score of a combination on a fold; None if a seed failed."""
        models = models_of(self.combinations[place], folds=[fold])
        if not all(self.journal.trained(model) for model in models):
            return None
        return sum(self.journal.result(model, place).dev[monitor] for model in models) / len(models)

    def _found(self, all_tests: bool, began: float) -> Found:
        plan = self.combinations[0].plan
        folds = [fold.name for fold in plan.split.folds]
        findings = Findings(self.combinations, self.journal, self._failed)
        chosen = winners(findings.results, plan.experiment.training.monitor, folds=folds)
        findings.open([(place, fold) for fold, place in chosen.items()], self.sources)
        if all_tests:
            findings.open([(place, fold) for place in range(len(self.combinations)) for fold in folds], self.sources)
        results = findings.results
        return Found(
            combinations=self.combinations,
            skipped=self.skipped,
            results=results if all_tests else close_unchosen(results, chosen),
            winners=chosen,
            interval=findings.interval(chosen, self.cache),
            notes=findings.notes,
            seconds=time.monotonic() - began,
        )
