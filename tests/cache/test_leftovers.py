"""What killed writers leave is removed by the next one, and never while its writer lives."""

import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from click.testing import CliRunner
from filelock import FileLock

from cache.errors import MmerError
from cache.files import lock_of, locked, remove_leftovers, replacing
from cache.layout import StreamPlan
from cache.merge import merge_caches
from cache.rebuild import drop_stream
from cache.writer import leftovers, unwritable, writing_lock
from cli.maintain import info
from tests.support.processes import started, wait_until
from tests.support.toys import commit, create, plan_for, utterances_named

Toy = tuple[Path, StreamPlan]


HALF_WRITTEN = """
import sys, time
from pathlib import Path
from cache.files import replacing
with replacing(Path(sys.argv[1])) as fresh:
    fresh.write_text("half")
    print("begun", flush=True)
    time.sleep(1000)
"""


def test_the_file_of_a_killed_writer_is_removed_by_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    with started("-c", HALF_WRITTEN, str(path)) as writer:
        wait_until(writer.output.read_text, writer)
        assert list(tmp_path.glob(".scores.json.*"))
        with replacing(path) as fresh:  # while the first one lives
            fresh.write_text("second")
        assert len(list(tmp_path.glob(".scores.json.*"))) == 1
        writer.kill()
    with replacing(path) as fresh:
        fresh.write_text("third")
    assert path.read_text() == "third"
    assert not list(tmp_path.glob(".scores.json.*"))


@pytest.mark.parametrize("name", [".a.json.12", ".a.json.part"])
def test_leftovers_of_other_files_stay(tmp_path: Path, name: str) -> None:
    for other in (name, ".b.json.12", ".a.json.txt", "a.json.12"):
        (tmp_path / other).touch()
    remove_leftovers(tmp_path, "a.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.json.txt", ".b.json.12", "a.json.12"]


def test_a_locked_file_is_no_leftover(tmp_path: Path) -> None:
    with locked(tmp_path / ".a.12"):
        remove_leftovers(tmp_path)
        assert (tmp_path / ".a.12").exists()
    remove_leftovers(tmp_path)
    assert not (tmp_path / ".a.12").exists()


def commit_nothing(path: Path) -> None:
    with writing_lock(path):
        pass


def rebuild(path: Path) -> None:
    plan = plan_for([3, 5, 0, 2])
    create(path, utterances_named("abcd"), [plan])


def merge_over(path: Path) -> None:
    other = path.with_name("other.h5")
    create(other, utterances_named("xyz"), [plan_for([1, 1, 1])])
    merge_caches(path, [other], replace=True)


@pytest.mark.parametrize("write", [commit_nothing, rebuild, merge_over])
def test_every_writer_of_a_cache_removes_the_parts_of_killed_ones(toy: Toy, write: Callable[[Path], None]) -> None:
    part = toy[0].with_name(f".{toy[0].name}.123.part")
    part.write_bytes(bytes(1000))
    assert leftovers(toy[0]) == [part]
    write(toy[0])
    assert leftovers(toy[0]) == []


def test_info_tells_of_leftovers_but_not_of_a_file_that_is_being_written(toy: Toy) -> None:
    part = toy[0].with_name(f".{toy[0].name}.123.part")
    part.write_bytes(bytes(1000))
    told = CliRunner().invoke(info, [str(toy[0])]).output
    assert f"a killed run left {part} (1.0 kB); the next command that writes to {toy[0]} removes it" in told
    with FileLock(f"{toy[0]}.lock"):
        assert "killed" not in CliRunner().invoke(info, [str(toy[0])]).output


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_the_mode_of_a_cache_survives_a_rebuild(tmp_path: Path, mode: int) -> None:
    path, plans = tmp_path / "a.h5", [plan_for([3, 2]), plan_for([3, 2], name="other")]
    create(path, utterances_named("ab"), plans)
    commit(path, plans[0], [0, 1])
    path.chmod(mode)
    drop_stream(path, "other")
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_the_mode_of_a_written_file_survives_its_replacement(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    path.touch(mode=0o600)
    with replacing(path) as fresh:
        fresh.write_text("new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(("folder", "lock"), [(0o777, 0o666), (0o770, 0o660), (0o755, 0o644), (0o700, 0o600)])
def test_whoever_may_write_to_a_folder_may_hold_its_locks(tmp_path: Path, folder: int, lock: int) -> None:
    tmp_path.chmod(folder)
    held = lock_of(tmp_path / "a.h5.lock")
    held.acquire()
    held.release()
    assert stat.S_IMODE((tmp_path / "a.h5.lock").stat().st_mode) == lock


def test_the_file_that_cannot_be_written_is_named_if_its_folder_can(tmp_path: Path) -> None:
    lock = tmp_path / "a.h5.lock"
    lock.touch()
    error = PermissionError(13, "Permission denied", str(lock))
    assert str(unwritable(tmp_path, error)) == f"cannot write to {lock} (Permission denied); make it writable"
    missing = PermissionError(13, "Permission denied", str(tmp_path / "no"))
    assert str(unwritable(tmp_path, missing)).startswith(f"cannot write to {tmp_path} (Permission denied)")


def test_weights_and_texts_count_as_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import cache.rebuild

    plan = plan_for([1])
    needed = cache.rebuild.plan_bytes([plan])
    monkeypatch.setattr(cache.rebuild, "free_bytes", lambda folder: needed + 1000)
    create(tmp_path / "a.h5", utterances_named("a"), [plan])
    with pytest.raises(MmerError, match="GB needed"):
        create(tmp_path / "b.h5", utterances_named("b"), [plan], enc={"w": np.zeros(1000)})
    assert sorted(os.listdir(tmp_path)) == ["a.h5", "a.h5.lock", "b.h5.lock"]  # noqa: PTH208


def test_a_file_that_is_removed_before_it_is_locked_is_created_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, lock = tmp_path / ".a.json.12", fcntl.flock
    removals = iter([path])  # one, by another process that looks for leftovers at this moment

    def late(file: IO[bytes], flags: int) -> None:
        for leftover in removals:
            leftover.unlink()
        lock(file, flags)

    monkeypatch.setattr(fcntl, "flock", late)
    with locked(path):
        assert path.exists()
