"""How stacked models compute what `vmap` has no rule for, or a slow one: all models folded into the batch.

What an operation gives for an utterance depends on no other utterance of the batch, so that folding is exact. Layers
and their norms were tried as rules of their own and gained nothing.
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


def _folded(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    made: Tensor = _Folded.apply(function, *tensors)  # type: ignore[no-untyped-call]
    return made


RULES: Mapping[Callable[..., Any], Callable[..., Tensor]] = {
    functional.scaled_dot_product_attention: _attend,
    functional.ctc_loss: _ctc,
}
