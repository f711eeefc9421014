import logging
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.errors import MmerError
from fusion.grid.combinations import FieldValues
from fusion.grid.space import Search, Space, fields_key, read_space
from fusion.grid.tpe import TreeSearch

WIDE = ("lr=log:1e-5..1e-2", "dropout=0..0.5", "layers=1..6", "gate=tanh,identity")


def space_of(*grid: str) -> Space:
    return read_space("rescmfa", grid=grid)


def searched(space: Space, batches: int, *, size: int = 5, seed: int = 0, maximize: bool = True) -> list[FieldValues]:
    """Searches for 40 among whole numbers, or away from it."""
    search, found = TreeSearch(space, seed=seed, maximize=maximize), []
    for _ in range(batches):
        batch = search.ask(size)
        found += batch
        for fields in batch:
            search.tell(fields, -abs(int(str(fields["layers"])) - 40.0))
    return found


@settings(max_examples=15)
@given(layers=st.integers(1, 4), rates=st.integers(1, 3), batch=st.integers(1, 5), seed=st.integers(0, 9))
def test_every_combination_is_asked_for_once_until_none_is_left(layers: int, rates: int, batch: int, seed: int) -> None:
    space = space_of(f"layers={','.join(map(str, range(layers)))}", f"alpha={','.join(map(str, range(rates)))}")
    search, found = TreeSearch(space, seed=seed, maximize=True), []
    while asked := search.ask(batch):
        found += asked
        for fields in asked:
            search.tell(fields, float(str(fields["alpha"])))
    expected = space.combinations(Search(), seed=0)
    assert len(found) == len(expected)
    assert {fields_key(fields) for fields in found} == {fields_key(fields) for fields in expected}


def test_the_defaults_alone_are_asked_for_once() -> None:
    search = TreeSearch(space_of(), seed=0, maximize=True)
    assert (search.ask(3), search.ask(1)) == ([{}], [])


def test_values_are_of_their_axis_and_stand_in_its_order() -> None:
    for fields in TreeSearch(space_of(*WIDE), seed=0, maximize=True).ask(30):
        assert list(fields) == ["lr", "dropout", "layers", "gate"]
        assert [type(value) for value in fields.values()] == [float, float, int, str]
        assert 1e-5 <= float(str(fields["lr"])) <= 1e-2
        assert fields["layers"] in range(1, 7)


def test_scores_lead_to_where_they_are_better() -> None:
    space = space_of("layers=0..200")
    best, worst = (searched(space, 6, maximize=maximize) for maximize in (True, False))
    near, far = ([abs(int(str(fields["layers"])) - 40) for fields in found[-15:]] for found in (best, worst))
    assert sum(near) / len(near) < 50
    assert sum(far) / len(far) > 65
    assert len({fields_key(fields) for fields in best}) == 30


def test_the_same_seed_and_scores_ask_for_the_same_whatever_the_order_of_scores() -> None:
    one, other = (TreeSearch(space_of(*WIDE), seed=3, maximize=True) for _ in range(2))
    for _ in range(5):
        batch = one.ask(4)
        assert other.ask(4) == batch
        for fields in batch:
            one.tell(fields, float(str(fields["dropout"])))
        for fields in reversed(batch):
            other.tell(fields, float(str(fields["dropout"])))
    assert TreeSearch(space_of(*WIDE), seed=4, maximize=True).ask(4) != TreeSearch(
        space_of(*WIDE), seed=3, maximize=True
    ).ask(4)


@pytest.mark.parametrize("failed", [None, float("nan")])
def test_what_failed_is_worse_than_any_score(failed: float | None) -> None:
    search, found = TreeSearch(space_of("layers=0..1000"), seed=0, maximize=True), []
    for _ in range(60):
        (fields,) = search.ask(1)
        found.append(int(str(fields["layers"])))
        search.tell(fields, failed if found[-1] > 500 else -1e6)
    assert sum(value > 500 for value in found[:10]) > 2
    assert sum(value > 500 for value in found[20:]) < 20


def test_products_of_a_file_are_searched_together(tmp_path: Path) -> None:
    (tmp_path / "grid.json").write_text('[{"layers": [1, 2]}, {"layers": [2, 3], "gate": "tanh"}, {"layers": [2]}]')
    search = TreeSearch(read_space("rescmfa", grid_file=tmp_path / "grid.json"), seed=0, maximize=True)
    found = search.ask(10)
    assert {fields_key(fields) for fields in found} == {
        fields_key(fields)
        for fields in ({"layers": 1}, {"layers": 2}, {"layers": 2, "gate": "tanh"}, {"layers": 3, "gate": "tanh"})
    }
    assert len(found) == 4


def test_a_range_that_holds_few_numbers_is_left_when_they_are_used_up() -> None:
    found = TreeSearch(space_of("lr=0.1..0.1002"), seed=0, maximize=True).ask(10)
    assert sorted(float(str(fields["lr"])) for fields in found) == [0.1, 0.1001, 0.1002]


def test_a_score_is_told_once_and_of_what_was_asked_for() -> None:
    search = TreeSearch(space_of("layers=2,4"), seed=0, maximize=True)
    with pytest.raises(ValueError, match=r"got a score of {'layers': 2}"):
        search.tell({"layers": 2}, 0.5)
    (fields,) = search.ask(1)
    search.tell(fields, 0.5)
    with pytest.raises(ValueError, match="each proposed combination gets one score"):
        search.tell(fields, 0.5)


def test_ablations_are_not_searched() -> None:
    with pytest.raises(
        MmerError, match=r"^--ablate cannot be combined with --search tpe, .*; ablate with --search grid or"
    ):
        TreeSearch(read_space("rescmfa", ablate=["alpha=0"]), seed=0, maximize=True)


def test_without_optuna_the_way_to_install_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MmerError, match=r"^--search tpe needs the package optuna; pip install optuna$"):
        TreeSearch(space_of("layers=2,4"), seed=0, maximize=True)


def test_nothing_is_reported_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    before = logging.getLogger("optuna").level
    searched(space_of("layers=0..200"), 3)
    assert capfd.readouterr().err == ""
    assert logging.getLogger("optuna").level == before
