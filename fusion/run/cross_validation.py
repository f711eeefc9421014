"""Cross-validation: trains and scores a head on every fold and seed, and writes the run folder.

A model reads the training and development subsets of its fold while it is trained. Only `score_test_subset` reads the
test subset, once per model, after training.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch

from fusion.arrays import Indices
from fusion.data.features import RESIDENT_SHARE, BatchSource, CachedFeatures, TrainingSubset
from fusion.data.memory import memory_needed
from fusion.evaluation.calibration import fit_temperature
from fusion.experiment.config_file import write_config
from fusion.experiment.featurize_commands import corpus_of
from fusion.experiment.plan import RunPlan, build_model
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
from fusion.run.folder import CURVES, PREDICTIONS, SCORES, STATE, WEIGHTS, ModelFolder, RunFolder, encoder_weights
from fusion.run.notes import arrange, limits
from fusion.training.checkpoint import EpochScores
from fusion.training.evaluate import predict_logits, predict_probabilities
from fusion.training.interrupt import StopRequested, never_stop
from fusion.training.loop import SAVE_EVERY_S, train_fold
from fusion.training.model import TrainedModel


class TrainingProgress(Protocol):
    """Progress callbacks of a run."""

    def note(self, note: str) -> None:
        """Receives a note that must be printed with the scores."""
        ...

    def begin(self, folds: Sequence[str], seeds: Sequence[int], models: int) -> None:
        """Receives folds and seeds of the run, and the number of models that are not finished."""
        ...

    def start(self, fold: str, seed: int, epochs: int) -> None:
        """Receives the start of the training of a model and its maximum number of epochs."""
        ...

    def epoch(self, scores: EpochScores) -> None:
        """Receives the scores of an epoch."""
        ...

    def end(self, best: EpochScores) -> None:
        """Receives the best epoch of a model that is trained and scored."""
        ...


class SilentProgress:
    """Progress callbacks that do nothing."""

    def note(self, note: str) -> None:
        """Does nothing."""

    def begin(self, folds: Sequence[str], seeds: Sequence[int], models: int) -> None:
        """Does nothing."""

    def start(self, fold: str, seed: int, epochs: int) -> None:
        """Does nothing."""

    def epoch(self, scores: EpochScores) -> None:
        """Does nothing."""

    def end(self, best: EpochScores) -> None:
        """Does nothing."""


# Trains and scores unfinished models of a run, from the features of all utterances.
TrainModels: TypeAlias = "Callable[[Sequence[RunModel], CachedFeatures, TrainingProgress, StopRequested], None]"


def train_in_turn(
    unfinished: Sequence["RunModel"], source: CachedFeatures, progress: TrainingProgress, stopping: StopRequested
) -> None:
    """Trains and scores models one after another.

    Args:
        unfinished: models of one run.
        source: features of all utterances.
        progress: receives notes, models and epochs.
        stopping: called before every model.

    Raises:
        KeyboardInterrupt: if `stopping` returned True.
    """
    for model in unfinished:
        if stopping():
            raise KeyboardInterrupt
        progress.start(model.fold.name, model.seed, model.plan.experiment.training.epochs)
        progress.end(model.run(source, progress))


def cross_validate(
    plan: RunPlan,
    folder: RunFolder,
    *,
    device: torch.device,
    progress: TrainingProgress,
    save_every_s: float = SAVE_EVERY_S,
    resident_share: float = RESIDENT_SHARE,
    stopping: StopRequested = never_stop,
    train: TrainModels = train_in_turn,
) -> None:
    """Trains and scores all models of a run that are not finished.

    A model whose training was interrupted is resumed.

    Args:
        plan: plan of the run.
        folder: run folder for all results; the caller holds its lock.
        device: device that trains the head.
        progress: receives notes, models and epochs.
        save_every_s: least time between two checkpoints of a model, in seconds.
        resident_share: share of the device's memory for features that are held there, in [0, 1].
        stopping: called after every batch; when it returns True, the checkpoint is written and the training stops.
        train: trains and scores the unfinished models.

    Raises:
        KeyboardInterrupt: if `stopping` returned True.
        MmerError: if the folder holds another run, a loss is not finite, or memory runs out.
    """
    unfinished = begin_run(plan, folder, progress, save_every_s=save_every_s, stopping=stopping)
    if not unfinished:
        return
    with memory_needed(device, f"lower --resident-share ({resident_share:g})"):
        source = load_source(plan, device, resident_share)
    progress.note(source.describe())
    train(unfinished, source, progress, stopping)


def begin_run(
    plan: RunPlan,
    folder: RunFolder,
    progress: TrainingProgress,
    *,
    save_every_s: float = SAVE_EVERY_S,
    stopping: StopRequested = never_stop,
) -> list["RunModel"]:
    """Writes what a run folder holds before any training; returns the models that are not finished.

    Args:
        plan: plan of the run.
        folder: run folder for all results; the caller holds its lock.
        progress: receives notes; before a training also those that limit what its scores will mean.
        save_every_s: least time between two checkpoints of a model, in seconds.
        stopping: called after every batch; when it returns True, the checkpoint is written and the training stops.

    Raises:
        MmerError: if the folder holds another run, or cannot be written.
    """
    folder.begin(plan.identity, provenance(plan), plan.experiment.defaults)
    if plan.experiment.options and not folder.read_only:
        write_config(folder.path, plan.experiment.options, command="mmer-train")
    models = [
        RunModel(
            plan=plan,
            fold=fold,
            seed=seed,
            folder=folder.model(fold.name, seed),
            save_every_s=save_every_s,
            stopping=stopping,
        )
        for seed in plan.experiment.seeds
        for fold in plan.split.folds
    ]
    unfinished = [model for model in models if not model.finished(progress)]
    if unfinished:
        folder.check_writable()
    write_splits(plan, folder)
    if unfinished:
        for note in filter(limits, arrange(plan.notes)):  # a leak is worth knowing before hours of training
            progress.note(note)
        progress.begin([fold.name for fold in plan.split.folds], plan.experiment.seeds, len(unfinished))
    else:
        progress.note("all models are trained and scored; nothing is trained again")
    return unfinished


def build_and_prepare_head(
    plan: RunPlan, source: CachedFeatures, train: Indices, *, seed: int
) -> tuple[Head, list[str]]:
    """Builds the head of a run and prepares it on the training subset.

    Args:
        plan: plan of the run.
        source: features of all utterances.
        train: indices of the training subset of a fold, int64 ``(n,)``.
        seed: seed of the model.

    Returns:
        The head, and notes to print.

    Raises:
        MmerError: if the configuration does not match the streams.
    """
    head = build_model(plan, seed=seed)
    subset = TrainingSubset(source, train)
    rows = head.rows_before_training(subset, source.device)
    learn_scales(head, rows, subset.scales if rows is subset else None)
    return head, head.prepare(rows)


def score_test_subset(
    folder: ModelFolder,
    plan: RunPlan,
    fold: Fold,
    *,
    head: Head,
    trained: TrainedModel,
    source: BatchSource,
    seed: int,
    notes: Sequence[str],
    train: Indices | None = None,
    temperature: float | None = None,
) -> None:
    """Scores a model on the test subset of its fold.

    Predictions are written first, scores last.

    Args:
        folder: folder of the model.
        plan: plan of the run.
        fold: fold with the test subset.
        head: head with the weights of the epoch that was chosen on the development subset.
        trained: result of the training.
        source: features of all utterances.
        seed: seed of the model.
        notes: notes of the head.
        train: utterances that the head was trained on, int64 ``(n,)``; the training subset of the fold by default.
        temperature: temperature of its probabilities; fitted on the development subset by default.

    Raises:
        MmerError: if a probability is not finite, or a file cannot be written.
    """
    task = plan.task_of(fold.train if train is None else train, fold.name)
    probabilities = predict_probabilities(head, source, fold.test, task=task)
    names, ids = plan.inputs.classes, [plan.cache.ids[index] for index in fold.test]
    write_predictions(folder, ids, plan.split.truth(fold.test), probabilities, names, task=task)
    scores = model_scores(plan, fold, head, trained, probabilities, source=source)
    learned: dict[str, Any] = {} if task.scale is None else {"scale": task.scale.plain}
    if temperature is not None:
        learned["temperature"] = temperature
    elif task.has_classes:
        dev_logits = predict_logits(head, source, fold.dev).numpy()
        learned["temperature"] = fit_temperature(dev_logits, plan.split.classes[fold.dev])
    scores = {"fold": fold.name, "seed": seed, **scores, **learned, "notes": list(notes)}
    # a grid keeps the encoders of a model among its weights
    encoders = [name for name in map(encoder_weights, plan.starts) if (folder.path / name).exists()]
    folder.write(SCORES, with_digests(folder, scores, (WEIGHTS, CURVES, PREDICTIONS, *encoders)))


def memory_remedy(plan: RunPlan) -> str:
    """Returns the options that lower the memory of a training most, for an error."""
    training = plan.experiment.training
    if not plan.starts:
        return f"lower --batch-size ({training.batch_size})"
    return (
        f"pass --set checkpointing=true, raise --set accumulate ({training.accumulate}), or tune fewer layers, as in "
        f"--tune {next(iter(plan.starts))}=3"
    )


def keep_encoders(
    folder: ModelFolder, plan: RunPlan, name: str, seen: Indices, *, model: Head, trained: TrainedModel
) -> TrainedModel:
    """Writes the tuned encoders of a model as checkpoints of their own; without any, nothing is written.

    Args:
        folder: folder of the model.
        plan: plan of the run.
        name: name of the fold of the model, or of the final model.
        seen: indices of the utterances that training and selection have seen, int64 ``(n,)``.
        model: head with its encoders.
        trained: result of the training.

    Returns:
        The trained model, whose weights are those of the head alone.
    """
    if not plan.starts:
        return trained
    from fusion.end_to_end.learning.save import head_weights, save_encoders, training_data

    utterances = [plan.cache.utterances[index] for index in seen.tolist()]
    folder.make()
    save_encoders(folder.path, model, training_data(corpus_of(plan.cache), utterances, name))  # type: ignore[arg-type]
    return replace(trained, weights=head_weights(trained.weights))


def load_source(plan: RunPlan, device: torch.device, resident_share: float) -> CachedFeatures:
    """Loads the features of all utterances of a run."""
    return plan.features(plan.every_stream, device=device, chosen=utterances_of(plan), resident_share=resident_share)


def utterances_of(plan: RunPlan) -> Indices:
    """Returns the indices of all utterances of the protocol, int64 ``(n,)``."""
    chosen: Indices = np.unique(
        np.concatenate([subset for fold in plan.split.folds for subset in fold.subsets.values()])
    )
    return chosen


@dataclass(frozen=True, kw_only=True)
class RunModel:
    """One model of a run: its fold, its seed, its folder.

    Attributes:
        plan: plan of the run.
        fold: fold of the model.
        seed: seed of the model.
        folder: folder of the model.
        save_every_s: least time between two checkpoints, in seconds.
        stopping: called after every batch; when it returns True, the checkpoint is written and the training stops.
    """

    plan: RunPlan
    fold: Fold
    seed: int
    folder: ModelFolder
    save_every_s: float
    stopping: StopRequested

    def finished(self, progress: TrainingProgress) -> bool:
        """Checks whether the model is trained and scored and its files can be read."""
        if not self.folder.scored:
            return False
        if damage := find_damage(self.folder, self.plan.inputs.classes, self.plan.task):
            progress.note(damage)
            return False
        for damage in find_minor_damage(self.folder):
            progress.note(damage)
        self.folder.delete(STATE)  # left by a run that was killed between its last two steps
        return True

    def run(self, source: CachedFeatures, progress: TrainingProgress) -> EpochScores:
        """Trains the model and scores it on the test subset.

        The epoch is chosen on the development subset.

        Returns:
            The chosen epoch.
        """
        plan, fold = self.plan, self.fold
        source = plan.with_targets(plan.of_fold(source, fold.name), fold.train, fold.name)
        with memory_needed(source.device, memory_remedy(plan)):
            head, notes = build_and_prepare_head(plan, source, fold.train, seed=self.seed)
        trained = self.train(head, source, progress)
        self.folder.delete(SCORES)  # of a damaged model: they belong to other weights
        seen = np.concatenate([fold.train, fold.dev])
        trained = keep_encoders(self.folder, plan, fold.name, seen, model=head, trained=trained)
        write_trained(self.folder, trained, source.device)
        with memory_needed(source.device, "a single test utterance needs more memory than there is"):
            score_test_subset(
                self.folder, plan, fold, head=head, trained=trained, source=source, seed=self.seed, notes=notes
            )
        self.folder.delete(STATE)
        return trained.curves[trained.best_epoch - 1]

    def train(self, head: Head, source: BatchSource, progress: TrainingProgress) -> TrainedModel:
        """Trains a built head with early stopping on dev, from the checkpoint if there is one; scores nothing."""
        self.folder.make()
        training = self.plan.experiment.training
        with memory_needed(source.device, memory_remedy(self.plan)):
            return train_fold(
                head,
                source,
                self.fold.train,
                self.fold.dev,
                replace(training, seed=self.seed),
                task=self.plan.task_of(self.fold.train, self.fold.name),
                checkpoint=self.folder.path / STATE,
                save_every_s=self.save_every_s,
                on_epoch=progress.epoch,
                stopping=self.stopping,
            )
