import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from cache.rows import all_finite, from_stored, to_stored

floats = st.floats(-1e4, 1e4, width=32)
rows = arrays(np.float32, array_shapes(min_dims=2, max_dims=3, min_side=0, max_side=9), elements=floats)


@given(rows)
def test_float32_is_kept_to_the_bit(values: np.ndarray) -> None:
    np.testing.assert_array_equal(from_stored(*to_stored(values, "float32")), values)


@given(rows)
def test_float16_is_rounded_as_numpy_rounds(values: np.ndarray) -> None:
    np.testing.assert_array_equal(to_stored(values, "float16").values, values.astype(np.float16))


@given(rows)
def test_int8_is_off_by_at_most_half_a_step(values: np.ndarray) -> None:
    stored = to_stored(values, "int8")
    assert stored.scales is not None
    assert stored.scales.dtype == np.float16
    steps = stored.scales.astype(np.float32).reshape(-1, *[1] * (values.ndim - 1))
    # a row whose scale is below the smallest float16 is stored as zeros
    assert (np.abs(from_stored(*stored) - values) <= steps / 2 + 127 * 6e-8).all()


def test_int8_peak_never_clips() -> None:
    values = np.random.default_rng(0).standard_normal((2000, 8)).astype(np.float32)
    stored = to_stored(values, "int8")
    assert stored.scales is not None
    assert (stored.scales.astype(np.float32) * 127 >= np.abs(values).max(axis=1)).all()


def test_int8_error_is_what_the_docstring_states() -> None:
    values = np.random.default_rng(0).standard_normal((500, 768)).astype(np.float32)
    error = np.linalg.norm(from_stored(*to_stored(values, "int8")) - values) / np.linalg.norm(values)
    assert error == pytest.approx(0.0077, abs=2e-4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e6])
def test_what_float16_cannot_hold_is_seen(bad: float) -> None:
    values = np.ones((3, 2), dtype=np.float32)
    assert all_finite(to_stored(values, "float16"))
    values[1, 1] = bad
    assert not all_finite(to_stored(values, "float16"))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e8])
def test_what_int8_cannot_hold_is_seen(bad: float) -> None:
    values = np.full((3, 2), bad, dtype=np.float32)
    assert not all_finite(to_stored(values, "int8"))


def test_integers_beyond_their_type_are_refused() -> None:
    assert to_stored(np.array([[0, 65535]]), "uint16").values.dtype == np.uint16
    with pytest.raises(ValueError, match="0 to 65536 do not fit uint16"):
        to_stored(np.array([[0, 65536]]), "uint16")


def test_silence_is_stored_as_silence() -> None:
    np.testing.assert_array_equal(from_stored(*to_stored(np.zeros((2, 3), np.float32), "int8")), np.zeros((2, 3)))
