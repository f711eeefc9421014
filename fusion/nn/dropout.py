"""Dropout of elements and of spans of rows, with masks that depend only on (seed, step, site).

The masks are the same in every engine that trains a head. A mask is a hash of the position of each element, so that
models of one stack, each with its own seed and rate, get the same masks as when each is trained separately. The hash is
lowbias32 (Wellons, 2018, https://nullprogram.com/blog/2018/07/31), in wrapping 32-bit integers.

Spans of rows are hidden as in SpecAugment along time (Park et al., 2019, arXiv:1904.08779). Deviation: the rows are
cached features, and a hidden row is 0.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

STEP, SITE = 0x9E3779B1, 0x85EBCA6B  # odd multipliers, so that different steps and sites have different keys
SPAN = 10  # rows of a span, 0.2 s of wav2vec 2.0, as in its fine-tuning (arXiv:2006.11477, appendix B)


class Dropout(nn.Module):
    """Dropout that zeroes elements at a rate and scales the others up; the identity in eval mode.

    What models of a stack differ in are buffers, so that they can be stacked; `seed_dropout` sets the site.
    """

    threshold: Tensor  # 16 bits of a hash below it drop an element
    scale: Tensor  # of elements that stay
    seed: Tensor
    step: Tensor

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"dropout rate must lie in [0, 1), got {rate}")
        self.active = rate > 0
        self.site = 0
        share = torch.tensor(rate)
        threshold = (share * (1 << 16) - (1 << 15)).round().to(torch.int16)
        self.register_buffer("threshold", threshold, persistent=False)
        self.register_buffer("scale", 1 / (1 - share), persistent=False)
        self.register_buffer("seed", torch.tensor(0), persistent=False)
        self.register_buffer("step", torch.tensor(0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``x`` with dropped elements, of the same shape."""
        if not self.training or not self.active:
            return x
        return x * self._kept(x).to(x.dtype).mul_(self.scale)

    def uniform(self, x: Tensor) -> Tensor:
        """Returns numbers in [0, 1) of the shape and type of ``x``.

        They come from the same hash as a mask.
        """
        return (self._hashed(x.numel(), x.device).view(x.shape) & 0xFFFFFF).to(x.dtype) / (1 << 24)

    def _kept(self, x: Tensor) -> Tensor:
        """Returns True for each element that stays; 16 bits, half a hash, decide each."""
        halves = self._hashed((x.numel() + 1) // 2, x.device).view(torch.int16)[: x.numel()].view(x.shape)
        return halves >= self.threshold

    def _hashed(self, count: int, device: torch.device) -> Tensor:
        key = _mix((self.seed + _signed(STEP) * self.step).to(torch.int32) ^ _signed(SITE * self.site))
        return _mix(torch.arange(count, dtype=torch.int32, device=device) ^ key)


def seed_dropout(head: nn.Module, seed: int) -> None:
    """Sets the site and the seed of every dropout of a head."""
    sites = [module for module in head.modules() if isinstance(module, Dropout)]
    for site, module in enumerate(sites, start=1):
        module.site = site
        module.seed.fill_(seed)


def set_step(head: nn.Module, step: int) -> None:
    """Sets the training step of every dropout of a head."""
    for module in head.modules():
        if isinstance(module, Dropout):
            module.step.fill_(step)


class SpanMask(nn.Module):
    """Dropout of rows in spans of ten that may overlap; the identity in eval mode.

    Args:
        share: mean share of hidden rows, in [0, 1).
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        if not 0 <= share < 1:
            raise ValueError(f"span_mask must lie in [0, 1), got {share}")
        # Probability that a span starts at a row. A row is visible if no span starts at it or at the nine rows before.
        self.start_probability = 1 - (1 - share) ** (1 / SPAN)
        self.draws = Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``x`` with hidden rows, ``(batch, rows, ...)``."""
        if not self.training or not self.start_probability:
            return x
        starts = functional.pad(x.flatten(2)[..., 0], (SPAN - 1, 0))  # spans may start before the first row
        started = (self.draws.uniform(starts) < self.start_probability).cumsum(dim=1)
        hidden = started[:, SPAN - 1 :] > functional.pad(started, (1, 0))[:, : x.shape[1]]
        return torch.where(hidden.view(*hidden.shape, *[1] * (x.ndim - 2)), 0.0, x)


def _signed(value: int) -> int:
    """Returns an integer modulo 2**32 as a signed 32-bit integer."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def _mix(x: Tensor) -> Tensor:
    """Computes the hash of int32 integers.

    It works in place after the first step, because memory traffic dominates its cost.
    """
    x = (x >> 16).bitwise_and_(0xFFFF).bitwise_xor_(x)
    x.mul_(_signed(0x7FEB352D))
    x = (x >> 15).bitwise_and_(0x1FFFF).bitwise_xor_(x)
    x.mul_(_signed(0x846CA68B))
    return (x >> 16).bitwise_and_(0xFFFF).bitwise_xor_(x)
