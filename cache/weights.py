"""Whether weights that heads start from, of one encoder but from two places, may be united."""

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt


def contradictions(held: Mapping[str, npt.NDArray[Any]], others: Mapping[str, npt.NDArray[Any]]) -> list[str]:
    """Names the arrays that both have but in which they differ: in type, shape or any bit."""
    return [name for name in others if name in held and _content(held[name]) != _content(others[name])]


def _content(values: npt.NDArray[Any]) -> tuple[str, tuple[int, ...], bytes]:
    return str(values.dtype), values.shape, values.tobytes()
