"""Trains the models of a grid that its journal does not hold yet, several at a time."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from threading import Event, Lock
from typing import Protocol

import torch

from fusion.data.features import CachedFeatures
from fusion.grid.combinations import Model, ModelOutcome
from fusion.grid.engine.calibration import calibrate, shared_cores, worth_a_trial
from fusion.grid.engine.placement import AUTO, FUSED, MOST_STACKED, SHARED, Placement, StackGroups, threads_of
from fusion.grid.engine.sources import Sources
from fusion.grid.engine.train import OUT_OF_MEMORY, train_models
from fusion.grid.journal import Journal
from fusion.training.checkpoint import EpochScores


class GridProgress(Protocol):
    """Told how far a grid is; by one thread at a time."""

    def note(self, note: str) -> None:
        """Something is to be known beside the scores."""
        ...

    def start(self, models: Sequence[Model]) -> None:
        """These models are to be trained."""
        ...

    def epoch(self, model: Model, scores: EpochScores) -> None:
        """A model has done an epoch."""
        ...

    def done(self, outcome: ModelOutcome) -> None:
        """A model is trained, or has failed."""
        ...


class _Stopped(Exception):
    """Ends a training whose grid has ended."""


class Engine:
    """Trains models of a grid on one device.

    Args:
        asked: ``auto``, ``fused`` or ``shared``.
        journal: that keeps what came of them.
        watcher: told how far it is.
        device: where they are trained.
    """

    def __init__(self, asked: str, *, journal: Journal, watcher: GridProgress, device: torch.device) -> None:
        self.asked, self.journal, self.watcher, self.device = asked, journal, watcher, device
        self.layout: Placement | None = None
        self._failed: dict[str, ModelOutcome] = {}
        self._telling, self._stop = Lock(), Event()

    @property
    def name(self) -> str:
        """How the models were trained, for reports."""
        return str(self.layout or "none: all was in the journal")

    def run(self, models: Sequence[Model], sources: Sources) -> Mapping[str, ModelOutcome]:
        """Trains all that the journal does not hold; a model that another grid trains is waited for.

        Returns:
            What failed for want of memory and is not in the journal, by key.

        Raises:
            MmerError: if the journal cannot be written.
        """
        left = list({model.key: model for model in models if not self.journal.holds(model)}.values())
        if not left:
            return {}
        grouping = StackGroups(left, sources, stacking=self.asked != SHARED)
        layout = self._chosen(grouping, left, sources)
        self.watcher.start(left)
        elsewhere = self._train_all(grouping.units(layout), sources, layout.threads)
        for model in elsewhere:
            self._train([model], sources.of(model.combination.plan), patient=True)
        return dict(self._failed)

    def _chosen(self, grouping: StackGroups, left: Sequence[Model], sources: Sources) -> Placement:
        for reason in sorted(grouping.reasons):
            self.watcher.note(f"not stacked: {reason}")
        if self.layout is None:
            threads = Placement(1, threads_of(self.device))
            if self.asked == FUSED:
                self.layout = Placement(MOST_STACKED, 1)
            elif self.asked == AUTO and worth_a_trial(left, self.device):
                trial = calibrate(grouping, sources)
                self.watcher.note(f"engine: {trial}")
                self.layout = trial.layout
            else:
                self.layout = threads
        return self.layout

    def _train_all(self, units: Sequence[Sequence[Model]], sources: Sources, threads: int) -> list[Model]:
        """Trains every unit; gives the models that another grid has in hand."""
        for unit in units:
            sources.of(unit[0].combination.plan)  # read by this thread, before others ask for it
        with shared_cores(threads), ThreadPoolExecutor(threads) as pool:
            running = [pool.submit(self._train, unit, sources.of(unit[0].combination.plan)) for unit in units]
            try:
                wait(running, return_when=FIRST_EXCEPTION)
                return [model for one in running if one.done() for model in one.result()]
            finally:
                self._stop.set()
                pool.shutdown(cancel_futures=True)
                self._stop.clear()

    def _train(self, unit: Sequence[Model], source: CachedFeatures, *, patient: bool = False) -> list[Model]:
        """Trains a unit and writes it down; gives those of it that another grid has in hand."""
        with ExitStack() as claims:
            mine = [model for model in unit if claims.enter_context(self.journal.claimed(model, wait=patient))]
            new = [model for model in mine if not self.journal.holds(model)]
            if new:
                with _own_stream(self.device):
                    outcomes = train_models(new, source, self._epoch)
                for outcome in outcomes:
                    self._keep(outcome)
        return [model for model in unit if model not in mine]

    def _epoch(self, model: Model, scores: EpochScores) -> None:
        if self._stop.is_set():
            raise _Stopped
        with self._telling:
            self.watcher.epoch(model, scores)

    def _keep(self, outcome: ModelOutcome) -> None:
        """Writes an outcome down; what only lacked memory may fit another time, and is not."""
        if outcome.failure.startswith(OUT_OF_MEMORY):
            self._failed[outcome.model.key] = outcome
        else:
            self.journal.write(outcome, self.device)
        with self._telling:
            self.watcher.done(outcome)


@contextmanager
def _own_stream(device: torch.device) -> Iterator[None]:
    """Lets a thread launch kernels beside those of others."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.synchronize(device)
    with torch.cuda.stream(torch.cuda.Stream(device)):  # type: ignore[no-untyped-call]
        yield
