"""Keeps the losses of an epoch without making the device wait at every batch, and notices one that is not finite.

Why a training stopped: features that are no numbers, or a rate that is too high.
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
from fusion.training.config import TrainConfig
from fusion.training.evaluate import SCORING_BATCH

Sums = dict[str, tuple[float, int]]
LOOK_EVERY = 50  # batches: each look makes a GPU wait


class LossNotFinite(MmerError):
    """A loss is infinite or not a number."""


def explain_divergence(error: LossNotFinite, config: TrainConfig, bad: str) -> str:
    """Says why a loss is not finite, and the way out.

    Args:
        error: that stopped a training.
        config: of the training.
        bad: what `find_nonfinite_feature` says of what was trained and scored on.
    """
    if bad:
        return f"{error}; {bad}"
    half = "" if config.precision == "float32" else " or train in float32"
    return f"{error}; lower lr ({config.lr}){half}"


def find_nonfinite_feature(source: BatchSource, indices: Indices, roles: Collection[str]) -> str:
    """Names the first utterance with a feature that is not finite, and its stream; empty if there is none."""
    groups = [indices[group] for group in scoring_batches(source.lengths(indices, roles), batch_size=SCORING_BATCH)]
    for group, batch in zip(groups, source.batches(groups, roles), strict=True):
        for role, rows in batch.features.items():
            bad = np.flatnonzero(~rows.flatten(1).isfinite().all(dim=1).cpu().numpy())
            if len(bad):
                return source.nonfinite_text(int(group[bad[0]]), role)
    return ""


class LossRecord:
    """The losses of one epoch.

    Args:
        epoch: counted from 1, for messages.
        sums: sum and count of each loss over the batches that were looked at before, by name.
    """

    def __init__(self, epoch: int, sums: Sums) -> None:
        self.epoch = epoch
        self.sums = dict(sums)
        self._waiting: list[tuple[int, Mapping[str, Tensor]]] = []

    @property
    def means(self) -> dict[str, float]:
        """Mean of each loss over the batches that had it, as far as they were looked at."""
        return {name: total / count for name, (total, count) in self.sums.items()}

    def add(self, batch: int, losses: Mapping[str, Tensor]) -> None:
        """Notes the losses of a batch, scalars by name; looks at them now and then.

        Raises:
            LossNotFinite: if one of those looked at is infinite or not a number, naming batch and epoch.
        """
        self._waiting.append((batch, {name: loss.detach() for name, loss in losses.items()}))
        if len(self._waiting) >= LOOK_EVERY:
            self.flush()

    def flush(self) -> None:
        """Adds all that was noted to the sums.

        Raises:
            LossNotFinite: if a loss is infinite or not a number, naming batch and epoch.
        """
        if not self._waiting:
            return
        noted = [(batch, name) for batch, losses in self._waiting for name in losses]
        values = torch.stack([loss.float() for _, losses in self._waiting for loss in losses.values()]).tolist()
        self._waiting.clear()
        for (batch, name), value in zip(noted, values, strict=True):
            self.count(batch, name, value)

    def count(self, batch: int, name: str, value: float) -> None:
        """Adds one loss of a batch to its sum.

        Raises:
            LossNotFinite: if it is infinite or not a number, naming batch and epoch.
        """
        if not math.isfinite(value):
            raise LossNotFinite(f"the loss {name} is {value} in batch {batch} of epoch {self.epoch}")
        total, count = self.sums.get(name, (0.0, 0))
        self.sums[name] = (total + value, count + 1)
