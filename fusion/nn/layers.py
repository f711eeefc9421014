"""What every head shares: the adapter before it, the mix of stacked layers, pooling over valid rows.

Batch normalization whose statistics are those of valid rows only, whatever the padding (systems.md M-9).

Takes features to mean 0 and variance 1 in each dimension, as the training part of a fold has them.

Hand-made features need it: the first coefficient of 39 MFCCs deviates by about 190 on RAVDESS, the second differences
of the last ones by less than 1.
"""

import numpy as np
import torch
from torch import Tensor, nn

from fusion.head import HeadConfig, HeadInputs, TrainingRows
from fusion.nn.dropout import Dropout

CONSTANT = 1e-6  # a dimension that deviates less is only centred


class MaskedBatchNorm(nn.Module):
    """Normalizes each channel over the valid rows of a batch (Ioffe and Szegedy, 2015, arXiv:1502.03167).

    Parameters, buffers and results are those of torch's ``BatchNorm1d`` over the valid rows alone. Sums over masked
    rows instead of a selection keep every shape fixed; running statistics are written in place, so that stacked ones
    are updated too.

    Args:
        dim: channels.
        momentum: share of a batch in the running statistics.
        eps: added to the variance.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, dim: int, *, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum = momentum
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_var", torch.ones(dim))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Returns ``(batch, rows, dim)`` from the same and bool ``(batch, rows)``."""
        x = x.to(torch.promote_types(x.dtype, torch.float32))  # sums of float16 overflow
        mean, variance = self._statistics(x, mask) if self.training else (self.running_mean, self.running_var)
        return (x - mean) * (self.weight * (variance + self.eps).rsqrt()) + self.bias

    def _statistics(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Gives mean and variance of the valid rows, and remembers them."""
        count = mask.sum()
        padding = ~mask[..., None]
        mean = x.masked_fill(padding, 0).sum(dim=(0, 1)) / count.clamp(min=1)
        squares = (x - mean).masked_fill(padding, 0).square().sum(dim=(0, 1))
        share = self.momentum * (count > 0)  # a batch without a valid row teaches nothing
        self._remember(self.running_mean, mean, share)
        self._remember(self.running_var, squares / (count - 1).clamp(min=1), share)
        return mean, squares / count.clamp(min=1)

    @staticmethod
    def _remember(running: Tensor, seen: Tensor, share: Tensor) -> None:
        running.add_(share * (seen.detach() - running))


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


class Adapter(nn.Module):
    """The residual adapter that stands between frozen features and a head; the identity at step 0.

    Without it, a loss that reads frozen features trains nothing but itself.
    """

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.inner = nn.Linear(dim, dim)
        self.outer = nn.Linear(dim, dim)
        self.dropout = Dropout(dropout)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``(batch, rows, dim)`` from the same."""
        change = self.outer(nn.functional.gelu(self.inner(self.norm(x))))
        adapted: Tensor = x + self.dropout(change)
        return adapted


class LayerMix(nn.Module):
    """A learned weighted sum over the layers of a stacked stream (SUPERB, Yang et al., 2021, arXiv:2105.01051)."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(layers))

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``(batch, rows, dim)`` from ``(batch, rows, layers, dim)``."""
        return torch.einsum("brld,l->brd", x, self.scores.softmax(dim=0))


class InputProjection(nn.Module):
    """Takes the cached rows of one role to the width of a head: standardizes, mixes layers, projects, adapts.

    Args:
        shape: of one row, ``(dim,)`` or ``(layers, dim)``.
        dim: width of the head; no projection where the rows have it already.
        adapter: whether an `Adapter` stands there.
        dropout: of the adapter.
        standardize: role whose training rows say how to standardize; as they are if empty.
    """

    def __init__(
        self, shape: tuple[int, ...], *, dim: int, adapter: bool, dropout: float, standardize: str = ""
    ) -> None:
        super().__init__()
        self.scaling = Standardize(standardize, shape) if standardize else nn.Identity()
        self.mix = LayerMix(shape[0]) if len(shape) == 2 else nn.Identity()
        self.project = nn.Linear(shape[-1], dim) if shape[-1] != dim else nn.Identity()
        self.adapter = Adapter(dim, dropout) if adapter else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``(batch, rows, dim)`` from ``(batch, rows, ...)``."""
        adapted: Tensor = self.adapter(self.project(self.mix(self.scaling(x))))
        return adapted


def input_projection(config: HeadConfig, inputs: HeadInputs, role: str, *, dim: int) -> InputProjection:
    """Builds the front that a head's configuration asks for."""
    standardize = role if config.standardize else ""
    return InputProjection(
        inputs.shapes[role], dim=dim, adapter=config.adapter, dropout=config.dropout, standardize=standardize
    )


class Pool(nn.Module):
    """Pools the valid rows of each utterance to one vector; where there are none, a vector that may be learned.

    Heads learn it (C-3) where modality dropout shows them what is absent, and take 0 where training never would.

    Args:
        dim: width of a row.
        kind: ``mean`` or ``max``.
        learned: whether the vector of an absent modality is a parameter; 0 otherwise.
    """

    absent: Tensor

    def __init__(self, dim: int, *, kind: str, learned: bool) -> None:
        super().__init__()
        if kind not in POOLING:
            raise ValueError(f"pooling must be one of {', '.join(POOLING)}, got {kind!r}")
        self.kind = kind
        if learned:
            self.absent = nn.Parameter(torch.zeros(dim))
        else:
            self.register_buffer("absent", torch.zeros(dim), persistent=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Returns ``(batch, dim)`` from ``(batch, rows, dim)`` and bool ``(batch, rows)``."""
        return torch.where(mask.any(dim=1, keepdim=True), POOLING[self.kind](x, mask), self.absent)


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Averages the valid rows, ``(batch, dim)``; 0 where there are none."""
    total = x.masked_fill(~mask[..., None], 0).sum(dim=1)
    return total / mask.sum(dim=1, keepdim=True).clamp(min=1)


def masked_max(x: Tensor, mask: Tensor) -> Tensor:
    """Takes the greatest of the valid rows in each dimension, ``(batch, dim)``."""
    return x.masked_fill(~mask[..., None], lowest(x)).amax(dim=1)


def lowest(x: Tensor) -> float:
    """Gives the least number of a type, which stands for minus infinity where a softmax or a gradient follows."""
    return torch.finfo(x.dtype).min


POOLING = {"mean": masked_mean, "max": masked_max}
