from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.errors import MmerError
from fusion.grid.axes import ValueRange
from fusion.grid.space import Search, Space, fields_key, read_space

RANDOM = Search(kind="random", count=5)


def listed(space: Space) -> list[dict[str, object]]:
    return [dict(fields) for fields in space.combinations(Search(), seed=0)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "grid.json"


def read_file(path: Path, text: str) -> Space:
    path.write_text(text, encoding="utf-8")
    return read_space("rescmfa", grid_file=path)


def test_the_first_axis_is_the_slowest() -> None:
    space = read_space("rescmfa", grid=["lr=3e-4,1e-4", "alpha=1,0"])
    found = [tuple(fields.items()) for fields in listed(space)]
    assert found == [
        (("lr", 3e-4), ("alpha", 1.0)),
        (("lr", 3e-4), ("alpha", 0.0)),
        (("lr", 1e-4), ("alpha", 1.0)),
        (("lr", 1e-4), ("alpha", 0.0)),
    ]
    assert [(axis.name, axis.values) for axis in space.axes] == [("lr", (3e-4, 1e-4)), ("alpha", (1.0, 0.0))]


def test_nothing_asked_for_is_the_defaults_alone() -> None:
    for search in (Search(), RANDOM):
        assert read_space("rescmfa").combinations(search, seed=0) == [{}]
    assert (read_space("rescmfa").axes, read_space("rescmfa").size) == ((), 1)


def test_ablations_change_the_defaults_one_at_a_time() -> None:
    space = read_space("bimodal", ablate=["ccb1=false", "alpha=0,1", "ccb1=false/ccb2=false"])
    assert listed(space) == [
        {},
        {"ccb1": False},
        {"alpha": 0.0},
        {"alpha": 1.0},
        {"ccb1": False, "ccb2": False},
    ]
    assert space.axes == ()


def test_every_combination_is_the_base_of_ablations() -> None:
    space = read_space("rescmfa", grid=["alpha=0,1", "layers=2"], ablate=["alpha=0", "gate=tanh"])
    assert listed(space) == [
        {"alpha": 0.0, "layers": 2},
        {"alpha": 0.0, "layers": 2, "gate": "tanh"},
        {"alpha": 1.0, "layers": 2},
        {"alpha": 1.0, "layers": 2, "gate": "tanh"},
    ]
    assert (space.size, len(space.changes)) == (2, 2)


@given(
    rates=st.lists(st.floats(0, 1), max_size=4, unique=True),
    layers=st.lists(st.integers(1, 9), max_size=4, unique=True),
    gates=st.lists(st.sampled_from(["a", "b", "c"]), max_size=3, unique=True),
)
def test_a_space_holds_the_product_of_its_axes_and_each_change_of_it(
    rates: list[float], layers: list[int], gates: list[str]
) -> None:
    texts = {"lr": [str(value) for value in rates], "layers": [str(value) for value in layers]}
    grid = [f"{name}={','.join(values)}" for name, values in texts.items() if values]
    space = read_space("rescmfa", grid=grid, ablate=[f"gate={gate}" for gate in gates])
    found = listed(space)
    assert space.size == max(len(rates), 1) * max(len(layers), 1)
    assert len(found) == len({fields_key(fields) for fields in found}) == space.size * (1 + len(gates))
    assert [dict(change) for change in space.changes] == [{"gate": gate} for gate in gates]


def test_a_sample_gives_bases_with_all_their_ablations() -> None:
    space = read_space("rescmfa", grid=["lr=log:1e-5..1e-2", "layers=1..6"], ablate=["alpha=0"])
    found = space.combinations(RANDOM, seed=3)
    assert len(found) == 10
    assert [{**base, "alpha": 0.0} for base in found[::2]] == found[1::2]
    assert space.size is None
    assert found == space.combinations(RANDOM, seed=3) != space.combinations(RANDOM, seed=4)


def test_more_samples_than_there_are_take_all_with_a_note() -> None:
    space = read_space("rescmfa", grid=["layers=1..2", "alpha=0,1"])
    assert [tuple(fields.values()) for fields in space.combinations(RANDOM, seed=0)] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert space.notes(RANDOM) == ["--search random:5 requests more combinations than there are (4); all are trained"]
    fewer = Search(kind="random", count=4)
    assert space.notes(fewer) == space.notes(Search()) == []
    assert read_space("rescmfa", grid=["alpha=0..1"]).notes(RANDOM) == []


def test_combinations_are_counted_where_they_can_be_listed(file: Path) -> None:
    assert read_space("rescmfa", grid=["layers=1..6", "heads=log:1..4", "alpha=0,1"]).size == 48
    assert read_space("rescmfa", grid=["layers=1..1000000000"]).size is None
    assert read_file(file, '[{"layers": "1..60000"}, {"layers": "1..50000"}]').size == 110_000
    assert read_file(file, '[{"layers": "1..60"}, {"layers": "1..50"}]').size == 60


def test_a_range_needs_a_search_that_samples() -> None:
    space = read_space("rescmfa", grid=["layers=2,4", "lr=log:1e-5..1e-2"])
    assert space.axes[1].value_range == ValueRange(low=1e-5, high=1e-2, log=True)
    with pytest.raises(
        MmerError, match=r"^axis lr=log:1e-05..0.01 is a range, and --search grid needs values; .*random"
    ):
        space.combinations(Search(), seed=0)


def test_what_scores_decide_cannot_be_listed() -> None:
    with pytest.raises(ValueError, match="use TreeSearch"):
        read_space("rescmfa").combinations(Search(kind="tpe", count=3), seed=0)


def test_a_file_holds_a_product(file: Path) -> None:
    space = read_file(
        file, '{"lr": [1e-4, 3e-4], "layers": 2, "gate": "tanh", "stream.text": ["a@1,2"], "adapter": true}'
    )
    rest = {"layers": 2, "gate": "tanh", "stream.text": "a@1,2", "adapter": True}
    assert listed(space) == [{"lr": 1e-4, **rest}, {"lr": 3e-4, **rest}]
    assert read_file(file, '{"lr": "1..2"}').axes[0].value_range == ValueRange(low=1.0, high=2.0)


def test_a_file_holds_a_union_of_products(file: Path) -> None:
    space = read_file(file, '[{"lr": [1, 2]}, {"alpha": [0], "lr": [2, 3]}, {"lr": [3, 2], "alpha": 0}, {}]')
    assert listed(space) == [
        {"lr": 1.0},
        {"lr": 2.0},
        {"alpha": 0.0, "lr": 2.0},
        {"alpha": 0.0, "lr": 3.0},
        {},
    ]
    assert space.size == 5
    assert [(axis.name, axis.values) for axis in space.axes] == [("lr", (1.0, 2.0, 3.0)), ("alpha", (0.0,))]
    mixed = read_file(file, '[{"lr": [1, 2]}, {"lr": "0..1"}]')
    assert [(axis.values, str(axis.value_range)) for axis in mixed.axes] == [((), "0.0..1.0")]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[]", ' must hold an object such as {"lr": [1e-4, 3e-4]}, or a list of them'),
        ("3", ' must hold an object such as {"lr": [1e-4, 3e-4]}, or a list of them'),
        ('[{"lr": 1}, 4]', ', object 2 must be an object such as {"lr": [1e-4, 3e-4]}, got 4'),
        ('[{"lr": 1}, {"lr": "much"}]', ", object 2: lr must be a number, got 'much'"),
        ('{"lr": [1,\n}', ", line 2, column 1 is not JSON: Expecting value"),
        ('{"lr": []}', ": lr has no value; name one or more, such as lr=0.1,0.3"),
        ('{"lr": [1, 1.0]}', ": lr is given the value 1.0 twice; give it once"),
        ('{"lr": 1, "lr": 2}', ": lr is given twice; give it once, with all its values"),
        ('{"layers": [2.0]}', ": layers must be a whole number, got 2.0"),
        ('{"lr": NaN}', ": lr must be a number, got nan"),
        ('{"lr": "1,2"}', ": lr must be a number, got '1,2'"),
        ('{"gate": [["tanh"]]}', ": gate must be a word, got ['tanh']"),
        ('{"stream.text": 3}', ": stream.text must be the name of a stream, got 3"),
        ('{"seed": [1]}', ": seed cannot be an axis; every combination is trained with the seeds of --seeds"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_place(file: Path, text: str, told: str) -> None:
    with pytest.raises(MmerError) as error:
        read_file(file, text)
    assert str(error.value).startswith(f"{file}{told}")


def test_a_file_that_is_none_is_told(file: Path) -> None:
    with pytest.raises(
        MmerError, match=r"cannot be read: No such file or directory; --grid-file needs a file in JSON$"
    ):
        read_space("rescmfa", grid_file=file)
    file.write_bytes(b'{"\xff')
    with pytest.raises(MmerError, match="is not JSON: byte 2 is not UTF-8"):
        read_space("rescmfa", grid_file=file)


def test_axes_stand_in_one_place_and_once(file: Path) -> None:
    with pytest.raises(MmerError, match="--grid and --grid-file exclude each other; write all axes"):
        read_space("rescmfa", grid=["lr=1"], grid_file=file)
    with pytest.raises(MmerError, match="--grid: lr is given twice; give it once, with all its values"):
        read_space("rescmfa", grid=["lr=1", "alpha=0", "lr=2"])


@pytest.mark.parametrize("again", ["alpha=0", "alpha=0.0,1", "gate=tanh/alpha=1"])
def test_an_ablation_stands_once(again: str) -> None:
    with pytest.raises(
        MmerError, match=r"--ablate: alpha=\S+( gate=tanh)? is given twice; give it once|gate=tanh alpha="
    ):
        read_space("rescmfa", ablate=["alpha=0", "alpha=1/gate=tanh", again])
