"""Trains one head on one fold: warm-up, clipping, early stopping on dev, and a state that survives a kill.

Nothing here is ever given the test subset of a fold; `fusion.training.evaluate.predict_probabilities` is for that.
Everything random follows from the two seeds and the step, and nothing from global generators.

The course of a training, whichever engine runs it: its batches, its rates, its best epoch and its end.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cache.errors import MmerError
from fusion.arrays import Indices
from fusion.data.batches import training_batches
from fusion.data.features import BatchSource
from fusion.data.memory import peak_memory, watch_peak
from fusion.evaluation.task import CLASSIFICATION, Task
from fusion.head import Batch, Head
from fusion.nn.dropout import seed_dropout, set_step
from fusion.training import checkpoint as kept
from fusion.training.checkpoint import Checkpoint, EpochScores, TrainingState, training_defaults, training_identity
from fusion.training.config import PRECISIONS, Schedule, TrainConfig
from fusion.training.evaluate import dev_scores, is_better, predict_logits
from fusion.training.interrupt import StopRequested, never_stop
from fusion.training.loss_monitor import LossNotFinite, LossRecord, explain_divergence, find_nonfinite_feature
from fusion.training.steps import (
    TOTAL,
    build_optimizer,
    modality_dropout,
    optimizer_step,
    set_learning_rate,
    total_loss,
)

__all__ = ["TrainConfig", "TrainedModel", "train_fold"]
SAVE_EVERY_S = 60.0  # what a kill costs at most, and rare enough that writing takes no part of the time


def epoch_batches(train: Indices, costs: Indices, config: TrainConfig, *, epoch: int) -> list[Indices]:
    """Gives the utterances of each batch of an epoch.

    Args:
        train: the utterances to learn from, ``(n,)``.
        costs: how long each of them is, ``(n,)``.
        config: of the training; its batch size and data seed count.
        epoch: counted from 1.
    """
    places = training_batches(costs, batch_size=config.batch_size, data_seed=config.data_seed, epoch=epoch)
    return [train[batch] for batch in places]


def schedule_of(config: TrainConfig, batches: int) -> Schedule:
    """Gives the learning rate of every step, where an epoch has so many batches."""
    steps = config.epochs * batches
    return Schedule(lr=config.lr, shape=config.schedule, warmup_steps=round(config.warmup * steps), steps=steps)


def record_epoch(
    progress: TrainingState, scores: EpochScores, config: TrainConfig, task: Task = CLASSIFICATION
) -> bool:
    """Adds an epoch to those that are complete, and sees whether it was the last; tells whether it is the best."""
    progress.curves.append(scores)
    progress.epoch, progress.batch, progress.sums = scores.epoch, 0, {}
    best = progress.curves[max(0, progress.best_epoch - 1)]
    better = not progress.best_epoch or is_better(scores.dev, best.dev, config.monitor, task)
    if better:
        progress.best_epoch = scores.epoch
    waited = scores.epoch - progress.best_epoch
    progress.finished = scores.epoch >= config.epochs or waited >= config.patience
    return better


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedModel:
    """What training gave.

    Attributes:
        best_epoch: the epoch with the best dev score, counted from 1.
        curves: of every epoch.
        weights: of the best epoch, on the CPU, by name.
        seconds: spent in training, over all runs that it took.
        peak_bytes: of tensors on a GPU, of the whole process on a CPU.
    """

    best_epoch: int
    curves: tuple[EpochScores, ...]
    weights: Mapping[str, Tensor]
    seconds: float
    peak_bytes: int

    @property
    def dev(self) -> Mapping[str, float]:
        """The dev scores of the best epoch."""
        return self.curves[self.best_epoch - 1].dev


def train_fold(
    head: Head,
    source: BatchSource,
    train: Indices,
    dev: Indices,
    config: TrainConfig,
    *,
    task: Task = CLASSIFICATION,
    checkpoint: Path | None = None,
    save_every_s: float = SAVE_EVERY_S,
    on_epoch: Callable[[EpochScores], None] | None = None,
    stopping: StopRequested = never_stop,
) -> TrainedModel:
    """Trains a head on one part of a fold and chooses the epoch on another; the head ends with those weights.

    Args:
        head: built and prepared; it moves to the device of the source.
        source: of the features.
        train: the utterances to learn from.
        dev: the utterances to choose on.
        config: how.
        task: task with the loss and the dev scores.
        checkpoint: file for the state; one that is there is gone on from.
        save_every_s: how often the state is written, at most; 0 for after every batch. The end is always written.
        on_epoch: told of every epoch.
        stopping: asked after every batch whether to write the state and stop.

    Raises:
        KeyboardInterrupt: if it was told to stop.
        MmerError: if a loss is not finite, with batch and epoch; or if the checkpoint is of another configuration or
            cannot be read or written.
    """
    watch_peak(source.device)
    training = _Training(
        head, source, train, dev, config, task=task, path=checkpoint, save_every_s=save_every_s, stopping=stopping
    )
    if checkpoint is not None and checkpoint.exists():
        training.resume(checkpoint)
    while not training.progress.finished:
        scores = training.epoch()
        if on_epoch is not None:
            on_epoch(scores)
    head.load_state_dict(training.best)
    return TrainedModel(
        best_epoch=training.progress.best_epoch,
        curves=tuple(training.progress.curves),
        weights={name: tensor.cpu() for name, tensor in training.best.items()},
        seconds=training.progress.seconds,
        peak_bytes=peak_memory(source.device),
    )


class _Training:
    """One training under way."""

    def __init__(
        self,
        head: Head,
        source: BatchSource,
        train: Indices,
        dev: Indices,
        config: TrainConfig,
        *,
        task: Task,
        path: Path | None,
        save_every_s: float,
        stopping: StopRequested,
    ) -> None:
        self.head, self.source, self.config = head.to(source.device), source, config
        self.train, self.dev, self.path, self.save_every_s = train, dev, path, save_every_s
        self.task, self.stopping = task, stopping
        seed_dropout(head, config.seed)
        self.optimizer = build_optimizer(head, name=config.optimizer, lr=config.lr, weight_decay=config.weight_decay)
        self.scaler = torch.amp.GradScaler(source.device.type, enabled=config.precision == "float16")
        self.by_class: Tensor | None = None
        self.costs = source.lengths(train, head.training_reads)
        self.schedule = schedule_of(config, len(self._groups(1)))
        self.described = training_identity(head, source, train, dev, config)
        self.progress, self.best = TrainingState(), dict[str, Tensor]()
        self.counted = self.saved = time.monotonic()

    def resume(self, path: Path) -> None:
        """Goes on from a file, unless it says that there is no going on."""
        found = kept.load_checkpoint(path)
        found.check(self.described, path, training_defaults(self.head))
        if found.progress.failure:
            raise MmerError(f"{found.progress.failure}; delete {path} to train it anew")
        self.progress, self.best = found.progress, dict(found.tensors[kept.BEST])
        if not found.progress.finished:
            self.head.load_state_dict(found.tensors[kept.HEAD])
            kept.restore_optimizer(self.optimizer, found.tensors[kept.OPTIMIZER])
            self.scaler.load_state_dict(found.progress.scaler)

    def epoch(self) -> EpochScores:
        """Trains on all batches that are left of an epoch, scores dev, and keeps the weights if they are the best."""
        record = LossRecord(self.progress.epoch + 1, self.progress.sums)
        try:
            self._train(record)
            record.flush()
            scores = self._scored(record)
        except LossNotFinite as error:
            raise self._stopped(error) from error
        self._finish_epoch(scores)
        return scores

    def _train(self, record: LossRecord) -> None:
        self.head.train()
        groups = self._groups(self.progress.epoch + 1)[self.progress.batch :]
        with closing(self.source.batches(groups, self.head.training_reads)) as batches:
            for batch in batches:
                losses = self._step(batch)
                self.progress.step += 1
                self.progress.batch += 1
                record.add(self.progress.batch, losses)
                stopping = self.stopping()
                if stopping or time.monotonic() - self.saved >= self.save_every_s:
                    record.flush()
                    self.progress.sums = record.sums
                    self._save()
                if stopping:
                    raise KeyboardInterrupt

    def _step(self, batch: Batch) -> dict[str, Tensor]:
        config, step = self.config, self.progress.step
        set_step(self.head, step)
        set_learning_rate(self.optimizer, self.schedule.rate(step))
        batch = modality_dropout(batch, self.head.config.modality_dropout, seed=config.seed, step=step)
        dtype = PRECISIONS[config.precision]
        with torch.autocast(self.source.device.type, dtype, enabled=dtype != torch.float32):
            output = self.head(batch)
        if config.class_weights and self.by_class is None:
            weights = self.task.balance(self.source.labels[self.train], output.logits.shape[1])
            self.by_class = weights.to(output.logits.device)
        by_loss = self.head.config.loss_weights
        losses = total_loss(
            output,
            batch.labels,
            by_loss,
            by_class=self.by_class,
            smoothing=config.label_smoothing,
            task=self.task,
        )
        optimizer_step(losses[TOTAL], self.head, self.optimizer, self.scaler, clip=config.clip)
        return losses

    def _scored(self, record: LossRecord) -> EpochScores:
        logits = predict_logits(self.head, self.source, self.dev)
        if not logits.isfinite().all():
            raise LossNotFinite(f"the logits of dev are not finite after epoch {record.epoch}")
        dev = dev_scores(logits, self.source.labels[self.dev], self.task)
        return EpochScores(epoch=record.epoch, losses=record.means, dev=dev)

    def _finish_epoch(self, scores: EpochScores) -> None:
        if record_epoch(self.progress, scores, self.config, self.task):
            self.best = {name: tensor.detach().clone() for name, tensor in self.head.state_dict().items()}
        if self.progress.finished or time.monotonic() - self.saved >= self.save_every_s:
            self._save()

    def _stopped(self, error: LossNotFinite) -> MmerError:
        """Keeps the last good weights, those of the best epoch, and says where."""
        best = self.progress.best_epoch
        bad = find_nonfinite_feature(self.source, np.concatenate([self.train, self.dev]), self.head.training_reads)
        self.progress.failure = explain_divergence(error, self.config, bad)
        if self.path is not None:
            where = f"the weights of epoch {best} are in {self.path}" if best else "no weights are kept"
            self.progress.failure += f"; {where}"
        self._save()
        return MmerError(self.progress.failure)

    def _save(self) -> None:
        now = time.monotonic()
        self.progress.seconds += now - self.counted
        self.counted = self.saved = now
        if self.path is None:
            return
        tensors = {kept.BEST: self.best}
        if not self.progress.finished and not self.progress.failure:
            tensors[kept.HEAD] = self.head.state_dict()
            tensors[kept.OPTIMIZER] = kept.optimizer_tensors(self.optimizer)
            self.progress.scaler = self.scaler.state_dict()
        Checkpoint(config=self.described, progress=self.progress, tensors=tensors).save(self.path)

    def _groups(self, epoch: int) -> list[Indices]:
        """Gives the utterances of each batch of an epoch."""
        return epoch_batches(self.train, self.costs, self.config, epoch=epoch)
