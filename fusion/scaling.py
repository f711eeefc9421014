"""Takes features to mean 0 and variance 1 in each dimension, as the training part of a fold has them.

Hand-made features need it: the first coefficient of 39 MFCCs deviates by about 190 on RAVDESS, the second differences
of the last ones by less than 1.
"""

import numpy as np
import torch
from torch import Tensor, nn

from fusion.inputs import TrainingRows

CONSTANT = 1e-6  # a dimension that deviates less is only centred


class Standardize(nn.Module):
    """The identity until `learn_scales` tells it of a training part.

    Args:
        role: of the stream.
        shape: of one row, ``(dim,)`` or ``(layers, dim)``.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, role: str, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.role = role
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``(batch, rows, ...)`` from the same."""
        return (x - self.mean) * self.scale

    def learn(self, rows: TrainingRows) -> None:
        """Takes mean and deviation over all rows, summed in float64, utterance by utterance."""
        count, mean, squares = 0, np.zeros(self.mean.shape), np.zeros(self.mean.shape)
        for place in range(len(rows)):
            values = rows.rows(self.role, place).astype(np.float64)
            if len(values):  # Chan, Golub and LeVeque (1983): sums of squares would cancel
                own, seen, count = values.mean(axis=0), count, count + len(values)
                step = own - mean
                mean = mean + step * len(values) / count
                squares = squares + ((values - own) ** 2).sum(axis=0) + step**2 * seen * len(values) / count
        deviation = np.sqrt(squares / max(1, count))
        self.mean.copy_(torch.from_numpy(mean))
        self.scale.copy_(torch.from_numpy(1 / np.where(deviation > CONSTANT, deviation, 1)))


def learn_scales(head: nn.Module, rows: TrainingRows) -> None:
    """Tells every `Standardize` of a head of the training part of its fold."""
    for module in head.modules():
        if isinstance(module, Standardize):
            module.learn(rows)
