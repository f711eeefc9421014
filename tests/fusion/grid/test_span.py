import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion.grid.axes import ValueRange


def drawn(span: ValueRange, count: int = 400) -> list[float]:
    state = np.random.RandomState(0)
    return [span.rvs(state) for _ in range(count)]


@given(low=st.integers(1, 50), width=st.integers(1, 50), log=st.booleans(), seed=st.integers(0, 1000))
def test_whole_numbers_stay_whole_and_in_the_range(low: int, width: int, log: bool, seed: int) -> None:
    value = ValueRange(low=low, high=low + width, log=log, whole=True).rvs(np.random.RandomState(seed))
    assert type(value) is int
    assert low <= value <= low + width


@given(low=st.floats(1e-6, 1.0), factor=st.floats(1.01, 1e4), log=st.booleans(), seed=st.integers(0, 1000))
def test_numbers_stay_in_the_range_however_they_are_rounded(low: float, factor: float, log: bool, seed: int) -> None:
    value = ValueRange(low=low, high=low * factor, log=log).rvs(np.random.RandomState(seed))
    assert type(value) is float
    assert low <= value <= low * factor


@pytest.mark.parametrize("log", [False, True])
def test_both_ends_of_whole_numbers_are_drawn(log: bool) -> None:
    assert set(drawn(ValueRange(low=1, high=6, log=log, whole=True))) == {1, 2, 3, 4, 5, 6}


def test_by_logarithm_every_order_of_magnitude_is_as_likely() -> None:
    below = np.mean(np.array(drawn(ValueRange(low=1e-4, high=1.0, log=True))) < 1e-2)
    evenly = np.mean(np.array(drawn(ValueRange(low=1e-4, high=1.0))) < 1e-2)
    assert 0.4 < below < 0.6
    assert evenly < 0.05


def test_whole_numbers_by_logarithm_are_as_likely_as_they_are_wide() -> None:
    share = np.mean(np.array(drawn(ValueRange(low=1, high=100, log=True, whole=True))) < 10)
    assert share == pytest.approx(np.log(9.5 / 0.5) / np.log(100.5 / 0.5), abs=0.07)


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0)])
def test_a_range_must_end_above_its_start(low: float, high: float) -> None:
    with pytest.raises(ValueError, match=f"must be above its start, got {low}..{high}"):
        ValueRange(low=low, high=high)


def test_a_range_by_logarithm_starts_above_zero() -> None:
    with pytest.raises(ValueError, match=r"must start above 0, got log:0.0..1.0"):
        ValueRange(low=0.0, high=1.0, log=True)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1e300), (-1e300, 0.0)])
def test_a_range_ends_where_numbers_are_exact(low: float, high: float) -> None:
    with pytest.raises(ValueError, match=r"must lie within 1e\+15 of 0, got"):
        ValueRange(low=low, high=high)
