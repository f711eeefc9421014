"""Our own ways to train a grid, for `bench_grid`: one model after another, in threads, as stacks."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from benchmarks.arm import Peak, give_memory_back
from benchmarks.grid_case import ROLES, Case, Taken, experiment_of, mean_of
from benchmarks.iemocap import BATCH
from cache.joined import open_cache
from featurize.memory import keep_freed_memory
from fusion.checkpoint import EpochScores
from fusion.grid.engine import Engine
from fusion.grid.journal import Journal
from fusion.grid.layout import ALONE, FUSED, SHARED, Grouping, Layout
from fusion.grid.models import Combination, Fields, Model, Outcome
from fusion.grid.planning import models_of, plan_combinations
from fusion.grid.sources import Sources
from fusion.grid.trial import Trial, candidates, try_layouts
from fusion.plan import plan_run


@dataclass(kw_only=True)
class Losses:
    """Watches a grid and keeps the losses of the last epoch."""

    outcomes: list[Outcome] = field(default_factory=list)
    losses: dict[str, float] = field(default_factory=dict)

    def note(self, note: str) -> None:
        """Says nothing."""

    def start(self, models: Sequence[Model]) -> None:
        """Says nothing."""

    def epoch(self, model: Model, scores: EpochScores) -> None:
        """Keeps the loss."""
        self.losses[model.name] = scores.losses["total"]

    def done(self, outcome: Outcome) -> None:
        """Keeps what came of it."""
        self.outcomes.append(outcome)


class Ours:
    """Our own engines, over features that are held once, or read anew for every model.

    Args:
        folder: where the cache is.
        case: what to train.
    """

    def __init__(self, folder: Path, case: Case) -> None:
        began = time.perf_counter()
        self.path, self.case, self.device = folder / "cache.h5", case, torch.device(case.device)
        cache = open_cache(self.path)
        self.combinations, skipped = plan_combinations(case.fields, experiment_of, cache)
        if skipped:
            raise RuntimeError(f"{len(skipped)} combinations cannot be trained; the first: {skipped[0]}")
        self.models = [model for one in self.combinations for model in models_of(one)]
        self.sources = Sources([one.plan for one in self.combinations], self.device)
        self.source = self.sources.of(self.combinations[0].plan)
        self.start_s = (time.perf_counter() - began) / len(self.models)

    def layouts(self) -> list[Layout]:
        """Names the layouts that ``--engine auto`` chooses from."""
        return candidates(self._grouping, self.device)

    def resident(self, layout: Layout, longest: bool) -> Taken:
        """Trains the first so many models as one layout has it."""
        count = self.case.alone if layout == ALONE else min(layout.stack * layout.threads, len(self.models))
        models = [self._shortened(model) if longest else model for model in self.models[:count]]
        if longest:
            give_memory_back()
        with Peak(self.device) as peak:
            taken = self._train(models, self.sources, layout, self.start_s)
        return replace(taken, peak_mb=peak.size_mb)

    def reloaded(self, longest: bool) -> Taken:
        """Trains one model after another, each of which opens and reads the cache for itself."""
        with Peak(self.device) as peak:
            every = [self._reloaded(fields, longest) for fields in self.case.fields[: self.case.alone]]
        return replace(mean_of(every), peak_mb=peak.size_mb)

    def trial(self) -> tuple[Trial, float]:
        """Gives what the trial of ``--engine auto`` found, and how long it took."""
        began = time.perf_counter()
        trial = try_layouts(self._grouping, self.sources)
        return trial, time.perf_counter() - began

    def _reloaded(self, fields: Fields, longest: bool) -> Taken:
        began = time.perf_counter()
        plan = plan_run(experiment_of(fields), open_cache(self.path))
        sources = Sources([plan], self.device)
        sources.of(plan)
        start_s = time.perf_counter() - began
        (model,) = models_of(Combination(fields=fields, plan=plan))
        return self._train([self._shortened(model) if longest else model], sources, ALONE, start_s)

    @property
    def _grouping(self) -> Grouping:
        return Grouping(self.models, self.sources, stacking=True)

    def _train(self, models: Sequence[Model], sources: Sources, layout: Layout, start_s: float) -> Taken:
        watcher = Losses()
        with TemporaryDirectory() as folder:
            asked = FUSED if layout.stack > 1 else SHARED
            engine = Engine(asked, journal=Journal(Path(folder)), watcher=watcher, device=self.device)
            engine.layout = layout
            began = time.perf_counter()
            engine.run(models, sources)
            seconds = time.perf_counter() - began
        failures = [one.failure for one in watcher.outcomes if one.failure]
        if failures or len(watcher.outcomes) != len(models):
            raise RuntimeError(f"{layout}: {len(failures)} of {len(models)} models failed: {failures[:1]}")
        return Taken(
            models=len(models),
            start_s=start_s,
            train_s=seconds / len(models),
            rows=self.case.epochs * int(self.source.costs(models[0].fold.train, ROLES).sum()),
            losses=watcher.losses,
        )

    def _shortened(self, model: Model) -> Model:
        train = model.fold.train
        costs = self.source.costs(train)
        return replace(model, fold=replace(model.fold, train=np.sort(train[np.argsort(costs)[-BATCH:]])))


def serve_ours(folder: Path, case: Case, answers: Any) -> None:
    """Does what it is asked, by the name of a method and its arguments, until it is asked to end."""
    keep_freed_memory()  # as `mmer-grid` does
    ours = Ours(folder, case)
    while (asked := answers.recv()) != "end":
        name, *given = asked
        answers.send(getattr(ours, name)(*given))
