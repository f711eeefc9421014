"""Our own ways to train a grid, for `bench_grid`: one model after another, in threads, as stacks."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.support.arm import Peak, give_memory_back
from benchmarks.support.grid_case import EPOCHS, ROLES, Case, Taken, experiment_of
from cache.joined import open_cache
from featurize.runtime.memory import keep_freed_memory
from fusion.experiment.plan import plan_run
from fusion.grid.combinations import Combination, Model, ModelOutcome, models_of, plan_combinations
from fusion.grid.engine.calibration import Calibration, calibrate, candidates
from fusion.grid.engine.local import Engine
from fusion.grid.engine.placement import ALONE, FUSED, SHARED, Placement, StackGroups
from fusion.grid.engine.sources import Sources
from fusion.grid.journal import Journal
from fusion.training.checkpoint import EpochScores
from fusion.training.steps import TOTAL


@dataclass(kw_only=True)
class Losses:
    """Watches a grid and keeps the loss of every epoch, and when it was over."""

    outcomes: list[ModelOutcome] = field(default_factory=list)
    losses: dict[tuple[str, int], float] = field(default_factory=dict)
    ends: dict[tuple[str, int], float] = field(default_factory=dict)

    def note(self, note: str) -> None:
        """Says nothing."""

    def start(self, models: Sequence[Model]) -> None:
        """Says nothing."""

    def epoch(self, model: Model, scores: EpochScores) -> None:
        """Keeps both."""
        place = model.name, scores.epoch
        self.losses[place], self.ends[place] = scores.losses[TOTAL], time.perf_counter()

    def done(self, model: Model, outcome: ModelOutcome) -> None:
        """Keeps what came of it."""
        self.outcomes.append(outcome)

    @property
    def epoch_s(self) -> float:
        """What the last epoch of a model took, of whichever others shared the machine meanwhile."""
        names = {name for name, _ in self.ends}
        return mean(self.ends[name, EPOCHS] - self.ends[name, EPOCHS - 1] for name in names)


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

    def layouts(self) -> list[Placement]:
        """Names the layouts that ``--engine auto`` chooses from."""
        return candidates(self._grouping, self.device)

    def resident(self, layout: Placement) -> Taken:
        """Trains the first so many models as one layout has it, those that it has in hand at a time."""
        return self._train(self.models[: layout.stack * layout.threads], self.sources, layout, self.start_s)

    def reloaded(self) -> Taken:
        """Trains a model for which the cache is opened and read anew."""
        began = time.perf_counter()
        fields = self.case.fields[0]
        plan = plan_run(experiment_of(fields), open_cache(self.path))
        sources = Sources([plan], self.device)
        sources.of(plan)
        start_s = time.perf_counter() - began
        return self._train(models_of(Combination(fields=fields, plan=plan)), sources, ALONE, start_s)

    def trial(self) -> tuple[Calibration, float]:
        """Gives what the trial of ``--engine auto`` found, and how long it took."""
        began = time.perf_counter()
        trial = calibrate(self._grouping, self.sources)
        return trial, time.perf_counter() - began

    @property
    def _grouping(self) -> StackGroups:
        return StackGroups(self.models, self.sources, stacking=True)

    def _train(self, models: Sequence[Model], sources: Sources, layout: Placement, start_s: float) -> Taken:
        watcher = Losses()
        give_memory_back()
        with TemporaryDirectory() as folder, Peak(self.device) as peak:
            asked = FUSED if layout.stack > 1 else SHARED
            engine = Engine(asked, journal=Journal(Path(folder)), progress=watcher, device=self.device)
            engine.placement = layout
            began = time.perf_counter()
            engine.run(models, sources)
            seconds = time.perf_counter() - began
        failures = [one.failure for one in watcher.outcomes if one.failure]
        if failures or len(watcher.outcomes) != len(models):
            raise RuntimeError(f"{layout}: {len(failures)} of {len(models)} models failed: {failures[:1]}")
        epoch_s = watcher.epoch_s / min(layout.stack * layout.threads, len(models))
        return Taken(
            models=len(models),
            start_s=start_s + max(0.0, seconds / len(models) - EPOCHS * epoch_s),
            epoch_s=epoch_s,
            rows=int(self.source.lengths(models[0].fold.train, ROLES).sum()),
            losses=watcher.losses,
            peak_mb=peak.size_mb,
        )


def serve_ours(folder: Path, case: Case, answers: Any) -> None:
    """Does what it is asked, by the name of a method and its arguments, until it is asked to end."""
    keep_freed_memory()  # as `mmer-grid` does
    ours = Ours(folder, case)
    while (asked := answers.recv()) != "end":
        name, *given = asked
        answers.send(getattr(ours, name)(*given))
