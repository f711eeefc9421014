"""What every head shares: the adapter before it, the mix of stacked layers, pooling over valid rows."""

import torch
from torch import Tensor, nn

from fusion.dropout import Dropout
from fusion.head import HeadConfig
from fusion.inputs import HeadInputs
from fusion.scaling import Standardize


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


class Front(nn.Module):
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


def front_of(config: HeadConfig, inputs: HeadInputs, role: str, *, dim: int) -> Front:
    """Builds the front that a head's configuration asks for."""
    standardize = role if config.standardize else ""
    return Front(inputs.shapes[role], dim=dim, adapter=config.adapter, dropout=config.dropout, standardize=standardize)


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
