"""Training of several heads of equal structure on one fold as one stack.

Batches, dropout masks, learning rates, clipping, early stopping and the best epoch are those of separate trainings by
`fusion.training.loop`; losses differ by rounding only. A model that stops early, or has a loss that is not finite,
leaves the stack; the others continue.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap

from cache.errors import MmerError
from fusion.arrays import Indices
from fusion.data.features import BatchSource
from fusion.data.memory import peak_memory, reset_peak
from fusion.data.pooled import pooled_once
from fusion.data.views import ViewDraw
from fusion.evaluation.classes import CLASSIFICATION
from fusion.evaluation.task import Task
from fusion.grid.stacking.stack import HeadStack
from fusion.head import Batch, Head, HeadOutput
from fusion.nn.dropout import seed_dropout
from fusion.training.checkpoint import EpochScores, TrainingState
from fusion.training.config import TrainConfig
from fusion.training.evaluate import dev_scores, map_batches
from fusion.training.loop import epoch_batches, record_epoch, schedule_of
from fusion.training.loss_monitor import (
    LOOK_EVERY,
    LossNotFinite,
    LossRecord,
    explain_divergence,
    find_nonfinite_feature,
)
from fusion.training.model import TrainedModel
from fusion.training.optimizer import Adam
from fusion.training.steps import PRECISIONS, TOTAL, total_loss

CLIP_EPSILON = 1e-6  # that of torch's `clip_grad_norm_`


class StackLossRecord:
    """The losses of one epoch of all models of a stack; the device waits only when they are read.

    Args:
        epoch: counted from 1, for messages.
        models: number of models.
    """

    def __init__(self, epoch: int, models: int) -> None:
        self._records = [LossRecord(epoch, {}) for _ in range(models)]
        self._waiting: list[tuple[int, Mapping[str, Tensor]]] = []

    @property
    def due(self) -> bool:
        """Enough batches are recorded to read their losses."""
        return len(self._waiting) >= LOOK_EVERY

    def add(self, batch: int, losses: Mapping[str, Tensor]) -> None:
        """Records the losses of a batch, ``(models,)`` by name."""
        self._waiting.append((batch, {name: loss.detach() for name, loss in losses.items()}))

    def flush(self) -> dict[int, LossNotFinite]:
        """Adds the recorded losses to the sums; returns an error for each model with a loss that is not finite."""
        recorded = [(batch, name) for batch, losses in self._waiting for name in losses]
        if not recorded:
            return {}
        tensors = [loss.float() for _, losses in self._waiting for loss in losses.values()]
        self._waiting.clear()
        errors: dict[int, LossNotFinite] = {}
        for index, values in enumerate(torch.stack(tensors, dim=1).tolist()):
            try:
                for (batch, name), value in zip(recorded, values, strict=True):
                    self._records[index].count(batch, name, value)
            except LossNotFinite as error:
                errors[index] = error
        return errors

    def means(self, index: int) -> dict[str, float]:
        """Returns the mean of each loss of a model over the batches in the sums."""
        return self._records[index].means

    def keep(self, indices: Sequence[int]) -> None:
        """Removes all models except those at some indices."""
        self._records = [self._records[index] for index in indices]


class StackedAdam:
    """Optimizer ``adamw`` or ``adam`` of a stack: each model has its own learning rate and weight decay.

    AdamW of torch keeps the moments: with rate 1 it returns the normalized step of each parameter, which the learning
    rates of the models scale.

    Args:
        rows: parameters, ``(models, columns)``; changed in place.
        name: ``adamw`` decays weights separately from the gradient, ``adam`` adds L2 to the gradient.
        weight_decay: weight decay of each model, ``(models,)``.
    """

    def __init__(self, rows: Tensor, *, name: str, weight_decay: Tensor) -> None:
        self.rows, self.name, self.weight_decay = rows, name, weight_decay
        self._decays = bool((weight_decay > 0).any())
        self._start(torch.zeros_like(rows))

    def step(self, gradient: Tensor, rates: Tensor, decayed: Iterable[slice]) -> None:
        """Updates the parameters.

        Args:
            gradient: gradient of each parameter, ``(models, columns)``; may be overwritten.
            rates: learning rate of each model, ``(models,)``.
            decayed: columns whose weights decay.
        """
        spans = list(decayed) if self._decays else []
        if self.name == "adam":
            for span in spans:
                gradient[:, span].addcmul_(self.rows[:, span], self.weight_decay[:, None])
        self._update.grad = gradient
        self._adam.step()
        if self.name == "adamw":
            for span in spans:
                weights = self.rows[:, span]
                weights.addcmul_(weights, -(rates * self.weight_decay)[:, None])
        self.rows.addcmul_(self._update, rates[:, None])

    def keep(self, rows: Tensor, indices: Sequence[int]) -> None:
        """Continues with the models at some indices; `rows` are their parameters."""
        kept = torch.tensor(indices, device=rows.device)
        state = self._adam.state[self._update]
        self.rows, self.weight_decay = rows, self.weight_decay[kept]
        self._start(torch.zeros_like(rows))
        self._adam.state[self._update] = {
            name: tensor[kept] if tensor.ndim else tensor for name, tensor in state.items()
        }

    def _start(self, update: Tensor) -> None:
        self._update = update
        fused = update.device.type in {"cpu", "cuda"}
        # with rate 1 and decay 1, a step overwrites the previous update
        self._adam = Adam([{"params": [update]}], name="adamw", lr=1.0, weight_decay=1.0, fused=fused)


def clip_rows(gradient: Tensor, clip: Tensor) -> None:
    """Scales each row in place to a norm of at most `clip`, ``(models,)``; 0 for no clipping."""
    norms = torch.linalg.vector_norm(gradient, dim=1)
    scale = (clip / (norms + CLIP_EPSILON)).clamp(max=1)
    gradient.mul_(torch.where(clip > 0, scale, 1)[:, None])


def train_stack(
    heads: Sequence[Head],
    source: BatchSource,
    train: Indices,
    dev: Indices,
    configs: Sequence[TrainConfig],
    *,
    task: Task = CLASSIFICATION,
    on_epoch: Callable[[int, EpochScores], None] | None = None,
) -> list[TrainedModel | MmerError]:
    """Trains heads with equal stack keys on the training subset of a fold and selects their epochs on dev.

    Args:
        heads: built and prepared heads; each ends with the weights of its best epoch.
        source: features of all utterances.
        train: indices of the training subset, ``(n,)``.
        dev: indices of the development subset, ``(n,)``.
        configs: training configuration of each head.
        task: task with the loss and the dev scores.
        on_epoch: called after every epoch with the index of the head and its scores.

    Returns:
        In the order of the heads, the trained model; or the error of a model whose loss is not finite, and its head is
        unchanged. The time of the stack is divided among its models; the peak memory is that of the stack.
    """
    reset_peak(source.device)
    members = [
        _Member(index=index, head=head, config=config)
        for index, (head, config) in enumerate(zip(heads, configs, strict=True))
    ]
    training = _StackTraining(members, source, train, dev, task)
    while training.members:
        training.epoch(on_epoch or _ignore_epoch)
    return [member.result(source.device) for member in members]


@dataclass(kw_only=True, eq=False)
class _Member:
    """A model of a stack."""

    index: int  # among the heads
    head: Head
    config: TrainConfig
    progress: TrainingState = field(default_factory=TrainingState)
    best: Mapping[str, Tensor] = field(default_factory=dict)
    error: MmerError | None = None

    def result(self, device: torch.device) -> TrainedModel | MmerError:
        """Loads the best weights into the head and returns the trained model, or the error."""
        if self.error is not None:
            return self.error
        self.head.to(device).load_state_dict(self.best)
        return TrainedModel(
            best_epoch=self.progress.best_epoch,
            curves=tuple(self.progress.curves),
            weights={name: tensor.cpu() for name, tensor in self.best.items()},
            seconds=self.progress.seconds,
            peak_bytes=peak_memory(device),
        )

    def fail(self, error: LossNotFinite, bad_feature: str) -> None:
        """Records an error; `bad_feature` describes a feature that is not finite, if there is one."""
        self.error = MmerError(explain_divergence(error, self.config, bad_feature))
        self.error.__cause__ = error


class _StackTraining:
    """The state of a stack in training."""

    def __init__(
        self, members: Sequence[_Member], source: BatchSource, train: Indices, dev: Indices, task: Task
    ) -> None:
        for member in members:
            seed_dropout(member.head, member.config.seed)
        self.members, self.train, self.dev = list(members), train, dev
        self.roles, self.config = members[0].head.training_reads, members[0].config  # all members agree in what is used
        self.task, self.scored_roles = task, members[0].head.config.roles
        heads, used = [member.head.to(source.device) for member in members], np.concatenate([train, dev])
        self.source = pooled_once(heads, source, used, precision=self.config.precision)
        self.stack = HeadStack(heads, source.device)
        decays = self._tensor([member.config.weight_decay for member in self.members])
        self.optimizer = StackedAdam(self.stack.rows, name=self.config.optimizer, weight_decay=decays)
        self.lengths = source.lengths(train, self.roles)
        self.by_class: Tensor | None = None
        self.steps_per_epoch = len(self._groups(1))
        self.epochs, self.step = 0, 0  # finished ones
        self.timed = time.monotonic()
        self._gather()

    def epoch(self, on_epoch: Callable[[int, EpochScores], None]) -> None:
        """Trains on all batches of an epoch and scores dev; removes models that have finished or failed."""
        record = StackLossRecord(self.epochs + 1, len(self.members))
        self._train(record)
        self.epochs += 1
        if self.members:
            self._score(record, on_epoch)
        self._remove_finished({}, record)

    def _train(self, record: StackLossRecord) -> None:
        groups = self._groups(self.epochs + 1)
        with closing(self.source.batches(groups, self.roles, self._draw)) as batches:
            for number, batch in enumerate(batches, start=1):
                record.add(number, self._step(batch))
                self.step += 1
                if record.due:
                    self._remove_finished(record.flush(), record)
                if not self.members:
                    return
        self._remove_finished(record.flush(), record)

    def _step(self, batch: Batch) -> dict[str, Tensor]:
        self.stack.set_step(self.step)
        dtype = PRECISIONS[self.config.precision]
        with torch.autocast(self.source.device.type, dtype, enabled=dtype != torch.float32):
            output = self.stack(batch)
        losses = self._losses(output, batch.labels)
        gradient, reached = self.stack.gradient(losses[TOTAL])
        if self.clips:
            clip_rows(gradient, self.clip)
        self.optimizer.step(gradient, self._learning_rates(), self.stack.decayed(reached))
        return losses

    def _losses(self, output: HeadOutput, labels: Tensor) -> dict[str, Tensor]:
        """Computes the weighted total loss of each model and its terms, ``(models,)`` by name."""
        if self.config.class_weights and self.by_class is None:
            by_class = self.task.balance(self.source.labels[self.train], output.logits.shape[-1])
            self.by_class = by_class.to(output.logits.device)

        def total(logits: Tensor, losses: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
            output = HeadOutput(logits, losses)
            smoothing = self.config.label_smoothing
            return total_loss(output, labels, weights, by_class=self.by_class, smoothing=smoothing, task=self.task)

        weights = {name: self.loss_weights[name] for name in output.losses}
        losses: dict[str, Tensor] = vmap(total)(output.logits, dict(output.losses), weights)
        return losses

    def _score(self, record: StackLossRecord, on_epoch: Callable[[int, EpochScores], None]) -> None:
        logits = map_batches(self.stack.logits, self.source, self.dev, self.scored_roles)  # (models, n, classes)
        self._share_time()
        labels = self.source.labels[self.dev]
        for index, member in enumerate(self.members):
            if not logits[index].isfinite().all():
                self._fail(member, LossNotFinite(f"the logits of dev are not finite after epoch {self.epochs}"))
                continue
            dev = dev_scores(logits[index], labels, self.task)
            scores = EpochScores(epoch=self.epochs, losses=record.means(index), dev=dev)
            if record_epoch(member.progress, scores, member.config, self.task):
                member.best = self.stack.state_dict(index)
            on_epoch(member.index, scores)

    def _remove_finished(self, errors: Mapping[int, LossNotFinite], record: StackLossRecord) -> None:
        """Removes models that have finished or failed."""
        for index, error in errors.items():
            self._fail(self.members[index], error)
        kept = [
            index for index, member in enumerate(self.members) if member.error is None and not member.progress.finished
        ]
        if len(kept) == len(self.members):
            return
        self._share_time()
        self.members = [self.members[index] for index in kept]
        if kept:
            self.stack.keep(kept)
            self.optimizer.keep(self.stack.rows, kept)
            record.keep(kept)
            self._gather()

    def _fail(self, member: _Member, error: LossNotFinite) -> None:
        member.fail(error, self._bad_feature)

    @cached_property
    def _bad_feature(self) -> str:
        """Description of a feature that is not finite, empty if there is none; searched once."""
        return find_nonfinite_feature(self.source, np.concatenate([self.train, self.dev]), self.roles, self._draw)

    @property
    def _draw(self) -> ViewDraw:
        """Draw of the views in the epoch after the finished ones."""
        return ViewDraw(data_seed=self.config.data_seed, epoch=self.epochs + 1)

    def _gather(self) -> None:
        """Collects what steps need of each member in tensors, ``(models,)``."""
        self.clip = self._tensor([member.config.clip for member in self.members])
        self.clips = any(member.config.clip for member in self.members)
        weights = [member.head.config.loss_weights for member in self.members]
        self.loss_weights = {name: self._tensor([by_name[name] for by_name in weights]) for name in weights[0]}
        self.schedules = [schedule_of(member.config, self.steps_per_epoch) for member in self.members]
        self.rates: tuple[list[float], Tensor] = ([], torch.empty(0))

    def _learning_rates(self) -> Tensor:
        """Returns the learning rates of the step, ``(models,)``; copies them to the device when they change."""
        rates = [schedule.rate(self.step) for schedule in self.schedules]
        if rates != self.rates[0]:
            self.rates = rates, torch.tensor(rates, device=self.source.device)
        return self.rates[1]

    def _tensor(self, values: list[float]) -> Tensor:
        return torch.tensor(values, device=self.source.device)

    def _groups(self, epoch: int) -> list[Indices]:
        return epoch_batches(self.train, self.lengths, self.config, epoch=epoch, classes=self.source.labels)

    def _share_time(self) -> None:
        """Divides the time since the last call among the members."""
        now = time.monotonic()
        for member in self.members:
            member.progress.seconds += (now - self.timed) / len(self.members)
        self.timed = now


def _ignore_epoch(index: int, scores: EpochScores) -> None:
    """Does nothing with an epoch."""
