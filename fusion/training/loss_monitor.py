"""Loss monitor: sums the losses of an epoch, detects a loss that is not finite, and explains it.

Losses stay on the device and are checked every `LOOK_EVERY` batches, because each check makes a GPU wait. A loss
that is not finite results from features that are not finite or from a learning rate that is too high.
"""

import math
from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import Tensor

from cache.errors import MmerError
from fusion.arrays import Indices
from fusion.data.batches import scoring_batches
from fusion.data.features import BatchSource
from fusion.data.views import ViewDraw
from fusion.training.config import TrainConfig
from fusion.training.evaluate import SCORING_BATCH

Sums = dict[str, tuple[float, int]]  # loss name -> sum and count
LOOK_EVERY = 50  # batches


class LossNotFinite(MmerError):
    """A loss is infinite or not a number."""


class TrainingDiverged(MmerError):
    """A training that ended with a loss that is not finite, with its explanation."""


def explain_divergence(error: LossNotFinite, config: TrainConfig, bad: str) -> str:
    """Returns a message that explains why a loss is not finite, with a remedy.

    Args:
        error: error that stopped the training.
        config: configuration of the training.
        bad: result of `find_nonfinite_feature` for the training and development subsets.
    """
    if bad:
        return f"{error}; {bad}"
    half = "" if config.precision == "float32" else " or train in float32"
    return f"{error}; lower lr ({config.lr}){half}"


def find_nonfinite_feature(
    source: BatchSource, indices: Indices, roles: Collection[str], draw: ViewDraw | None = None
) -> str:
    """Returns a message that names the first utterance with a feature that is not finite, and its stream.

    Args:
        source: source of the features.
        indices: utterances to check, int64 ``(n,)``.
        roles: roles to check.
        draw: draw of the views in the epoch that failed.

    Returns:
        The message; empty if all features are finite.
    """
    groups = [indices[group] for group in scoring_batches(source.lengths(indices, roles), batch_size=SCORING_BATCH)]
    for group, batch in zip(groups, source.batches(groups, roles, draw), strict=True):
        for role, rows in batch.features.items():
            bad = np.flatnonzero(~rows.flatten(1).isfinite().all(dim=1).cpu().numpy())
            if len(bad):
                return source.nonfinite_text(int(group[bad[0]]), role)
    return ""


class LossRecord:
    """The losses of one epoch.

    Args:
        epoch: number of the epoch, counted from 1, for messages.
        sums: sum and count of each loss over the batches that were checked before a resume, by name.
    """

    def __init__(self, epoch: int, sums: Sums) -> None:
        self.epoch = epoch
        self.sums = dict(sums)
        self._pending: list[tuple[int, Mapping[str, Tensor]]] = []

    @property
    def means(self) -> dict[str, float]:
        """Mean of each loss over the checked batches that have it."""
        return {name: total / count for name, (total, count) in self.sums.items()}

    def add(self, batch: int, losses: Mapping[str, Tensor]) -> None:
        """Adds the losses of a batch; checks the pending losses every `LOOK_EVERY` batches.

        Args:
            batch: number of the batch, counted from 1.
            losses: scalars by name.

        Raises:
            LossNotFinite: if a checked loss is infinite or not a number; names batch and epoch.
        """
        self._pending.append((batch, {name: loss.detach() for name, loss in losses.items()}))
        if len(self._pending) >= LOOK_EVERY:
            self.flush()

    def flush(self) -> None:
        """Checks the pending losses and adds them to the sums.

        Raises:
            LossNotFinite: if a loss is infinite or not a number; names batch and epoch.
        """
        if not self._pending:
            return
        keys = [(batch, name) for batch, losses in self._pending for name in losses]
        values = torch.stack([loss.float() for _, losses in self._pending for loss in losses.values()]).tolist()
        self._pending.clear()
        for (batch, name), value in zip(keys, values, strict=True):
            self.count(batch, name, value)

    def count(self, batch: int, name: str, value: float) -> None:
        """Adds one loss of a batch to its sum.

        Raises:
            LossNotFinite: if the loss is infinite or not a number; names batch and epoch.
        """
        if not math.isfinite(value):
            raise LossNotFinite(f"the loss {name} is {value} in batch {batch} of epoch {self.epoch}")
        total, count = self.sums.get(name, (0.0, 0))
        self.sums[name] = (total + value, count + 1)
