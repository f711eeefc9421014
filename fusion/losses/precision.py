"""Precision of losses: at least float32, even if autocast computes the layers before them in half precision.

Measured for inter-class contrastive learning at temperature 0.07 with 32 utterances, width 1792, in bfloat16: the
relative error of the gradient is 41% once classes are separated, and 0.7% if only the features are bfloat16.
"""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import torch
from torch import Tensor

Arguments = ParamSpec("Arguments")


def in_float32(loss: Callable[Arguments, Tensor]) -> Callable[Arguments, Tensor]:
    """Returns a loss that runs without autocast, with arguments in float32.

    Arguments of half precision are converted; float64 stays.
    """

    @wraps(loss)
    def compute(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Tensor:
        values: tuple[object, ...] = (*args, *kwargs.values())
        device = next(value.device for value in values if isinstance(value, Tensor))
        with torch.autocast(device.type, enabled=False):
            return loss(*map(_widen, args), **{name: _widen(value) for name, value in kwargs.items()})  # type: ignore[arg-type]

    return compute


def _widen(value: object) -> object:
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.to(torch.promote_types(value.dtype, torch.float32))
    return value
