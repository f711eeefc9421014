"""Trained models: the weights of the best epoch, curves and cost."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from fusion.training.checkpoint import EpochScores


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedModel:
    """A trained model: weights of the best epoch, curves and cost.

    Attributes:
        best_epoch: epoch with the best development score, counted from 1.
        curves: losses and scores of every epoch.
        weights: weights of the best epoch, on the CPU, by name.
        seconds: training time, over all resumed runs.
        peak_bytes: peak memory: of tensors on a GPU, of the whole process on a CPU.
        refit: number of epochs of a second training on train and dev, whose weights these are; 0 without one. The best
            epoch and the curves are those of the first training.
    """

    best_epoch: int
    curves: tuple[EpochScores, ...]
    weights: Mapping[str, Tensor]
    seconds: float
    peak_bytes: int
    refit: int = 0

    @property
    def dev(self) -> Mapping[str, float]:
        """The development scores of the best epoch."""
        return self.curves[self.best_epoch - 1].dev
