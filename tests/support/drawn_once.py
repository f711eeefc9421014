"""Divisions of utterances, which scikit-learn draws once for equal arguments."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from fusion.protocols import dev, folds


@contextmanager
def divisions_drawn_once() -> Iterator[None]:
    """Draws the divisions of equal classes and groups once, unless a splitter is to draw others every time."""
    draw, drawn = dev.draw_divisions, dict[Any, list[dev.Division]]()

    def draw_once(splitter: Any, classes: Any, groups: Any = None) -> list[dev.Division]:
        if getattr(splitter, "random_state", None) is None and getattr(splitter, "shuffle", True):
            return draw(splitter, classes, groups)
        arrays = [None if values is None else (values.dtype.str, values.tobytes()) for values in (classes, groups)]
        key = (type(splitter), repr(vars(splitter)), *arrays)
        if key not in drawn:
            drawn[key] = draw(splitter, classes, groups)
        return [(rest.copy(), held.copy()) for rest, held in drawn[key]]

    with pytest.MonkeyPatch.context() as patch:
        for module in (dev, folds):
            patch.setattr(module, "draw_divisions", draw_once)
        yield
