"""Engine of one device: trains the models that the journal lacks, several at a time."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from threading import Event, Lock
from typing import Protocol

import torch

from fusion.data.features import CachedFeatures
from fusion.grid.combinations import Model, ModelOutcome
from fusion.grid.engine.calibration import calibrate, shared_cores, worth_calibrating
from fusion.grid.engine.placement import AUTO, FUSED, MAX_STACK, SHARED, Placement, StackGroups, threads_of
from fusion.grid.engine.sources import Sources
from fusion.grid.engine.train import OUT_OF_MEMORY, train_models
from fusion.grid.journal import Journal
from fusion.training.checkpoint import EpochScores


class GridProgress(Protocol):
    """Receiver of the progress of a grid; one thread at a time calls it."""

    def note(self, note: str) -> None:
        """Receives a fact that users should know in addition to the scores."""
        ...

    def start(self, models: Sequence[Model]) -> None:
        """Receives the models that will be trained."""
        ...

    def epoch(self, model: Model, scores: EpochScores) -> None:
        """Receives a finished epoch of a model."""
        ...

    def done(self, model: Model, outcome: ModelOutcome) -> None:
        """Receives the outcome of a model that is trained or has failed."""
        ...


class Engine:
    """Engine that trains models of a grid on one device.

    Attributes:
        placement: how models share the device; None until the first model is trained.

    Args:
        requested: ``auto``, ``fused`` or ``shared``.
        journal: keeps the models.
        progress: notified of notes, models and epochs.
        device: where models are trained.
    """

    def __init__(self, requested: str, *, journal: Journal, progress: GridProgress, device: torch.device) -> None:
        self.requested, self.journal, self.progress, self.device = requested, journal, progress, device
        self.placement: Placement | None = None
        self._failed: dict[str, ModelOutcome] = {}
        self._progress_lock, self._stop = Lock(), Event()

    @property
    def name(self) -> str:
        """Placement of the models as text, for reports."""
        return str(self.placement or "none: all was in the journal")

    def run(self, models: Sequence[Model], sources: Sources) -> Mapping[str, ModelOutcome]:
        """Trains the models that the journal lacks; waits for models that another grid is training.

        Returns:
            Outcomes of the models that exceed the memory, by key; they are not in the journal.

        Raises:
            MmerError: if the journal cannot be written.
        """
        missing = list({model.key: model for model in models if not self.journal.holds(model)}.values())
        if not missing:
            return {}
        groups = StackGroups(missing, sources, stacking=self.requested != SHARED)
        placement = self._place(groups, missing, sources)
        self.progress.start(missing)
        claimed_elsewhere = self._train_all(groups.units(placement), sources, placement.threads)
        for model in claimed_elsewhere:
            self._train([model], sources.of(model.combination.plan), wait=True)
        return dict(self._failed)

    def _place(self, groups: StackGroups, missing: Sequence[Model], sources: Sources) -> Placement:
        """Chooses the placement, once for all calls of `run`."""
        for reason in sorted(groups.reasons):
            self.progress.note(f"not stacked: {reason}")
        if any(model.combination.plan.starts for model in missing):
            return Placement(1, 1)  # encoders draw from the generators of the whole process
        if self.placement is None:
            if self.requested == FUSED:
                self.placement = Placement(MAX_STACK, 1)
            elif self.requested == AUTO and worth_calibrating(missing, self.device):
                calibration = calibrate(groups, sources)
                self.progress.note(f"engine: {calibration}")
                self.placement = calibration.placement
            else:
                self.placement = Placement(1, threads_of(self.device))
        return self.placement

    def _train_all(self, units: Sequence[Sequence[Model]], sources: Sources, threads: int) -> list[Model]:
        """Trains all units; returns the models that another grid has claimed."""
        for unit in units:
            sources.of(unit[0].combination.plan)  # loaded by this thread before the others need it
        with shared_cores(threads), ThreadPoolExecutor(threads) as pool:
            running = [pool.submit(self._train, unit, sources.of(unit[0].combination.plan)) for unit in units]
            try:
                wait(running, return_when=FIRST_EXCEPTION)
                return [model for future in running if future.done() for model in future.result()]
            finally:
                self._stop.set()
                pool.shutdown(cancel_futures=True)
                self._stop.clear()

    def _train(self, unit: Sequence[Model], source: CachedFeatures, *, wait: bool = False) -> list[Model]:
        """Trains and records the models of a unit; returns those that another grid has claimed."""
        with ExitStack() as claims:
            claimed = [model for model in unit if claims.enter_context(self.journal.claim(model, wait=wait))]
            new = [model for model in claimed if not self.journal.holds(model)]
            if new:
                with _cuda_stream(self.device):
                    outcomes = train_models(new, source, self._epoch, self._stop.is_set)
                for model, outcome in zip(new, outcomes, strict=True):
                    self._record(model, outcome)
        return [model for model in unit if model not in claimed]

    def _epoch(self, model: Model, scores: EpochScores) -> None:
        if self._stop.is_set():
            raise _Stopped
        with self._progress_lock:
            self.progress.epoch(model, scores)

    def _record(self, model: Model, outcome: ModelOutcome) -> None:
        """Writes an outcome to the journal; a model that exceeds the memory is left out, since it may fit next time."""
        if outcome.failure.startswith(OUT_OF_MEMORY):
            self._failed[model.key] = outcome
        else:
            self.journal.write(model, outcome, self.device)
        with self._progress_lock:
            self.progress.done(model, outcome)


class _Stopped(Exception):
    """Signal that ends a training whose grid has ended."""


@contextmanager
def _cuda_stream(device: torch.device) -> Iterator[None]:
    """Launches the kernels of a thread in parallel to those of other threads."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.synchronize(device)
    with torch.cuda.stream(torch.cuda.Stream(device)):  # type: ignore[no-untyped-call]
        yield
