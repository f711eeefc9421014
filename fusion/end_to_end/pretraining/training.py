"""Training loop of a pre-training: steps, epochs, curves, and a checkpoint that can be resumed after any kill.

All random draws depend on (seed, step) only, never on the state of global generators, so that a resumed training ends
with the same weights on a CPU. The code of this module never receives the test subset of a fold.
"""

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from cache.errors import MmerError
from fusion.arrays import Indices
from fusion.data.batches import scoring_batches, training_batches
from fusion.data.memory import peak_memory, reset_peak
from fusion.end_to_end.learning.encoder import drawn_from
from fusion.end_to_end.pretraining.config import PretrainConfig
from fusion.end_to_end.pretraining.losses import PretrainingLosses
from fusion.end_to_end.pretraining.model import FRAMES_PER_SECOND, PretrainingModel, SpeechBatch
from fusion.end_to_end.pretraining.sources import SpeechSource
from fusion.training.checkpoint import (
    HEAD,
    OPTIMIZER,
    Checkpoint,
    EpochScores,
    TrainingState,
    fitting,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
)
from fusion.training.interrupt import StopRequested, never_stop
from fusion.training.loop import SAVE_EVERY_S
from fusion.training.loss_monitor import LossNotFinite, LossRecord
from fusion.training.steps import PRECISIONS, TOTAL, build_optimizer, set_learning_rate

TRAIN, DEV = 0x5E1F, 0xDE1F  # parts of the random seed
# Losses of an epoch, each a mean over masked frames; `perplexity` is a mean over batches.
CONTRASTIVE, DIVERSITY, PERPLEXITY, ACCURACY = "contrastive", "diversity", "perplexity", "accuracy"
COLLAPSED_SHARE = 0.02  # of all code vectors; 12.8 of 640: fewer than seven in use in each of two groups
COLLAPSED_FALL = 0.25  # of the perplexity of the first epoch


class PretrainingProgress(Protocol):
    """Progress callbacks of a pre-training."""

    def note(self, note: str) -> None:
        """Receives a note to print."""
        ...

    def start(self, fold: str, steps: int) -> None:
        """Receives the start of a fold and its number of steps."""
        ...

    def step(self, done: int) -> None:
        """Receives the number of finished steps."""
        ...

    def epoch(self, scores: EpochScores) -> None:
        """Receives the losses of an epoch."""
        ...

    def end(self, scores: EpochScores) -> None:
        """Receives the losses of the last epoch of a fold."""
        ...


@dataclass(frozen=True, kw_only=True)
class PretrainedModel:
    """The result of a pre-training; the model holds the weights of the last step.

    Attributes:
        curves: losses of every epoch on the training and the development subset.
        steps: number of steps.
        seconds: training time, over all resumed runs.
        peak_bytes: peak memory: of tensors on a GPU, of the whole process on a CPU.
    """

    curves: Sequence[EpochScores]
    steps: int
    seconds: float
    peak_bytes: int


def pretrain_fold(
    model: PretrainingModel,
    source: SpeechSource,
    train: Indices,
    dev: Indices,
    config: PretrainConfig,
    *,
    fold: str,
    identity: Mapping[str, Mapping[str, Any]],
    checkpoint: Path | None = None,
    save_every_s: float = SAVE_EVERY_S,
    progress: PretrainingProgress | None = None,
    stopping: StopRequested = never_stop,
) -> PretrainedModel:
    """Pre-trains a model on the training subset of one fold; it moves to the device of the source.

    The file of the checkpoint remains until the caller deletes it.

    Args:
        model: model to train.
        source: source of the speech.
        train: utterances of the training subset, int64 ``(n,)``, each of at least `PretrainConfig.mask_length` frames.
        dev: utterances of the development subset, whose losses are recorded, likewise.
        config: settings.
        fold: name of the fold, for progress.
        identity: everything that decides the result; a checkpoint with another identity is refused.
        checkpoint: file of the checkpoint; an existing one is resumed.
        save_every_s: least time between two writes of the checkpoint, in seconds; 0 writes it after every step.
        progress: receives steps and epochs.
        stopping: called after every step; when it returns True, the checkpoint is written and the training stops.

    Raises:
        KeyboardInterrupt: if `stopping` returned True.
        MmerError: if a loss is not finite, or the checkpoint belongs to a different training or cannot be read.
    """
    reset_peak(source.device)
    training = _Training(model, source, train, dev, config, identity=identity, path=checkpoint, progress=progress)
    training.save_every_s, training.stopping = save_every_s, stopping
    if progress is not None:
        progress.start(fold, training.steps)
    if checkpoint is not None and checkpoint.exists():
        training.resume(checkpoint)
    while not training.state.finished:
        training.epoch()
    return PretrainedModel(
        curves=training.state.curves,
        steps=training.state.step,
        seconds=training.state.seconds,
        peak_bytes=peak_memory(source.device),
    )


def collapsed_perplexity(curves: Sequence[EpochScores], codes: int) -> tuple[str, float] | None:
    """Returns the subset and the perplexity of the last epoch that show a collapse of the codes; None without one.

    On the training subset the perplexity is of probabilities, which may stay high while few codes are selected; on the
    development subset it is of the selected codes.

    Args:
        curves: losses of the epochs so far.
        codes: number of code vectors of all groups, the highest perplexity.
    """
    for subset in ("dev", "train"):
        values = [(scores.dev if subset == "dev" else scores.losses).get(PERPLEXITY) for scores in curves]
        first, last = values[0], values[-1]
        if first is None or last is None:
            continue
        if last < COLLAPSED_SHARE * codes or last < COLLAPSED_FALL * first:
            return subset, last
    return None


class _Training:
    """A pre-training in progress."""

    def __init__(
        self,
        model: PretrainingModel,
        source: SpeechSource,
        train: Indices,
        dev: Indices,
        config: PretrainConfig,
        *,
        identity: Mapping[str, Mapping[str, Any]],
        path: Path | None,
        progress: PretrainingProgress | None,
    ) -> None:
        self.model, self.source, self.config = model.to(source.device), source, config
        self.train, self.dev, self.identity, self.path, self.progress = train, dev, identity, path, progress
        self.optimizer = build_optimizer(model, name="adamw", lr=config.lr, weight_decay=config.weight_decay)
        self.scaler = torch.amp.GradScaler(source.device.type, enabled=config.precision == "float16")
        self.lengths = np.minimum(source.frames(train), int(config.max_seconds * FRAMES_PER_SECOND))
        batches = len(self._batches(1))
        self.steps, self.schedule = config.total_steps(batches), config.schedule(batches)
        self.state, self.collapsed = TrainingState(), False
        self.save_every_s, self.stopping = SAVE_EVERY_S, never_stop
        self.timed = self.saved = time.monotonic()

    def resume(self, path: Path) -> None:
        """Loads a checkpoint."""
        checkpoint = load_checkpoint(path)
        checkpoint.check(self.identity, path, {"training": asdict(PretrainConfig())})
        self.state = checkpoint.progress
        with fitting(path):
            self.model.load_state_dict(checkpoint.tensors[HEAD])
            if not self.state.finished:
                restore_optimizer(self.optimizer, checkpoint.tensors[OPTIMIZER])
                self.scaler.load_state_dict(self.state.scaler)
        if self.progress is not None:
            self.progress.step(self.state.step)

    def epoch(self) -> None:
        """Trains the rest of an epoch and records its losses."""
        record = LossRecord(self.state.epoch + 1, self.state.sums)
        try:
            self._train(record)
            record.flush()
            dev = self._dev_losses(record.epoch)
        except LossNotFinite as error:
            half = "" if self.config.precision == "float32" else " or train in float32"
            raise MmerError(f"{error}; lower --lr ({self.config.lr}){half}") from error
        scores = EpochScores(epoch=record.epoch, losses=record.means, dev=dev)
        self.state.curves.append(scores)
        self.state.epoch, self.state.batch, self.state.sums = record.epoch, 0, {}
        self.state.finished = self.state.step >= self.steps
        self._report(scores)
        if self.state.finished or time.monotonic() - self.saved >= self.save_every_s:
            self._save()

    def _train(self, record: LossRecord) -> None:
        self.model.train()
        remaining = self._batches(self.state.epoch + 1)[self.state.batch :][: self.steps - self.state.step]
        with closing(self.source.batches(remaining)) as batches:
            for batch in batches:
                losses = self._step(batch)
                self.state.step += 1
                self.state.batch += 1
                record.add(self.state.batch, losses)
                if self.progress is not None:
                    self.progress.step(self.state.step)
                stop_requested = self.stopping()
                if stop_requested or time.monotonic() - self.saved >= self.save_every_s:
                    record.flush()
                    self.state.sums = record.sums
                    self._save()
                if stop_requested:
                    raise KeyboardInterrupt

    def _step(self, batch: SpeechBatch) -> dict[str, Tensor]:
        config, step = self.config, self.state.step
        set_learning_rate(self.optimizer, self.schedule.rate(step))
        self.model.model.set_gumbel_temperature(config.temperature(step))
        self.optimizer.zero_grad()
        with drawn_from(config.seed, TRAIN, step, device=self.source.device):
            losses = self.model(batch, config, PRECISIONS[config.precision])
            torch.autograd.backward(self.scaler.scale(losses.loss / losses.frames))
        scaled: Any = self.optimizer  # a scaler reads its groups and calls its step
        if config.clip:
            self.scaler.unscale_(scaled)
            nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        self.scaler.step(scaled)
        self.scaler.update()
        return _by_frame(losses)

    def _dev_losses(self, epoch: int) -> dict[str, float]:
        """Computes the losses of the development subset, with the same masks in every epoch."""
        self.model.eval()
        order = scoring_batches(self.source.frames(self.dev), batch_size=self.config.batch_size)
        groups, sums, frames = [self.dev[group] for group in order], dict[str, float](), 0
        with torch.inference_mode(), closing(self.source.batches(groups)) as batches:
            for number, batch in enumerate(batches):
                with drawn_from(self.config.seed, DEV, number, device=self.source.device):
                    losses = self.model(batch, self.config, torch.float32)
                for name, value in _by_frame(losses).items():
                    sums[name] = sums.get(name, 0.0) + float(value) * losses.frames
                frames += losses.frames
        if not all(math.isfinite(value) for value in sums.values()):
            raise LossNotFinite(f"the losses of dev are not finite after epoch {epoch}")
        return {name: value / frames for name, value in sums.items()}

    def _report(self, scores: EpochScores) -> None:
        if self.progress is None:
            return
        self.progress.epoch(scores)
        if not self.collapsed and (found := collapsed_perplexity(self.state.curves, self.model.codes)):
            self.collapsed = True
            subset, perplexity = found
            self.progress.note(
                f"code perplexity on {subset} is {perplexity:.1f} of {self.model.codes} in epoch {scores.epoch}: "
                "the codes collapse and teach little; lower --lr, or raise diversity_weight by --set"
            )

    def _save(self) -> None:
        now = time.monotonic()
        self.state.seconds += now - self.timed
        self.timed = self.saved = now
        if self.path is None:
            return
        tensors = {HEAD: self.model.state_dict()}
        if not self.state.finished:
            tensors[OPTIMIZER] = optimizer_tensors(self.optimizer)
            self.state.scaler = self.scaler.state_dict()
        Checkpoint(config=self.identity, progress=self.state, tensors=tensors).save(self.path)

    def _batches(self, epoch: int) -> list[Indices]:
        config = self.config
        batches = training_batches(self.lengths, batch_size=config.batch_size, data_seed=config.data_seed, epoch=epoch)
        return [self.train[batch] for batch in batches]


def _by_frame(losses: PretrainingLosses) -> dict[str, Tensor]:
    """Returns the losses of a batch, each divided by its number of masked frames."""
    return {
        CONTRASTIVE: losses.contrastive / losses.frames,
        DIVERSITY: losses.diversity / losses.frames,
        PERPLEXITY: losses.perplexity,
        ACCURACY: losses.accuracy,
        TOTAL: losses.loss.detach() / losses.frames,
    }
