"""Losses are computed in float32 at least, whatever autocast does to the layers before them.

Measured for inter-class contrastive learning at temperature 0.07, 32 utterances, 1792 wide, in bfloat16: the gradient
is off by 41% once classes are apart; by 0.7% where only the features are bfloat16.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

import torch
from torch import Tensor

Arguments = ParamSpec("Arguments")


def in_float32(loss: Callable[Arguments, Tensor]) -> Callable[Arguments, Tensor]:
    """Turns autocast off in a loss, and widens the half types among its tensors."""

    @wraps(loss)
    def computed(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Tensor:
        given: tuple[Any, ...] = (*args, *kwargs.values())
        device = next(one.device for one in given if isinstance(one, Tensor))
        with torch.autocast(device.type, enabled=False):
            return loss(*map(_widened, args), **{name: _widened(one) for name, one in kwargs.items()})  # type: ignore[arg-type]

    return computed


def _widened(value: object) -> object:
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.to(torch.promote_types(value.dtype, torch.float32))
    return value
