"""Keeps the losses of an epoch of every model of a stack, without making the device wait at every batch."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fusion.loss_record import LOOK_EVERY, LossNotFinite, LossRecord


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
