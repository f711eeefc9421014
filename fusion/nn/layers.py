"""Layers shared by heads: input projection with standardization and adapter, masked normalization, pooling.

Batch normalization has statistics over valid rows only (docs/decisions.md#m-9).

Standardization scales each dimension to mean 0 and variance 1 over the training subset of a fold. Hand-crafted features
need it: on RAVDESS the first of 39 MFCC features has a standard deviation of about 190, the second differences of the
last coefficients less than 1.
"""

from collections.abc import MutableMapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fusion.head_config import HeadConfig, HeadInputs, TrainingRows
from fusion.nn.dropout import Dropout

CONSTANT = 1e-6  # a dimension with a smaller standard deviation is centred but not scaled


class MaskedBatchNorm(nn.Module):
    """Batch normalization over valid rows (Ioffe and Szegedy, 2015, arXiv:1502.03167).

    Parameters, buffers and results equal those of torch's ``BatchNorm1d`` over the valid rows. Sums over masked rows
    instead of a selection keep every shape fixed. Running statistics are written in place, so that the statistics of
    stacked models are updated too.

    Args:
        dim: number of channels.
        momentum: share of a batch in the running statistics.
        eps: value added to the variance.
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
        """Computes mean and variance of valid rows; updates running statistics."""
        count = mask.sum()
        padding = ~mask[..., None]
        mean = x.masked_fill(padding, 0).sum(dim=(0, 1)) / count.clamp(min=1)
        squares = (x - mean).masked_fill(padding, 0).square().sum(dim=(0, 1))
        share = self.momentum * (count > 0)  # a batch without a valid row changes nothing
        self._update(self.running_mean, mean, share)
        self._update(self.running_var, squares / (count - 1).clamp(min=1), share)
        return mean, squares / count.clamp(min=1)

    @staticmethod
    def _update(running: Tensor, current: Tensor, share: Tensor) -> None:
        running.add_(share * (current.detach() - running))


class Standardize(nn.Module):
    """Scaling of each dimension to mean 0 and variance 1; the identity until `learn` reads a training subset.

    Args:
        role: role of the stream.
        shape: shape of one row, ``(dim,)`` or ``(layers, dim)``.
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

    def learn(self, rows: TrainingRows, known: MutableMapping[str, Any] | None = None) -> None:
        """Computes mean and standard deviation over all rows, in float64, unless they are known by role."""
        known = {} if known is None else known
        if self.role not in known:
            known[self.role] = self._statistics(rows)
        mean, deviation = known[self.role]
        self.mean.copy_(torch.from_numpy(mean))
        self.scale.copy_(torch.from_numpy(1 / np.where(deviation > CONSTANT, deviation, 1)))

    def _statistics(self, rows: TrainingRows) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        count, mean, squares = 0, np.zeros(self.mean.shape), np.zeros(self.mean.shape)
        for index in range(len(rows)):
            values = rows.rows(self.role, index).astype(np.float64)
            if len(values):  # Chan, Golub and LeVeque (1983): plain sums of squares would cancel
                current, before, count = values.mean(axis=0), count, count + len(values)
                step = current - mean
                mean = mean + step * len(values) / count
                squares = squares + ((values - current) ** 2).sum(axis=0) + step**2 * before * len(values) / count
        return mean, np.sqrt(squares / max(1, count))


def learn_scales(head: nn.Module, rows: TrainingRows, known: MutableMapping[str, Any] | None = None) -> None:
    """Computes the scales of every `Standardize` of a head.

    Args:
        head: head with such modules.
        rows: training subset of the fold.
        known: role -> mean and standard deviation that other heads learned from the same rows; new ones are added.
    """
    for module in head.modules():
        if isinstance(module, Standardize):
            module.learn(rows, known)


class Adapter(nn.Module):
    """The residual adapter between frozen features and a head (C-1); the identity at step 0.

    Without it, an auxiliary loss that reads frozen features would train only its own layer.
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
        residual = self.outer(nn.functional.gelu(self.inner(self.norm(x))))
        adapted: Tensor = x + self.dropout(residual)
        return adapted


class LayerMix(nn.Module):
    """A learned weighted sum over the layers of a stream (SUPERB, Yang et al., 2021, arXiv:2105.01051)."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(layers))

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``(batch, rows, dim)`` from ``(batch, rows, layers, dim)``."""
        return torch.einsum("brld,l->brd", x, self.scores.softmax(dim=0))


class InputProjection(nn.Module):
    """The path from cached rows of one role to the width of a head: standardize, mix layers, project, adapt.

    Args:
        shape: shape of one row, ``(dim,)`` or ``(layers, dim)``.
        dim: width of the head; rows that have this width already are not projected.
        adapter: whether an `Adapter` ends the path.
        dropout: dropout rate of the adapter.
        standardize: role whose training rows define the scales; no standardization if empty.
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

    @property
    def learns(self) -> bool:
        """True if the path has trained parameters."""
        return next(self.parameters(), None) is not None


def input_projection(config: HeadConfig, inputs: HeadInputs, role: str, *, dim: int) -> InputProjection:
    """Builds the input projection of a role from the configuration of a head."""
    standardize = role if config.standardize else ""
    adapter = config.adapter if role not in inputs.tuned else config.tuned_adapter
    return InputProjection(
        inputs.shapes[role], dim=dim, adapter=adapter, dropout=config.dropout, standardize=standardize
    )


class Pool(nn.Module):
    """Pooling of the valid rows of each utterance to one vector, with a vector for utterances without valid rows.

    Heads learn that vector (C-3) if modality dropout is on. It is 0 otherwise, because training would never update it.

    Args:
        dim: width of a row.
        kind: ``mean``, ``max``, ``meanstd`` (mean and standard deviation) or ``attention`` (the same, weighted by
            learned attention: attentive statistics, Okabe et al., 2018, arXiv:1803.10963).
        learned: whether the vector of an absent modality is a parameter; 0 otherwise.

    Attributes:
        width: width of the pooled vector, ``dim`` or twice that.
    """

    absent: Tensor

    def __init__(self, dim: int, *, kind: str, learned: bool) -> None:
        super().__init__()
        if kind not in POOLING:
            raise ValueError(f"pooling must be one of {', '.join(POOLING)}, got {kind!r}")
        self.kind = kind
        self.width = pooled_width(dim, kind)
        self.scores = RowScores(dim) if kind == "attention" else None
        if learned:
            self.absent = nn.Parameter(torch.zeros(self.width))
        else:
            self.register_buffer("absent", torch.zeros(self.width), persistent=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Returns ``(batch, width)`` from ``(batch, rows, dim)`` and a bool mask."""
        if self.scores is None:
            pooled = POOLING[self.kind](x, mask)
        else:
            pooled = weighted_statistics(x, self.scores(x, mask), mask)
        return self.filled(pooled, mask.any(dim=1))

    def filled(self, pooled: Tensor, present: Tensor) -> Tensor:
        """Returns ``(batch, width)``: the absent vector where `present`, bool ``(batch,)``, is False."""
        return torch.where(present[:, None], pooled, self.absent)


def pooled_width(dim: int, kind: str) -> int:
    """Returns the width of the vector that `Pool` gives for rows of width `dim`."""
    return 2 * dim if kind in STATISTICS else dim


class RowScores(nn.Module):
    """The share of each valid row in a pooled vector, learned by one hidden layer."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = min(dim, MAX_SCORE_WIDTH)
        self.inner = nn.Linear(dim, hidden)
        self.outer = nn.Linear(hidden, 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Returns shares ``(batch, rows)`` that sum to 1 over the valid rows."""
        scores = self.outer(torch.tanh(self.inner(x.masked_fill(~mask[..., None], 0))))[..., 0]
        shares: Tensor = scores.masked_fill(~mask, lowest(x)).softmax(dim=1)
        return shares


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Computes the mean of the valid rows, ``(batch, dim)``; 0 without a valid row."""
    total = x.masked_fill(~mask[..., None], 0).sum(dim=1)
    return total / mask.sum(dim=1, keepdim=True).clamp(min=1)


def masked_max(x: Tensor, mask: Tensor) -> Tensor:
    """Computes the maximum of the valid rows in each dimension, ``(batch, dim)``."""
    return x.masked_fill(~mask[..., None], lowest(x)).amax(dim=1)


def masked_statistics(x: Tensor, mask: Tensor) -> Tensor:
    """Computes mean and standard deviation of the valid rows, ``(batch, 2 * dim)``."""
    shares = mask / mask.sum(dim=1, keepdim=True).clamp(min=1)
    return weighted_statistics(x, shares.to(x.dtype), mask)


def weighted_statistics(x: Tensor, shares: Tensor, mask: Tensor) -> Tensor:
    """Computes the weighted mean and standard deviation of the valid rows, ``(batch, 2 * dim)``.

    Args:
        x: rows, ``(batch, rows, dim)``.
        shares: weight of each row, ``(batch, rows)``.
        mask: True where a row is valid, bool ``(batch, rows)``.
    """
    rows = x.masked_fill(~mask[..., None], 0)
    mean = torch.einsum("brd,br->bd", rows, shares)
    centred = (rows - mean[:, None]).masked_fill(~mask[..., None], 0)
    variance = torch.einsum("brd,br->bd", centred.square(), shares)
    return torch.cat([mean, variance.clamp(min=LEAST_VARIANCE).sqrt()], dim=-1)


def lowest(x: Tensor) -> float:
    """Returns the least finite number of a type.

    It replaces minus infinity before a softmax or where a gradient is computed.
    """
    return torch.finfo(x.dtype).min


POOLING = {
    "mean": masked_mean,
    "max": masked_max,
    "meanstd": masked_statistics,
    "attention": masked_statistics,  # of equal shares, in place of those that `RowScores` learns
}
STATISTICS = frozenset({"meanstd", "attention"})
MAX_SCORE_WIDTH = 128
LEAST_VARIANCE = 1e-8  # the square root has no gradient at 0, the variance of a single row
