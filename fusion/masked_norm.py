"""Batch normalization whose statistics are those of valid rows only, whatever the padding (systems.md M-9)."""

import torch
from torch import Tensor, nn


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
