"""Dropout whose masks follow from (seed, step, site) alone, the same in every engine that trains a head.

A mask is a hash of each element's position, so that models trained in one stack, each with a seed and a rate of its
own, get the very masks that they would get alone. The hash is lowbias32 (Wellons, 2018,
https://nullprogram.com/blog/2018/07/31), in wrapping 32-bit integers.

Hides spans of rows in training, as SpecAugment does along time (Park et al., 2019, arXiv:1904.08779).

On cached features a hidden row is 0. Which rows are hidden follows from (seed, step, site), as the masks of dropout do.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

STEP, SITE = 0x9E3779B1, 0x85EBCA6B  # odd constants that keep steps and sites apart
SPAN = 10  # rows of a span, 0.2 s of wav2vec 2.0, as in its own fine-tuning (arXiv:2006.11477, appendix B)


class Dropout(nn.Module):
    """Zeroes elements at a rate and scales the others up; eval mode passes everything.

    Rate, seed and step are buffers, so that they can be stacked over models; the site is set by `seed_dropout`.
    """

    rate: Tensor
    seed: Tensor
    step: Tensor

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"a dropout rate lies in [0, 1), got {rate}")
        self.active = rate > 0
        self.site = 0
        self.register_buffer("rate", torch.tensor(rate), persistent=False)
        self.register_buffer("seed", torch.tensor(0), persistent=False)
        self.register_buffer("step", torch.tensor(0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``x`` with elements dropped, of the same shape."""
        if not self.training or not self.active:
            return x
        scale = (1 / (1 - self.rate)).to(x.dtype)
        return x * self._kept(x).to(x.dtype).mul_(scale)

    def uniform(self, x: Tensor) -> Tensor:
        """Returns numbers in [0, 1) of the shape and type of ``x``, drawn as a mask of it would be."""
        return (self._hashed(x.numel(), x.device).view(x.shape) & 0xFFFFFF).to(x.dtype) / (1 << 24)

    def _kept(self, x: Tensor) -> Tensor:
        """Tells which elements stay, by 16 bits each: half a hash, and all compared as integers."""
        halves = self._hashed((x.numel() + 1) // 2, x.device).view(torch.int16)[: x.numel()].view(x.shape)
        return halves >= (self.rate * (1 << 16) - (1 << 15)).round().to(torch.int16)

    def _hashed(self, count: int, device: torch.device) -> Tensor:
        key = _mix(
            _wrapped(self.seed + _signed(STEP) * self.step) ^ _wrapped(self.seed.new_tensor(_signed(SITE) * self.site))
        )
        return _mix(torch.arange(count, dtype=torch.int32, device=device) ^ key)


def seed_dropout(head: nn.Module, seed: int) -> None:
    """Gives every dropout of a head its site and the seed of the run."""
    sites = [module for module in head.modules() if isinstance(module, Dropout)]
    for site, module in enumerate(sites, start=1):
        module.site = site
        module.seed.fill_(seed)


def set_step(head: nn.Module, step: int) -> None:
    """Tells every dropout of a head which step of training it is."""
    for module in head.modules():
        if isinstance(module, Dropout):
            module.step.fill_(step)


class SpanMask(nn.Module):
    """Hides a share of the rows, in spans of ten that may overlap; eval mode passes everything.

    Args:
        share: of the rows that are hidden on average, in [0, 1).
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        if not 0 <= share < 1:
            raise ValueError(f"span_mask must lie in [0, 1), got {share}")
        self.starting = 1 - (1 - share) ** (1 / SPAN)  # a row is seen if no span began at it or at nine before it
        self.draws = Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``x`` with rows hidden, ``(batch, rows, ...)``."""
        if not self.training or not self.starting:
            return x
        room = functional.pad(x.flatten(2)[..., 0], (SPAN - 1, 0))  # spans may begin before the first row
        begun = (self.draws.uniform(room) < self.starting).cumsum(dim=1)
        hidden = begun[:, SPAN - 1 :] > functional.pad(begun, (1, 0))[:, : x.shape[1]]
        return torch.where(hidden.view(*hidden.shape, *[1] * (x.ndim - 2)), 0.0, x)


def _signed(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def _wrapped(value: Tensor) -> Tensor:
    """Cuts integers down to 32 bits."""
    return ((value + (1 << 31)) % (1 << 32) - (1 << 31)).to(torch.int32)


def _mix(x: Tensor) -> Tensor:
    """Hashes integers; in place after the first step, since memory is what it costs."""
    x = (x >> 16).bitwise_and_(0xFFFF).bitwise_xor_(x)
    x.mul_(_signed(0x7FEB352D))
    x = (x >> 15).bitwise_and_(0x1FFFF).bitwise_xor_(x)
    x.mul_(_signed(0x846CA68B))
    return (x >> 16).bitwise_and_(0xFFFF).bitwise_xor_(x)
