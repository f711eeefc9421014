"""How stacked models compute what `vmap` has no rule for, or a slow one: all models folded into the batch.

What an operation gives for an utterance depends on no other utterance of the batch, so that folding is exact.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode


class StackRules(TorchFunctionMode):
    """Where it is active, operations of `RULES` follow the rules."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        rule: Callable[..., Any] = RULES.get(func, func)
        return rule(*args, **(kwargs or {}))


class _Folded(torch.autograd.Function):
    """Applies a function of tensors ``(batch, ...)`` to those of all models at once.

    Nothing but the rule is ever differentiated: it runs outside the `vmap`, where autograd records it as usual.
    """

    @staticmethod
    def forward(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        return function(*tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keeps nothing."""

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], function: Callable[..., Tensor], *tensors: Tensor) -> Any:
        models = info.batch_size
        folded = [
            (one.expand(models, *one.shape) if dim is None else one.movedim(dim, 0)).flatten(0, 1)
            for one, dim in zip(tensors, in_dims[1:], strict=True)
        ]
        made = function(*folded)
        return made.view(models, -1, *made.shape[1:]), 0


def _attend(query: Tensor, key: Tensor, value: Tensor, *, attn_mask: Tensor) -> Tensor:
    def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)

    return _folded(attend, query, key, value, attn_mask)


def _ctc(log_probabilities: Tensor, targets: Tensor, frames: Tensor, characters: Tensor, **how: Any) -> Tensor:
    def losses(log_probabilities: Tensor, targets: Tensor, frames: Tensor, characters: Tensor) -> Tensor:
        return functional.ctc_loss(log_probabilities.transpose(0, 1), targets, frames, characters, **how)

    return _folded(losses, log_probabilities.transpose(0, 1), targets, frames, characters)


class _Linear(torch.autograd.Function):
    """A linear layer of all models; `vmap` itself would add the bias in one more pass over memory."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return functional.linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keeps nothing."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Any:
        x, weight, bias = _by_model(info.batch_size, in_dims, x, weight, bias)
        rows = x.reshape(len(x), -1, x.shape[-1]) if in_dims[0] is not None else x[:1].flatten(1, -2).expand(len(x), -1, -1)
        return torch.baddbmm(bias[:, None], rows, weight.mT).view(*x.shape[:-1], -1), 0


class _LayerNorm(torch.autograd.Function):
    """A layer norm of all models; `vmap` itself would scale and shift in two passes over memory."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        return functional.layer_norm(x, weight.shape, weight, bias, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keeps nothing."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Any:
        x, weight, bias = _by_model(info.batch_size, in_dims, x, weight, bias)
        normed = functional.layer_norm(x, x.shape[-1:], eps=eps)
        beside = (len(x), *[1] * (x.ndim - 2), -1)
        return torch.addcmul(bias.view(beside), normed, weight.view(beside)), 0


def _by_model(models: int, in_dims: Any, *tensors: Tensor) -> list[Tensor]:
    """Gives tensors with the models first."""
    return [
        one.expand(models, *one.shape) if dim is None else one.movedim(dim, 0)
        for one, dim in zip(tensors, in_dims, strict=False)
    ]


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if bias is None:
        return functional.linear(x, weight)
    made: Tensor = _Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return made


def _layer_norm(x, shape, weight=None, bias=None, eps=1e-5):
    return _LayerNorm.apply(x, weight, bias, eps)


def _folded(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    made: Tensor = _Folded.apply(function, *tensors)  # type: ignore[no-untyped-call]
    return made


RULES: Mapping[Callable[..., Any], Callable[..., Tensor]] = {
    functional.scaled_dot_product_attention: _attend,
    functional.ctc_loss: _ctc,
    functional.linear: _linear,
    functional.layer_norm: _layer_norm,
}
