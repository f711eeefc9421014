import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cache.errors import DiskFull
from cache.layout import COMMITTED, FAILED, PENDING, StreamPlan, read_layout
from cache.rebuild import check_room, plan_bytes
from cache.rows import to_stored
from cache.store import FeatureCache
from tests.support.toys import create, plan_for, utterances_named, values_for


def test_rows_follow_their_utterance_not_their_place(toy: tuple[Path, StreamPlan]) -> None:
    path, plan = toy
    kept = create(path, utterances_named("dxb"), [plan_for([2, 4, 5])])
    stream = FeatureCache(path).stream("enc")
    assert kept == 2
    assert stream.state.tolist() == [COMMITTED, PENDING, COMMITTED]
    np.testing.assert_array_equal(stream.read(0), to_stored(values_for(plan, 3), "float16").values)
    np.testing.assert_array_equal(stream.read(2), to_stored(values_for(plan, 1), "float16").values)


def test_rows_of_another_length_or_key_are_not_kept(toy: tuple[Path, StreamPlan]) -> None:
    path, plan = toy
    assert create(path, utterances_named("abcd"), [plan_for([3, 6, 0, 2])]) == 2
    other = replace(plan, spec=replace(plan.spec, weights="other"))
    assert create(path, utterances_named("abcd"), [other]) == 0


def test_a_damaged_row_is_not_carried_over(toy: tuple[Path, StreamPlan]) -> None:
    path, plan = toy
    values = read_layout(path).streams["enc"].regions["values"]
    with path.open("rb+") as file:
        file.seek(values.offset + 4 * values.row_bytes)  # in utterance b
        file.write(b"\xff")
    create(path, utterances_named("abcd"), [plan])
    assert FeatureCache(path).stream("enc").state.tolist() == [COMMITTED, PENDING, FAILED, COMMITTED]


def test_an_open_reader_keeps_the_old_file(toy: tuple[Path, StreamPlan]) -> None:
    path, plan = toy
    before = FeatureCache(path)
    create(path, utterances_named("a"), [plan_for([3])])
    np.testing.assert_array_equal(before.stream("enc").read(1), to_stored(values_for(plan, 1), "float16").values)


def test_leftovers_of_killed_runs_are_swept(toy: tuple[Path, StreamPlan]) -> None:
    path = toy[0]
    leftover = path.with_name(f".{path.name}.123.part")
    leftover.write_bytes(b"half a file")
    create(path, utterances_named("a"), [plan_for([3])])
    assert not leftover.exists()
    assert {file.name for file in path.parent.iterdir()} == {path.name, f"{path.name}.lock"}


def test_a_failed_rebuild_leaves_the_old_file_whole(toy: tuple[Path, StreamPlan]) -> None:
    path = toy[0]
    before = path.read_bytes()
    with pytest.raises(TypeError):
        create(path, utterances_named("a"), [plan_for([3])], enc={"w": object()})  # type: ignore[dict-item]
    assert path.read_bytes() == before
    assert not list(path.parent.glob("*.part"))


def test_a_plan_larger_than_the_disk_is_refused_before_any_work(tmp_path: Path) -> None:
    plan = plan_for([shutil.disk_usage(tmp_path).total], dim=4)
    with pytest.raises(DiskFull, match=r"GB needed in .* GB free; free some, .*--cache, .*--dtype int8"):
        create(tmp_path / "new" / "a.h5", utterances_named("a"), [plan])
    assert not (tmp_path / "new" / "a.h5").exists()


def test_room_is_looked_for_where_the_folder_will_be(tmp_path: Path) -> None:
    check_room(tmp_path / "not" / "yet", 1)
    with pytest.raises(DiskFull):
        check_room(tmp_path / "not" / "yet", shutil.disk_usage(tmp_path).total + 1)


def test_planned_bytes_are_those_of_the_file(tmp_path: Path) -> None:
    plan = plan_for([70_000] * 20, dim=8, dtype="int8")
    create(tmp_path / "a.h5", utterances_named([f"u{index}" for index in range(20)]), [plan])
    assert (tmp_path / "a.h5").stat().st_size == pytest.approx(plan_bytes([plan]), rel=0.1)
