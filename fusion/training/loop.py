"""Training loop: trains one head on one fold, with early stopping and a checkpoint that can be resumed.

The code of this module never receives the test subset of a fold (docs/decisions.md#c-2);
`fusion.training.evaluate.predict_probabilities` scores it. All random draws depend on the two seeds and the step only,
never on global generators.

The stacked trainer of grids shares `epoch_batches`, `schedule_of` and `record_epoch`: batches, learning rate, best
epoch and stopping are the same for every engine.
"""

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cache.errors import MmerError
from fusion.arrays import ClassIds, Indices
from fusion.data.batches import balanced_batches, training_batches
from fusion.data.features import BatchSource
from fusion.data.memory import peak_memory, reset_peak
from fusion.data.pooled import pooled_once
from fusion.data.views import ViewDraw
from fusion.evaluation.classes import CLASSIFICATION
from fusion.evaluation.task import Task
from fusion.head import Batch, FittedHead, Head
from fusion.nn.dropout import seed_dropout, set_step
from fusion.training.checkpoint import (
    BEST,
    HEAD,
    OPTIMIZER,
    Checkpoint,
    EpochScores,
    TrainingState,
    fitting,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    training_defaults,
    training_identity,
)
from fusion.training.config import Schedule, TrainConfig
from fusion.training.evaluate import dev_scores, is_selected, predict_logits
from fusion.training.fit import fit_candidate, fit_fold
from fusion.training.interrupt import StopRequested, never_stop
from fusion.training.loss_monitor import (
    LossNotFinite,
    LossRecord,
    TrainingDiverged,
    explain_divergence,
    find_nonfinite_feature,
)
from fusion.training.model import TrainedModel
from fusion.training.steps import (
    PRECISIONS,
    TOTAL,
    build_optimizer,
    modality_dropout,
    optimizer_step,
    set_learning_rate,
    total_loss,
)

SAVE_EVERY_S = 60.0  # the most that a kill loses; the time to write a checkpoint is negligible


def epoch_batches(
    train: Indices, lengths: Indices, config: TrainConfig, *, epoch: int, classes: ClassIds | None = None
) -> list[Indices]:
    """Returns the utterances of each batch of an epoch.

    Args:
        train: utterances of the training subset, int64 ``(n,)``.
        lengths: length of each of them in rows, int64 ``(n,)``.
        config: training configuration; its batch size, balance and data seed matter.
        epoch: number of the epoch, counted from 1.
        classes: class of every utterance of the cache, int64 ``(n,)``; read for balanced batches only.

    Returns:
        Positions among all utterances of the cache, int64 ``(batch,)`` for each batch.
    """
    draw: dict[str, int] = {"batch_size": config.batch_size, "data_seed": config.data_seed, "epoch": epoch}
    if config.balanced_batches:
        if classes is None:
            raise ValueError("balanced_batches needs the classes of the utterances")
        of_train = classes[train] if classes.ndim == 1 else classes[train].argmax(axis=1)  # the majority of votes
        batches = balanced_batches(lengths, of_train, **draw)
    else:
        batches = training_batches(lengths, **draw)
    return [train[batch] for batch in batches]


def schedule_of(config: TrainConfig, batches: int) -> Schedule:
    """Returns the learning-rate schedule of a training with so many batches in an epoch.

    A number of warm-up steps replaces the share. It does not depend on the number of epochs: of a shorter training, all
    steps are warm-up, and the rate stays below its maximum.
    """
    steps = config.epochs * batches
    warmup_steps = config.warmup_steps or round(config.warmup * steps)
    return Schedule(lr=config.lr, shape=config.schedule, warmup_steps=warmup_steps, steps=steps)


def record_epoch(
    progress: TrainingState, scores: EpochScores, config: TrainConfig, task: Task = CLASSIFICATION
) -> bool:
    """Records a complete epoch, and applies early stopping.

    Of equal scores, the epoch with the lower loss on dev is the best, then the later one. Patience counts from the last
    epoch whose score itself was better, so ties do not lengthen a training.

    Args:
        progress: progress of the training; updated in place.
        scores: losses and scores of the epoch.
        config: training configuration; its epochs, patience and monitor matter.
        task: task that compares scores.

    Returns:
        True if the epoch is the best so far.
    """
    progress.curves.append(scores)
    progress.epoch, progress.batch, progress.sums = scores.epoch, 0, {}
    best = progress.curves[max(0, progress.best_epoch - 1)]
    better = not progress.best_epoch or is_selected(scores.dev, best.dev, config.monitor, task)
    if better:
        progress.best_epoch = scores.epoch
    reached = progress.curves[progress.best_epoch - 1].dev[config.monitor]
    without_gain = scores.epoch - next(held.epoch for held in progress.curves if held.dev[config.monitor] == reached)
    progress.finished = scores.epoch >= config.epochs or without_gain >= config.patience
    return better


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
    """Trains a head and selects its best epoch; the head ends with the weights of that epoch.

    Args:
        head: built and prepared head; it moves to the device of the source.
        source: source of the features.
        train: utterances of the training subset, int64 ``(n,)``.
        dev: utterances of the development subset, int64 ``(n,)``.
        config: training configuration.
        task: task that defines loss and scores.
        checkpoint: file of the checkpoint; an existing one is resumed.
        save_every_s: minimum number of seconds between two writes of the checkpoint; 0 writes it after every batch. The
            end of the training is always written.
        on_epoch: called after every epoch.
        stopping: called after every batch; when it returns True, the checkpoint is written and the training stops.

    Raises:
        KeyboardInterrupt: if `stopping` returned True.
        MmerError: if a loss is not finite (names batch and epoch), or the checkpoint belongs to a different training or
            cannot be read or written.
    """
    reset_peak(source.device)
    if isinstance(head, FittedHead):
        return fit_fold(head, source, train, dev, config, task=task, on_epoch=on_epoch, stopping=stopping)
    training = _Training(
        head, source, train, dev, config, task=task, path=checkpoint, save_every_s=save_every_s, stopping=stopping
    )
    return training.run(on_epoch)


def train_epochs(
    head: Head,
    source: BatchSource,
    train: Indices,
    config: TrainConfig,
    *,
    epochs: int,
    task: Task = CLASSIFICATION,
    checkpoint: Path | None = None,
    save_every_s: float = SAVE_EVERY_S,
    on_epoch: Callable[[EpochScores], None] | None = None,
    stopping: StopRequested = never_stop,
) -> TrainedModel:
    """Trains a head for a number of epochs, without a development subset; the head ends with its last weights.

    The learning rate of an epoch is that of `train_fold`: the schedule is over the maximum number of epochs.

    Args:
        head: built and prepared head; it moves to the device of the source.
        source: source of the features.
        train: utterances to train on, int64 ``(n,)``.
        config: training configuration; patience and monitor have no effect.
        epochs: number of epochs, at most that of the configuration; of a fitted head the number of its candidate.
        task: task that defines the loss.
        checkpoint: file of the checkpoint; an existing one is resumed.
        save_every_s: minimum number of seconds between two writes of the checkpoint, as in `train_fold`.
        on_epoch: called after every epoch; its scores have losses only.
        stopping: called after every batch; when it returns True, the checkpoint is written and the training stops.

    Raises:
        KeyboardInterrupt: if `stopping` returned True.
        MmerError: as `train_fold`.
        ValueError: if the number of epochs is not 1 to that of the configuration.
    """
    most = len(head.candidates) if isinstance(head, FittedHead) else config.epochs
    if not 1 <= epochs <= most:
        raise ValueError(f"epochs must be 1 to {most}, got {epochs}")
    reset_peak(source.device)
    if isinstance(head, FittedHead):
        return fit_candidate(head, source, train, config, epochs=epochs, task=task, on_epoch=on_epoch)
    nothing: Indices = np.empty(0, dtype=np.int64)
    training = _Training(
        head,
        source,
        train,
        nothing,
        config,
        task=task,
        path=checkpoint,
        save_every_s=save_every_s,
        stopping=stopping,
        last_epoch=epochs,
    )
    return training.run(on_epoch)


class _Training:
    """A training in progress: with early stopping on dev, or up to `last_epoch` if that is not 0."""

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
        last_epoch: int = 0,
    ) -> None:
        self.head, self.config = head.to(source.device), config
        self.source = pooled_once([head], source, np.concatenate([train, dev]), precision=config.precision)
        self.train, self.dev, self.path, self.save_every_s = train, dev, path, save_every_s
        self.task, self.stopping, self.last_epoch = task, stopping, last_epoch
        seed_dropout(head, config.seed)
        self.optimizer = build_optimizer(head, name=config.optimizer, lr=config.lr, weight_decay=config.weight_decay)
        self.scaler = torch.amp.GradScaler(source.device.type, enabled=config.precision == "float16")
        self.by_class: Tensor | None = None  # known after the first forward pass, which shows the number of classes
        self.lengths = source.lengths(train, head.training_reads)
        self.schedule = schedule_of(config, len(self._batches(1)))
        self.identity = training_identity(head, source, train, dev, config)
        if last_epoch:
            self.identity["data"]["last epoch"] = last_epoch
        self.progress, self.best = TrainingState(), dict[str, Tensor]()
        self.timed = self.saved = time.monotonic()

    def run(self, on_epoch: Callable[[EpochScores], None] | None) -> TrainedModel:
        """Trains until the end, from a checkpoint if there is one; the head ends with the best weights."""
        if self.path is not None and self.path.exists():
            self.resume(self.path)
        while not self.progress.finished:
            scores = self.epoch()
            if on_epoch is not None:
                on_epoch(scores)
        self.head.load_state_dict(self.best)
        return TrainedModel(
            best_epoch=self.progress.best_epoch,
            curves=tuple(self.progress.curves),
            weights={name: tensor.cpu() for name, tensor in self.best.items()},
            seconds=self.progress.seconds,
            peak_bytes=peak_memory(self.source.device),
        )

    def resume(self, path: Path) -> None:
        """Loads a checkpoint.

        Raises:
            MmerError: if it cannot be read, belongs to a different training, or that training has failed.
        """
        checkpoint = load_checkpoint(path)
        checkpoint.check(self.identity, path, training_defaults(self.head))
        progress = checkpoint.progress
        if progress.failure:
            raise MmerError(f"{progress.failure}; delete {path} to train the model again")
        self.progress, self.best = progress, dict(checkpoint.tensors[BEST])
        with fitting(path):
            self.head.load_state_dict(checkpoint.tensors[BEST if progress.finished else HEAD])
            if not progress.finished:
                restore_optimizer(self.optimizer, checkpoint.tensors[OPTIMIZER])
                self.scaler.load_state_dict(progress.scaler)

    def epoch(self) -> EpochScores:
        """Trains the rest of an epoch, scores the development subset and keeps the best weights."""
        record = LossRecord(self.progress.epoch + 1, self.progress.sums)
        try:
            self._train(record)
            record.flush()
            scores = self._score_dev(record)
        except LossNotFinite as error:
            raise self._record_failure(error) from error
        self._finish_epoch(scores)
        return scores

    def _train(self, record: LossRecord) -> None:
        self.head.train()
        epoch = self.progress.epoch + 1
        remaining = self._batches(epoch)[self.progress.batch :]
        draw = ViewDraw(data_seed=self.config.data_seed, epoch=epoch)
        with closing(self.source.batches(remaining, self.head.training_reads, draw)) as batches:
            for batch in batches:
                losses = self._step(batch)
                self.progress.step += 1
                self.progress.batch += 1
                record.add(self.progress.batch, losses)
                stop_requested = self.stopping()
                if stop_requested or time.monotonic() - self.saved >= self.save_every_s:
                    record.flush()
                    self.progress.sums = record.sums
                    self._save()
                if stop_requested:
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
        losses = total_loss(
            output,
            batch.labels,
            self.head.config.loss_weights,
            by_class=self.by_class,
            smoothing=config.label_smoothing,
            task=self.task,
        )
        optimizer_step(losses[TOTAL], self.head, self.optimizer, self.scaler, clip=config.clip)
        return losses

    def _score_dev(self, record: LossRecord) -> EpochScores:
        if self.last_epoch:
            return EpochScores(epoch=record.epoch, losses=record.means, dev={})
        logits = predict_logits(self.head, self.source, self.dev)
        if not logits.isfinite().all():
            raise LossNotFinite(f"the logits of dev are not finite after epoch {record.epoch}")
        dev = dev_scores(logits, self.source.labels[self.dev], self.task)
        return EpochScores(epoch=record.epoch, losses=record.means, dev=dev)

    def _finish_epoch(self, scores: EpochScores) -> None:
        if self._record_epoch(scores):
            self.best = {name: tensor.detach().clone() for name, tensor in self.head.state_dict().items()}
        if self.progress.finished or time.monotonic() - self.saved >= self.save_every_s:
            self._save()

    def _record_epoch(self, scores: EpochScores) -> bool:
        """Records a complete epoch; returns True if its weights are kept."""
        if not self.last_epoch:
            return record_epoch(self.progress, scores, self.config, self.task)
        self.progress.curves.append(scores)
        self.progress.epoch, self.progress.batch, self.progress.sums = scores.epoch, 0, {}
        self.progress.finished = scores.epoch >= self.last_epoch
        if self.progress.finished:
            self.progress.best_epoch = scores.epoch
        return self.progress.finished

    def _record_failure(self, error: LossNotFinite) -> TrainingDiverged:
        """Writes the failure and the weights of the best epoch, the last good ones; returns the error to raise."""
        best = self.progress.best_epoch
        draw = ViewDraw(data_seed=self.config.data_seed, epoch=self.progress.epoch + 1)
        used = np.concatenate([self.train, self.dev])
        bad = find_nonfinite_feature(self.source, used, self.head.training_reads, draw)
        self.progress.failure = explain_divergence(error, self.config, bad)
        if self.path is not None:
            kept = f"the weights of epoch {best} are in {self.path}" if best else "no weights are kept"
            self.progress.failure += f"; {kept}"
        self._save()
        return TrainingDiverged(self.progress.failure)

    def _save(self) -> None:
        now = time.monotonic()
        self.progress.seconds += now - self.timed
        self.timed = self.saved = now
        if self.path is None:
            return
        tensors = {BEST: self.best}
        if not self.progress.finished and not self.progress.failure:
            tensors[HEAD] = self.head.state_dict()
            tensors[OPTIMIZER] = optimizer_tensors(self.optimizer)
            self.progress.scaler = self.scaler.state_dict()
        Checkpoint(config=self.identity, progress=self.progress, tensors=tensors).save(self.path)

    def _batches(self, epoch: int) -> list[Indices]:
        return epoch_batches(self.train, self.lengths, self.config, epoch=epoch, classes=self.source.labels)
