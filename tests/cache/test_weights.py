import numpy as np
import pytest

from cache.rebuild import contradictions

HELD = {"a": np.array([1.0, np.nan]), "b": np.ones(2)}


def test_what_only_one_has_contradicts_nothing() -> None:
    assert contradictions(HELD, {"a": HELD["a"].copy(), "c": np.ones(1)}) == []
    assert contradictions({}, HELD) == contradictions(HELD, {}) == []


@pytest.mark.parametrize("other", [np.zeros(2), np.ones(3), np.ones((2, 1)), np.ones(2, dtype=np.float32)])
def test_another_value_shape_or_type_contradicts(other: np.ndarray) -> None:
    assert contradictions(HELD, {"a": HELD["a"], "b": other}) == ["b"]
