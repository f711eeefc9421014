import os
import resource
from pathlib import Path

import numpy as np
import pytest

from cache.errors import CacheBusy, DiskFull, MmerError
from cache.layout import COMMITTED, FAILED, PENDING, StreamPlan, read_layout
from cache.rows import rows_checksum, to_stored
from cache.store import FeatureCache
from cache.writer import CacheWriter, Row, writing_lock
from tests.support.processes import started, wait_until
from tests.support.toys import commit, create, plan_for, utterances_named, values_for


def row(plan: StreamPlan, index: int, *, note: str = "") -> Row:
    stored = to_stored(values_for(plan, index), plan.spec.dtype)
    return Row(stream=plan.spec.name, index=index, stored=stored, digest=b"0123456789abcdef", note=note)


@pytest.fixture
def unwritable() -> Path:
    """A folder that not even root can write to."""
    folder = Path("/sys/kernel")
    if not folder.is_dir():
        pytest.skip("needs /sys, a folder that no user can write to")
    return folder / "mmer.h5"


def test_state_is_set_only_after_the_rows_are_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_for([3])
    create(tmp_path / "a.h5", utterances_named("a"), [plan])
    state_at = read_layout(tmp_path / "a.h5").streams["enc"].regions["state"].offset
    order: list[str] = []
    write, sync = os.pwrite, os.fdatasync

    def spied_write(file: int, data: memoryview, offset: int) -> int:
        order.append("state" if offset == state_at else "row")
        return write(file, data, offset)

    def spied_sync(file: int) -> None:
        order.append("sync")
        sync(file)

    monkeypatch.setattr(os, "pwrite", spied_write)
    monkeypatch.setattr(os, "fdatasync", spied_sync)
    with CacheWriter(read_layout(tmp_path / "a.h5")) as writer:
        writer.commit([row(plan, 0)])
    assert order[-3:] == ["sync", "state", "sync"]
    assert set(order[:-3]) == {"row"}


def test_short_writes_are_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_for([30])
    create(tmp_path / "a.h5", utterances_named("a"), [plan])
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: whole(file, data[:7], offset))
    with CacheWriter(read_layout(tmp_path / "a.h5")) as writer:
        writer.commit([row(plan, 0, note="n" * 300)])
    stream = FeatureCache(tmp_path / "a.h5").stream("enc")
    np.testing.assert_array_equal(stream.read(0), to_stored(values_for(plan, 0), "float16").values)
    assert stream.reason(0) == "n" * 200


def test_a_full_disk_leaves_what_was_committed(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    plan = plan_for([1000, 1000, 1000], dim=64)
    create(path, utterances_named("abc"), [plan])
    values = read_layout(path).streams["enc"].regions["values"]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    commit(path, plan, [0])
    with CacheWriter(read_layout(path)) as writer:
        resource.setrlimit(resource.RLIMIT_FSIZE, (values.offset + 1500 * values.row_bytes, hard))
        try:
            with pytest.raises(DiskFull, match="committed rows stay readable"):
                writer.commit([row(plan, 1)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    stream = FeatureCache(path).stream("enc")
    assert stream.state.tolist() == [COMMITTED, PENDING, PENDING]
    assert rows_checksum(stream.stored(0)) == stream.checksum[0]
    commit(path, plan, [1, 2])  # with room again, the run continues
    assert FeatureCache(path).stream("enc").state.tolist() == [COMMITTED] * 3


@pytest.mark.parametrize("state", [COMMITTED, FAILED])
def test_rows_committed_or_failed_before_are_pending_while_they_are_written_anew(
    toy: tuple[Path, StreamPlan], monkeypatch: pytest.MonkeyPatch, state: int
) -> None:
    path, plan = toy
    regions, held, write = read_layout(path).streams["enc"].regions, list[int](), os.pwrite

    def spied_write(file: int, data: memoryview, offset: int) -> int:
        if offset == regions["values"].offset:
            held.append(os.pread(file, 1, regions["state"].offset)[0])
        return write(file, data, offset)

    with CacheWriter(read_layout(path)) as writer:
        if state == FAILED:
            writer.fail("enc", 0, "lost")
        monkeypatch.setattr(os, "pwrite", spied_write)
        writer.commit([row(plan, 0, note="again")])
    assert held == [PENDING]
    stream = FeatureCache(path).stream("enc")
    assert stream.reason(0) == "again"
    assert stream.state[0] == COMMITTED


def test_failing_and_resetting(toy: tuple[Path, StreamPlan]) -> None:
    with CacheWriter(read_layout(toy[0])) as writer:
        writer.fail("enc", 0, "broken: " + "ü" * 150)
        writer.reset("enc", [1, 2])
    stream = FeatureCache(toy[0]).stream("enc")
    assert stream.state.tolist() == [FAILED, PENDING, PENDING, COMMITTED]
    assert stream.reason(0) == "broken: " + "ü" * 96  # 200 bytes
    assert stream.reason(2) == ""


@pytest.mark.parametrize("wrong", [np.zeros((4, 4), np.float16), np.zeros((3, 4), np.float32)])
def test_rows_that_the_plan_does_not_know_are_refused(toy: tuple[Path, StreamPlan], wrong: np.ndarray) -> None:
    bad = Row(stream="enc", index=0, stored=to_stored(wrong, str(wrong.dtype)), digest=bytes(16))
    with CacheWriter(read_layout(toy[0])) as writer, pytest.raises(ValueError, match=r"must be \(3, 4\) as planned"):
        writer.commit([bad])


def test_a_second_writer_is_told_to_wait(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    hold = (
        "import pathlib, time; from cache.writer import writing_lock\n"
        f"with writing_lock(pathlib.Path({str(path)!r})): print('held', flush=True); time.sleep(1000)"
    )
    with started("-c", hold) as other:
        wait_until(other.output.read_text, other)
        with pytest.raises(CacheBusy, match="another run is writing"), writing_lock(path):
            pass
        other.kill()
    with writing_lock(path):  # a killed writer leaves no lock behind
        pass


def test_a_folder_that_cannot_be_written_is_told_in_one_line(unwritable: Path) -> None:
    with pytest.raises(MmerError, match="cannot write to /sys/kernel"), writing_lock(unwritable):
        pass
