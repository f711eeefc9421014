"""Keeps the losses of an epoch without making the device wait at every batch, and notices one that is not finite."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from cache.errors import MmerError

Sums = dict[str, tuple[float, int]]

LOOK_EVERY = 50  # batches: each look makes a GPU wait


class LossNotFinite(MmerError):
    """A loss is infinite or not a number."""


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
            self.look()

    def look(self) -> None:
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
