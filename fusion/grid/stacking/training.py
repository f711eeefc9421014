"""Trains several heads of equal structure on one fold as one stack, each as `fusion.training.loop` trains it alone.

Batches, dropout masks, rates, clipping, early stopping and the chosen epoch are those of separate trainings; losses
differ by rounding alone. A model that stops early, or whose loss is not finite, leaves the stack, and the others go on.

Keeps the losses of an epoch of every model of a stack, without making the device wait at every batch.

Adam over a stack of models, each with a learning rate and a weight decay of its own.
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
from fusion.data.memory import peak_memory, watch_peak
from fusion.evaluation.task import CLASSIFICATION, Task
from fusion.grid.stacking.stack import HeadStack
from fusion.head import Batch, Head, HeadOutput
from fusion.nn.dropout import seed_dropout
from fusion.training.checkpoint import EpochScores, TrainingState
from fusion.training.config import PRECISIONS, TrainConfig
from fusion.training.evaluate import dev_scores, map_batches
from fusion.training.loop import TrainedModel, epoch_batches, record_epoch, schedule_of
from fusion.training.loss_monitor import (
    LOOK_EVERY,
    LossNotFinite,
    LossRecord,
    explain_divergence,
    find_nonfinite_feature,
)
from fusion.training.steps import TOTAL, total_loss

CLIP_EPSILON = 1e-6  # that of torch's `clip_grad_norm_`


class StackRecord:
    """The losses of one epoch.

    Args:
        epoch: counted from 1, for messages.
        models: how many.
    """

    def __init__(self, epoch: int, models: int) -> None:
        self._records = [LossRecord(epoch, {}) for _ in range(models)]
        self._waiting: list[tuple[int, Mapping[str, Tensor]]] = []

    @property
    def due(self) -> bool:
        """Whether enough is noted to be looked at."""
        return len(self._waiting) >= LOOK_EVERY

    def add(self, batch: int, losses: Mapping[str, Tensor]) -> None:
        """Notes the losses of a batch, ``(models,)`` by name."""
        self._waiting.append((batch, {name: loss.detach() for name, loss in losses.items()}))

    def look(self) -> dict[int, LossNotFinite]:
        """Adds all that was noted to the sums; gives the places of models with a loss that is not finite."""
        noted = [(batch, name) for batch, losses in self._waiting for name in losses]
        if not noted:
            return {}
        tensors = [loss.float() for _, losses in self._waiting for loss in losses.values()]
        self._waiting.clear()
        errors: dict[int, LossNotFinite] = {}
        for place, values in enumerate(torch.stack(tensors, dim=1).tolist()):
            try:
                for (batch, name), value in zip(noted, values, strict=True):
                    self._records[place].count(batch, name, value)
            except LossNotFinite as error:
                errors[place] = error
        return errors

    def means(self, place: int) -> dict[str, float]:
        """Gives the mean of each loss of a model over the batches that were looked at."""
        return self._records[place].means

    def keep(self, places: Sequence[int]) -> None:
        """Drops all models but some."""
        self._records = [self._records[place] for place in places]


class StackedAdam:
    """``adamw`` or ``adam`` over parameters with a row per model.

    The moments are torch's own: its AdamW, at rate 1, leaves the step that each parameter is to take, and the rates
    of the models scale it.

    Args:
        rows: parameters, ``(models, columns)``; changed in place.
        name: ``adamw`` decays weights apart from their gradient, ``adam`` adds L2 to it.
        weight_decay: of each model, ``(models,)``.
    """

    def __init__(self, rows: Tensor, *, name: str, weight_decay: Tensor) -> None:
        self.rows, self.name, self.weight_decay = rows, name, weight_decay
        self._decays = bool((weight_decay > 0).any())
        self._start(torch.zeros_like(rows))

    def step(self, gradient: Tensor, rates: Tensor, decayed: Iterable[slice]) -> None:
        """Takes one step.

        Args:
            gradient: by row, ``(models, columns)``; may be changed.
            rates: learning rate of each model, ``(models,)``.
            decayed: columns whose weights decay.
        """
        spans = list(decayed) if self._decays else []
        if self.name == "adam":
            for span in spans:
                gradient[:, span].addcmul_(self.rows[:, span], self.weight_decay[:, None])
        self._taken.grad = gradient
        self._adam.step()
        if self.name == "adamw":
            for span in spans:
                weights = self.rows[:, span]
                weights.addcmul_(weights, -(rates * self.weight_decay)[:, None])
        self.rows.addcmul_(self._taken, rates[:, None])

    def keep(self, rows: Tensor, places: Sequence[int]) -> None:
        """Goes on with some of the models; `rows` are their parameters."""
        kept = torch.tensor(places, device=rows.device)
        state = self._adam.state[self._taken]
        self.rows, self.weight_decay = rows, self.weight_decay[kept]
        self._start(torch.zeros_like(rows))
        self._adam.state[self._taken] = {name: one[kept] if one.ndim else one for name, one in state.items()}

    def _start(self, taken: Tensor) -> None:
        self._taken = taken
        fused = taken.device.type in {"cpu", "cuda"}
        # rate 1 and decay 1 leave nothing of the step before
        self._adam = torch.optim.AdamW([taken], lr=1.0, weight_decay=1.0, fused=fused)


def clip_rows(gradient: Tensor, clip: Tensor) -> None:
    """Scales each row down to a norm of at most `clip`, ``(models,)``, in place; 0 for no clipping."""
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
    """Trains heads with equal stack keys on one part of a fold and chooses each one's epoch on another.

    Args:
        heads: built and prepared; each ends with the weights of its best epoch.
        source: of the features.
        train: the utterances to learn from.
        dev: the utterances to choose on.
        configs: how each is trained.
        task: task with the loss and the dev scores.
        on_epoch: told of every epoch, with the place of the model among the heads.

    Returns:
        What training gave, in the order of the heads; or the error of one whose losses are not finite, its head as it
        was. The seconds of the stack are divided among the models in it; the peak of memory is that of all.
    """
    watch_peak(source.device)
    members = [_Member(place=place, head=head, config=one) for place, (head, one) in enumerate(_pairs(heads, configs))]
    training = _StackTraining(members, source, train, dev, task)
    while training.members:
        training.epoch(on_epoch or _nobody)
    return [member.outcome(source.device) for member in members]


@dataclass(kw_only=True, eq=False)
class _Member:
    """One model of a stack."""

    place: int
    head: Head
    config: TrainConfig
    progress: TrainingState = field(default_factory=TrainingState)
    best: Mapping[str, Tensor] = field(default_factory=dict)
    error: MmerError | None = None

    def outcome(self, device: torch.device) -> TrainedModel | MmerError:
        """Gives what its training gave; the head takes the best weights."""
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

    def fail(self, error: LossNotFinite, bad: str) -> None:
        """Ends it by an error; `bad` is what is wrong with its features."""
        self.error = MmerError(explain_divergence(error, self.config, bad))
        self.error.__cause__ = error


class _StackTraining:
    """The training of a stack under way."""

    def __init__(
        self, members: Sequence[_Member], source: BatchSource, train: Indices, dev: Indices, task: Task
    ) -> None:
        for member in members:
            seed_dropout(member.head, member.config.seed)
        self.members, self.source, self.train, self.dev = list(members), source, train, dev
        self.roles, self.config = members[0].head.training_reads, members[0].config  # what all members agree in
        self.task, self.scored_roles = task, members[0].head.config.roles
        self.stack = HeadStack([member.head for member in members], source.device)
        decays = self._tensor([member.config.weight_decay for member in self.members])
        self.optimizer = StackedAdam(self.stack.rows, name=self.config.optimizer, weight_decay=decays)
        self.costs = source.lengths(train, self.roles)
        self.by_class: Tensor | None = None
        self.steps_per_epoch = len(self._groups(1))
        self.done, self.step = 0, 0  # epochs and steps
        self.counted = time.monotonic()
        self._gather()

    def epoch(self, told: Callable[[int, EpochScores], None]) -> None:
        """Trains on all batches of an epoch and scores dev; models that have finished or failed leave."""
        record = StackRecord(self.done + 1, len(self.members))
        self._train(record)
        self.done += 1
        if self.members:
            self._score(record, told)
        self._leave({}, record)

    def _train(self, record: StackRecord) -> None:
        with closing(self.source.batches(self._groups(self.done + 1), self.roles)) as batches:
            for number, batch in enumerate(batches, start=1):
                record.add(number, self._step(batch))
                self.step += 1
                if record.due:
                    self._leave(record.look(), record)
                if not self.members:
                    return
        self._leave(record.look(), record)

    def _step(self, batch: Batch) -> dict[str, Tensor]:
        self.stack.set_step(self.step)
        dtype = PRECISIONS[self.config.precision]
        with torch.autocast(self.source.device.type, dtype, enabled=dtype != torch.float32):
            output = self.stack(batch)
        losses = self._losses(output, batch.labels)
        gradient, reached = self.stack.gradient(losses[TOTAL])
        if self.clips:
            clip_rows(gradient, self.clip)
        self.optimizer.step(gradient, self._rates(), self.stack.decayed(reached))
        return losses

    def _losses(self, output: HeadOutput, labels: Tensor) -> dict[str, Tensor]:
        """Gives what each model's loss is made of, ``(models,)`` by name."""
        if self.config.class_weights and self.by_class is None:
            weights = self.task.balance(self.source.labels[self.train], output.logits.shape[-1])
            self.by_class = weights.to(output.logits.device)

        def one(logits: Tensor, losses: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
            made = HeadOutput(logits, losses)
            smoothing = self.config.label_smoothing
            return total_loss(made, labels, weights, by_class=self.by_class, smoothing=smoothing, task=self.task)

        weighed = {name: self.weights[name] for name in output.losses}
        losses: dict[str, Tensor] = vmap(one)(output.logits, dict(output.losses), weighed)
        return losses

    def _score(self, record: StackRecord, told: Callable[[int, EpochScores], None]) -> None:
        every = map_batches(self.stack.logits, self.source, self.dev, self.scored_roles)
        self._share_time()
        labels = self.source.labels[self.dev]
        for place, (member, logits) in enumerate(zip(self.members, every, strict=True)):
            if not logits.isfinite().all():
                self._fail(member, LossNotFinite(f"the logits of dev are not finite after epoch {self.done}"))
                continue
            dev = dev_scores(logits, labels, self.task)
            scores = EpochScores(epoch=self.done, losses=record.means(place), dev=dev)
            if record_epoch(member.progress, scores, member.config, self.task):
                member.best = self.stack.state_dict(place)
            told(member.place, scores)

    def _leave(self, errors: Mapping[int, LossNotFinite], record: StackRecord) -> None:
        """Lets go of models that are finished or have failed."""
        for place, error in errors.items():
            self._fail(self.members[place], error)
        kept = [place for place, one in enumerate(self.members) if one.error is None and not one.progress.finished]
        if len(kept) == len(self.members):
            return
        self._share_time()
        self.members = [self.members[place] for place in kept]
        if kept:
            self.stack.keep(kept)
            self.optimizer.keep(self.stack.rows, kept)
            record.keep(kept)
            self._gather()

    def _fail(self, member: _Member, error: LossNotFinite) -> None:
        member.fail(error, self._bad_feature)

    @cached_property
    def _bad_feature(self) -> str:
        """What is wrong with the features, looked for once."""
        return find_nonfinite_feature(self.source, np.concatenate([self.train, self.dev]), self.roles)

    def _gather(self) -> None:
        """Makes what steps need of each member into tensors, ``(models,)``."""
        self.clip = self._tensor([member.config.clip for member in self.members])
        self.clips = any(member.config.clip for member in self.members)
        weights = [member.head.config.loss_weights for member in self.members]
        self.weights = {name: self._tensor([one[name] for one in weights]) for name in weights[0]}
        self.schedules = [schedule_of(member.config, self.steps_per_epoch) for member in self.members]
        self.rates: tuple[list[float], Tensor] = ([], torch.empty(0))

    def _rates(self) -> Tensor:
        """Gives the learning rates of the step, made anew where they change."""
        rates = [one.rate(self.step) for one in self.schedules]
        if rates != self.rates[0]:
            self.rates = rates, torch.tensor(rates, device=self.source.device)
        return self.rates[1]

    def _tensor(self, values: list[float]) -> Tensor:
        return torch.tensor(values, device=self.source.device)

    def _groups(self, epoch: int) -> list[Indices]:
        return epoch_batches(self.train, self.costs, self.config, epoch=epoch)

    def _share_time(self) -> None:
        """Divides the time since it was last done among the members."""
        now = time.monotonic()
        for member in self.members:
            member.progress.seconds += (now - self.counted) / len(self.members)
        self.counted = now


def _pairs(heads: Sequence[Head], configs: Sequence[TrainConfig]) -> list[tuple[Head, TrainConfig]]:
    return list(zip(heads, configs, strict=True))


def _nobody(place: int, scores: EpochScores) -> None:
    """Hears of no epoch."""
