from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.errors import MmerError
from fusion.grid.axes import Axis, ValueRange
from fusion.grid.combinations import fields_text
from fusion.grid.space import SHUFFLED, Search, cross, distinct, fields_key, parse_search, sample

VALUES = st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True).map(tuple)
AXES = st.dictionaries(st.sampled_from("zyxba"), VALUES, max_size=4).map(
    lambda given: tuple(Axis(name=name, values=values) for name, values in given.items())
)
LR = Axis(name="lr", value_range=ValueRange(low=1e-5, high=1e-2, log=True))
LAYERS = Axis(name="layers", value_range=ValueRange(low=1, high=6, whole=True))
GATE = Axis(name="gate", values=("tanh", "identity"))


@given(AXES)
def test_a_product_keeps_the_order_of_axes_and_values(axes: tuple[Axis, ...]) -> None:
    names = [axis.name for axis in axes]
    expected = [tuple(zip(names, row, strict=True)) for row in product(*(axis.values for axis in axes))]
    assert [tuple(fields.items()) for fields in cross([axes])] == expected


@given(st.lists(AXES, min_size=1, max_size=3))
def test_united_products_hold_each_combination_once(products: list[tuple[Axis, ...]]) -> None:
    every = [fields_key(fields) for axes in products for fields in cross([axes])]
    assert [fields_key(fields) for fields in distinct(cross(products))] == list(dict.fromkeys(every))


@given(st.lists(AXES, min_size=1, max_size=2), st.integers(1, 30), st.integers(0, 99))
def test_a_sample_of_lists_takes_nothing_twice(products: list[tuple[Axis, ...]], count: int, seed: int) -> None:
    every = list(distinct(cross(products)))
    found = sample(products, count, seed)
    assert len(found) == min(count, len(every))
    assert len({fields_key(fields) for fields in found}) == len(found)
    assert all(fields in every for fields in found)


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 99), st.sampled_from([(LAYERS, GATE), (GATE, LR)]))
def test_a_shorter_sample_is_the_beginning_of_a_longer_one(
    one: int, other: int, seed: int, axes: tuple[Axis, ...]
) -> None:
    short, long = sorted((one, other))
    assert sample([axes], short, seed) == sample([axes], long, seed)[:short]


def test_another_seed_draws_another_sample() -> None:
    assert sample([(LR, GATE)], 5, seed=0) != sample([(LR, GATE)], 5, seed=1)
    assert sample([(LAYERS, GATE)], 5, seed=0) != sample([(LAYERS, GATE)], 5, seed=1)


def test_a_sample_keeps_the_order_of_axes_and_the_kinds_of_values() -> None:
    for fields in sample([(LR, GATE, LAYERS)], 10, seed=0):
        assert list(fields) == ["lr", "gate", "layers"]
        assert [type(value) for value in fields.values()] == [float, str, int]


def test_a_sample_of_all_lists_is_drawn_evenly() -> None:
    firsts = [sample([(LAYERS, GATE)], 1, seed=seed)[0] for seed in range(240)]
    assert len({fields_key(fields) for fields in firsts}) == 12
    assert 0.35 < sum(fields["gate"] == "tanh" for fields in firsts) / 240 < 0.65


def test_a_range_too_narrow_gives_what_it_holds() -> None:
    narrow = Axis(name="lr", value_range=ValueRange(low=0.1, high=0.1002))
    assert sorted(map(fields_text, sample([(narrow,)], 5, seed=0))) == ["lr=0.1", "lr=0.1001", "lr=0.1002"]


@pytest.mark.parametrize("high", [SHUFFLED // 2 + 1, 10**9])
def test_more_combinations_than_can_be_listed_are_sampled_all_the_same(high: int) -> None:
    wide = Axis(name="dim", value_range=ValueRange(low=1, high=high, whole=True))
    found = sample([(wide, GATE)], 20, seed=0)
    assert len({fields_key(fields) for fields in found}) == 20
    assert found[:5] == sample([(wide, GATE)], 5, seed=0)


@given(st.builds(Search, kind=st.sampled_from(["random", "tpe"]), count=st.integers(1, 10**6)))
def test_a_search_comes_back_as_it_was_written(search: Search) -> None:
    assert parse_search(str(search)) == search
    assert parse_search(str(Search())) == Search()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rand:5", "--search rand:5 is not a search; write grid, random:50 or tpe:50"),
        ("", "--search  is not a search"),
        ("grid:5", "grid trains every combination and takes no number; write random:N or tpe:N for a sample"),
        ("random", "random needs a number of combinations (1 or more), such as random:50"),
        ("random:0", "random needs a number of combinations (1 or more)"),
        ("tpe:-1", "tpe needs a number of combinations (1 or more), such as tpe:50"),
        ("tpe:many", "tpe needs a number of combinations"),
        ("tpe:²", "tpe needs a number of combinations"),
    ],
)
def test_what_is_no_search_is_one_clear_line(text: str, told: str) -> None:
    with pytest.raises(MmerError) as error:
        parse_search(text)
    assert told in str(error.value)


@pytest.mark.parametrize(("kind", "count"), [("grid", 1), ("random", 0), ("tpe", -1), ("all", 0)])
def test_a_search_that_cannot_be_is_refused(kind: str, count: int) -> None:
    with pytest.raises(ValueError, match=r"(count|kind) must be"):
        Search(kind=kind, count=count)
