"""Trains a head on every fold and seed, opens each test part once, and leaves a run folder behind.

A head that can be trained: built, and told of the training part of its fold.

The final scoring of a model: here its test part is opened, once, and nowhere else.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch

from fusion.arrays import Indices
from fusion.data.features import RESIDENT_SHARE, BatchSource, CachedFeatures, TrainingSubset
from fusion.data.memory import memory_needed
from fusion.experiment.plan import RunPlan, build
from fusion.head import Head
from fusion.nn.layers import learn_scales
from fusion.protocols.folds import Fold
from fusion.run.artifacts import (
    find_damage,
    find_minor_damage,
    model_scores,
    provenance,
    with_digests,
    write_predictions,
    write_splits,
    write_trained,
)
from fusion.run.folder import CURVES, PREDICTIONS, SCORES, STATE, WEIGHTS, ModelFolder, RunFolder
from fusion.training.checkpoint import EpochScores
from fusion.training.evaluate import predict_probabilities
from fusion.training.interrupt import StopRequested, never_stop
from fusion.training.loop import SAVE_EVERY_S, TrainedModel, train_fold


def build_and_prepare_head(
    plan: RunPlan, source: CachedFeatures, train: Indices, *, seed: int
) -> tuple[Head, list[str]]:
    """Builds the head of a run and lets it learn what it must know before step 0.

    Args:
        plan: of the run.
        source: of the features.
        train: the training part of a fold.
        seed: of the model.

    Returns:
        The head, and notes to print.

    Raises:
        MmerError: if the configuration does not suit the streams.
    """
    head = build(plan, seed=seed)
    rows = TrainingSubset(source, train)
    learn_scales(head, rows)
    return head, head.prepare(rows)


def score_test_subset(
    part: ModelFolder,
    plan: RunPlan,
    fold: Fold,
    *,
    head: Head,
    trained: TrainedModel,
    source: BatchSource,
    seed: int,
    notes: Sequence[str],
) -> None:
    """Scores a model on the test part of its fold and writes predictions, and last the scores.

    Args:
        part: folder of the model.
        plan: of its run.
        fold: whose test part is opened.
        head: with the weights of the epoch that dev chose.
        trained: what training gave.
        source: of the features.
        seed: of the model.
        notes: of its head.

    Raises:
        MmerError: if a probability is not finite, or something cannot be written.
    """
    probabilities = predict_probabilities(head, source, fold.test, task=plan.task)
    names, ids = plan.inputs.classes, [plan.cache.ids[index] for index in fold.test]
    truth = [names[index] for index in plan.split.classes[fold.test]]
    write_predictions(part, ids, truth, probabilities, names, task=plan.task)
    scores = model_scores(plan, fold, head, trained, probabilities, source=source)
    scores = {"fold": fold.name, "seed": seed, **scores, "notes": list(notes)}
    part.write(SCORES, with_digests(part, scores, (WEIGHTS, CURVES, PREDICTIONS)))


class TrainingProgress(Protocol):
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

    def end(self, best: EpochScores) -> None:
        """The model is trained and scored; this was its best epoch."""
        ...


def cross_validate(
    plan: RunPlan,
    folder: RunFolder,
    *,
    device: torch.device,
    watcher: TrainingProgress,
    save_every_s: float = SAVE_EVERY_S,
    resident_share: float = RESIDENT_SHARE,
    stopping: StopRequested = never_stop,
) -> None:
    """Trains what is not trained yet; a run that was killed goes on where it was.

    Args:
        plan: of the run.
        folder: where it leaves everything; the caller holds its lock.
        device: where the head is trained.
        watcher: told how far it is.
        save_every_s: how often the state of a model is written, at most.
        resident_share: share of the device's memory that features may take to be held there.
        stopping: asked after every batch whether to write the state and stop.

    Raises:
        KeyboardInterrupt: if it was told to stop.
        MmerError: if the folder holds another run, a loss is not finite, or memory runs out.
    """
    for note in plan.notes:
        watcher.note(note)
    folder.begin(plan.identity, provenance(plan), plan.experiment.defaults)
    models = [
        _Model(
            plan=plan,
            fold=fold,
            seed=seed,
            part=folder.model(fold.name, seed),
            save_every_s=save_every_s,
            stopping=stopping,
        )
        for seed in plan.experiment.seeds
        for fold in plan.split.folds
    ]
    left = [model for model in models if not model.finished(watcher)]
    write_splits(plan, folder)
    if not left:
        watcher.note("all models are trained and scored; nothing is trained again")
        return
    with memory_needed(device, f"lower --resident-share ({resident_share:g})"):
        source = _source(plan, device, resident_share)
    watcher.note(source.describe())
    for model in left:
        if stopping():
            raise KeyboardInterrupt
        watcher.start(model.fold.name, model.seed, plan.experiment.training.epochs)
        watcher.end(model.run(source, watcher))


def _source(plan: RunPlan, device: torch.device, resident_share: float) -> CachedFeatures:
    chosen = np.unique(np.concatenate([part for fold in plan.split.folds for part in fold.subsets.values()]))
    return CachedFeatures(
        plan.cache,
        plan.selection.streams,
        plan.split.classes,
        device=device,
        chosen=chosen,
        resident_share=resident_share,
    )


@dataclass(frozen=True, kw_only=True)
class _Model:
    """One model of a run: its fold, its seed, its folder."""

    plan: RunPlan
    fold: Fold
    seed: int
    part: ModelFolder
    save_every_s: float
    stopping: StopRequested

    def finished(self, watcher: TrainingProgress) -> bool:
        """Tells whether it is trained and scored, and all of that can be read."""
        if not self.part.scored:
            return False
        if told := find_damage(self.part, self.plan.inputs.classes, self.plan.task):
            watcher.note(told)
            return False
        for told in find_minor_damage(self.part):
            watcher.note(told)
        self.part.delete(STATE)  # of a run that was killed between its last two steps
        return True

    def run(self, source: CachedFeatures, watcher: TrainingProgress) -> EpochScores:
        """Trains it, chooses its epoch on dev, and scores it on test; the scores are written last.

        Returns:
            The epoch that was chosen.
        """
        plan, fold = self.plan, self.fold
        head, notes = build_and_prepare_head(plan, source, fold.train, seed=self.seed)
        for note in notes:
            watcher.note(f"fold {fold.name}: {note}")
        trained = self._train(head, source, watcher)
        self.part.delete(SCORES)  # of a model that was damaged: they are of other weights
        write_trained(self.part, trained, source.device)
        with memory_needed(source.device, "a test utterance alone takes more than there is"):
            score_test_subset(
                self.part, plan, fold, head=head, trained=trained, source=source, seed=self.seed, notes=notes
            )
        self.part.delete(STATE)
        return trained.curves[trained.best_epoch - 1]

    def _train(self, head: Head, source: BatchSource, watcher: TrainingProgress) -> TrainedModel:
        self.part.make()
        training = self.plan.experiment.training
        with memory_needed(source.device, f"lower --batch-size ({training.batch_size})"):
            return train_fold(
                head,
                source,
                self.fold.train,
                self.fold.dev,
                replace(training, seed=self.seed),
                task=self.plan.task,
                checkpoint=self.part.path / STATE,
                save_every_s=self.save_every_s,
                on_epoch=watcher.epoch,
                stopping=self.stopping,
            )
