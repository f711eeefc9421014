"""The global-aware block of GCF2-Net: one gMLP block over the joined rows of all streams.

gMLP: Liu et al., 2021, arXiv:2105.08050. "Global-aware": GLAM (Zhu and Li, 2022, arXiv:2204.05571). In GCF2-Net (2023,
doi:10.3389/fnins.2023.1183132) it is an inventory of layers; decisions G-5 to G-8 read it as this block.

A gate mixes rows along time, per channel. `SlotGate` sees everything: each stream owns a span of fixed slots, so that
what a position means does not depend on padding. `LocalGate` takes any length and sees 15 rows to each side.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional

EXPANSION = 4  # 768 -> 3072, as printed
KERNEL = 31  # of `LocalGate`
START = 1e-3  # spatial weights start within this over the rows they mix, biases at 1, as in the public gMLP package
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"identity": lambda gate: gate, "tanh": torch.tanh}


class GlobalAware(nn.Module):
    """Expands, gates one half of the channels by the other mixed along time, and projects back.

    Args:
        dim: width of a row.
        gate: a `SlotGate` or `LocalGate` over ``EXPANSION / 2 * dim`` channels.
        residual: whether the input is added (G-6).
    """

    def __init__(self, dim: int, gate: nn.Module, *, residual: bool = True) -> None:
        super().__init__()
        half = gated_channels(dim)
        self.norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, 2 * half)
        self.gate_norm = nn.LayerNorm(half)
        self.gate = gate
        self.project = nn.Linear(half, dim)
        self.residual = residual

    def forward(self, x: Tensor, masks: Sequence[Tensor]) -> Tensor:
        """Returns ``(batch, rows, dim)``.

        Args:
            x: the streams one after another along time, ``(batch, rows, dim)``.
            masks: of each stream in that order, bool ``(batch, rows of it)``.
        """
        passed, gating = functional.gelu(self.expand(self.norm(x))).chunk(2, dim=-1)
        out: Tensor = self.project(passed * self.gate(self.gate_norm(gating), masks))
        return x + out if self.residual else out


class SlotGate(nn.Module):
    """A dense projection over fixed slots (G-8): every valid row sees every other; rows beyond the slots get gate 1.

    Args:
        slots: of each stream, in the order in which they are joined.
        activation: a key of `ACTIVATIONS` (G-7).
    """

    def __init__(self, slots: Sequence[int], *, activation: str = "identity") -> None:
        super().__init__()
        total = sum(slots)
        self.slots = tuple(slots)
        self.firsts = _firsts(slots)
        self.activation = ACTIVATIONS[activation]
        self.weight = nn.Parameter(torch.empty(total, total))
        self.bias = nn.Parameter(torch.ones(total))
        nn.init.uniform_(self.weight, -START / total, START / total)

    def forward(self, x: Tensor, masks: Sequence[Tensor]) -> Tensor:
        """Returns the gate, ``(batch, rows, channels)`` as `x`; the masks are those of `GlobalAware`."""
        rows = [mask.shape[1] for mask in masks]
        used = [min(pair) for pair in zip(rows, self.slots, strict=True)]
        x = zeroed(x, masks)
        if rows == used:
            return self._gate(x, used)
        gates = self._gate(_spans(x, 1, _firsts(rows), used), used).split_with_sizes(used, dim=1)
        beyond = [(0, 0, 0, every - inside) for every, inside in zip(rows, used, strict=True)]
        return torch.cat([functional.pad(gate, pad, value=1) for gate, pad in zip(gates, beyond, strict=True)], dim=1)

    def _gate(self, x: Tensor, used: Sequence[int]) -> Tensor:
        end = self.firsts[-1] + used[-1]
        weight = self.weight[:end, :end]  # first, since each cut has a gradient as large as what it is cut from
        weight = _spans(_spans(weight, 0, self.firsts, used), 1, self.firsts, used)  # (rows, rows)
        bias = _spans(self.bias, 0, self.firsts, used)[:, None]
        # bmm of one expanded matrix: a plain `weight @ x` first copies x transposed
        return self.activation(torch.baddbmm(bias, weight.expand(len(x), -1, -1), x))


class LocalGate(nn.Module):
    """A depthwise convolution over the valid rows, packed: the first audio frame follows the last token.

    Args:
        channels: width of a row.
        activation: a key of `ACTIVATIONS`.
    """

    def __init__(self, channels: int, *, activation: str = "identity") -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.convolution = nn.Conv1d(channels, channels, KERNEL, padding=KERNEL // 2, groups=channels)
        nn.init.uniform_(self.convolution.weight, -START / KERNEL, START / KERNEL)
        nn.init.ones_(self.convolution.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, masks: Sequence[Tensor]) -> Tensor:
        """Returns the gate, ``(batch, rows, channels)`` as `x`; the masks are those of `GlobalAware`."""
        order = (~torch.cat(list(masks), dim=1)).int().argsort(dim=1, stable=True)  # (batch, rows), valid ones first
        packed = zeroed(x, masks).take_along_dim(order[..., None], dim=1)
        gate = self.activation(self.convolution(packed.transpose(1, 2)).transpose(1, 2))
        return gate.take_along_dim(order.argsort(dim=1)[..., None], dim=1)


def gated_channels(dim: int) -> int:
    """Gives the width of what a gate mixes in a block of this width."""
    return EXPANSION // 2 * dim


def zeroed(x: Tensor, masks: Sequence[Tensor]) -> Tensor:
    """Gives joined streams with 0 where no row is valid."""
    return x.masked_fill(~torch.cat(list(masks), dim=1)[..., None], 0)


def _firsts(lengths: Sequence[int]) -> list[int]:
    return [0, *accumulate(lengths)][:-1]


def _spans(x: Tensor, dim: int, firsts: Sequence[int], lengths: Sequence[int]) -> Tensor:
    """Gives the spans that begin at `firsts`, one after another."""
    return torch.cat([x.narrow(dim, first, length) for first, length in zip(firsts, lengths, strict=True)], dim=dim)
