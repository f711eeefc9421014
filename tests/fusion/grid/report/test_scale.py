import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fusion.grid.report.scale import Scale, scale_of, score_scale, varied_axes
from fusion.grid.selection import Ranked, rank

NUMBERS = st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=40).filter(lambda values: len(set(values)) > 1)


def ranked(values: list[object], axis: str = "x") -> list[Ranked]:
    return rank([{axis: value} for value in values], [], "wf1")


def scale(values: list[object]) -> Scale:
    return scale_of(ranked(values), "x")


def test_positive_numbers_over_more_than_a_decade_are_logarithmic() -> None:
    told = scale([1e-4, 1e-3, 1e-2, 1e-3])
    assert told.positions == pytest.approx([-4, -3, -2, -3])
    assert told.labels == ("0.0001", "0.001", "0.01")
    assert told.ticks == pytest.approx([-4, -3, -2])
    assert told.grouped


@pytest.mark.parametrize("values", [[1, 2, 10], [0, 0.1, 100], [-1, 100], [1, 100, None], [1, 100, "all"]])
def test_other_values_are_categories(values: list[object]) -> None:
    told = scale(values)
    assert told.positions == tuple(range(len(values)))
    assert (told.grouped, told.numeric) == (True, all(isinstance(value, (int, float)) for value in values))


def test_numbers_come_in_their_order_and_words_in_that_of_the_grid() -> None:
    assert scale(["text", 4, "both", 2]).labels == ("2", "4", "text", "both")
    assert scale([True, False]).labels == ("false", "true")
    assert scale([4, 2, None]).labels == ("2", "4", "none")
    assert scale(["text", "both", "audio"]).labels == ("text", "both", "audio")


def test_an_axis_that_is_not_set_has_a_value_of_its_own() -> None:
    some = rank([{"x": 1}, {}], [], "wf1")
    assert scale_of(some, "x").labels == ("1", "default")


def test_many_numbers_have_round_ticks() -> None:
    told = scale([0.2 + 0.05 * step for step in range(20)])
    assert told.labels == ("0.2", "0.4", "0.6", "0.8", "1.0")
    assert not told.grouped
    logarithmic = scale([10 ** (-4 + 0.1 * step) for step in range(20)])
    assert logarithmic.labels == ("0.0001", "0.0003", "0.001", "0.003")
    assert scale([10 ** (-5 + 0.5 * step) for step in range(13)]).labels[:3] == ("1e-05", "0.0001", "0.001")


def test_ticks_are_not_written_over_each_other() -> None:
    assert scale([1, 1.01, 100]).labels == ("1", "100")
    assert len(scale([f"value {place}" for place in range(100)]).labels) <= 32


@given(NUMBERS)
@example([1.0, 1.0000000000000002e-06, 1e-06])  # two numbers of one place
def test_all_places_and_ticks_of_numbers_lie_within_the_limits(values: list[float]) -> None:
    told = scale(list(values))
    low, high = told.limits
    assert low < high
    assert all(low <= place <= high for place in (*told.positions, *told.ticks))
    assert len(told.ticks) == len(told.labels) > 0
    assert (np.diff(np.array(told.positions)[np.argsort(values)]) >= 0).all()


@given(st.lists(st.floats(0, 100), min_size=1, max_size=30))
def test_ticks_of_scores_enclose_them(scores: list[float]) -> None:
    low, high = score_scale(scores).limits
    assert low <= min(scores) <= max(scores) <= high
    assert low < high


def test_axes_with_one_value_are_not_varied() -> None:
    some = rank([{"a": 1, "b": 2, "c": True}, {"a": 1, "b": 3}], [], "wf1")
    assert varied_axes(some, ["a", "b", "c"]) == ["b", "c"]


def test_the_distance_of_places() -> None:
    assert scale([1, 2, 100, 2]).gap == pytest.approx(np.log10(2))
    assert score_scale([1.0]).gap == 0


def test_words_are_shortened_as_in_all_pictures() -> None:
    names: list[object] = ["$a_b$", "wavlm-base-plus-mean"]
    assert scale(names).labels == (r"\$a_b\$", "wavlm-base-plus-m…")
