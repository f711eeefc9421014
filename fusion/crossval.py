"""Trains a head on every fold and seed, opens each test part once, and leaves a run folder behind."""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch

from cache.errors import MmerError
from fusion.checkpoint import EpochScores
from fusion.features import FeatureSource
from fusion.final import open_test
from fusion.heads.catalog import AnyHead
from fusion.members import Fold
from fusion.plan import Plan
from fusion.ready import ready_head
from fusion.records import recorded, write_splits, write_trained
from fusion.run import SCORES, STATE, RunFolder
from fusion.trainer import SAVE_EVERY_S, TrainedFold, train_fold


class Watcher(Protocol):
    """Told how far a run is."""

    def note(self, note: str) -> None:
        """Something is to be printed beside the scores."""
        ...

    def start(self, fold: str, seed: int, epochs: int) -> None:
        """A model is being trained, for so many epochs at most."""
        ...

    def epoch(self, scores: EpochScores) -> None:
        """An epoch is done."""
        ...

    def end(self) -> None:
        """The model is trained."""
        ...


def cross_validate(
    plan: Plan, folder: RunFolder, *, device: torch.device, watcher: Watcher, save_every_s: float = SAVE_EVERY_S
) -> None:
    """Trains what is not trained yet; a run that was killed goes on where it was.

    Args:
        plan: of the run.
        folder: where it leaves everything; the caller holds its lock.
        device: where the head is trained.
        watcher: told how far it is.
        save_every_s: how often the state of a model is written, at most.

    Raises:
        MmerError: if the folder holds another run, a loss is not finite, or memory runs out.
    """
    for note in plan.notes:
        watcher.note(note)
    folder.begin(plan.described, recorded(plan))
    models = [
        _Model(plan=plan, fold=fold, seed=seed, part=folder.part(fold.name, seed), save_every_s=save_every_s)
        for seed in plan.experiment.seeds
        for fold in plan.split.folds
    ]
    for model in models:
        if model.finished:
            model.part.delete(STATE)  # of a run that was killed between its last two steps
    left = [model for model in models if not model.finished]
    if left:
        write_splits(plan, folder)
        source = _source(plan, device)
    for model in left:
        watcher.start(model.fold.name, model.seed, plan.experiment.training.epochs)
        model.run(source, watcher)
        watcher.end()


def _source(plan: Plan, device: torch.device) -> FeatureSource:
    chosen = np.unique(np.concatenate([part for fold in plan.split.folds for part in fold.parts.values()]))
    return FeatureSource(plan.cache, plan.chosen.streams, plan.split.classes, device=device, chosen=chosen)


@dataclass(frozen=True, kw_only=True)
class _Model:
    """One model of a run: its fold, its seed, its folder."""

    plan: Plan
    fold: Fold
    seed: int
    part: RunFolder
    save_every_s: float

    @property
    def finished(self) -> bool:
        """Whether it is trained and scored."""
        return (self.part.path / SCORES).exists()

    def run(self, source: FeatureSource, watcher: Watcher) -> None:
        """Trains it, chooses its epoch on dev, and scores it on test; the scores are written last."""
        plan, fold = self.plan, self.fold
        head, notes = ready_head(plan, source, fold.train, seed=self.seed)
        for note in notes:
            watcher.note(f"fold {fold.name}: {note}")
        trained = self._train(head, source, watcher)
        write_trained(self.part, trained, source.device)
        open_test(self.part, plan, fold, head=head, trained=trained, source=source, seed=self.seed, notes=notes)
        self.part.delete(STATE)

    def _train(self, head: AnyHead, source: FeatureSource, watcher: Watcher) -> TrainedFold:
        self.part.make()
        try:
            return train_fold(
                head,
                source,
                self.fold.train,
                self.fold.dev,
                replace(self.plan.experiment.training, seed=self.seed),
                checkpoint=self.part.path / STATE,
                save_every_s=self.save_every_s,
                on_epoch=watcher.epoch,
            )
        except torch.OutOfMemoryError as error:
            asked = self.plan.experiment.training.batch_size
            raise MmerError(f"{source.device} is out of memory; lower --batch-size ({asked})") from error
