"""Rows that have rotted, and files that change while they are read, end a run with one line."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import cache.store
from cache.errors import CacheUnreadable, DamagedRows, MmerError
from cache.joined import open_cache
from cache.layout import CacheLayout, read_layout
from cache.rows import StoredRows, rows_checksum, to_stored
from cache.writer import CacheWriter, Row, writing_lock
from fusion.data.features import CachedFeatures
from tests.support.toys import commit, create, plan_for, utterances_named
from tests.support.trainings import LABELS, STREAMS, toy_source, write_cache

NO_ROOM, MUCH = 0, 1 << 30  # bytes on the device: rows are read as needed, or held


def overwrite(path: Path, stream: str, index: int, *, column: str = "values") -> None:
    """Flips the bits of one byte of an utterance on the disk."""
    layout: CacheLayout = read_layout(path)
    region, offsets = layout.streams[stream].regions[column], layout.streams[stream].offsets
    with path.open("r+b") as file:
        file.seek(region.offset + int(offsets[index]) * region.row_bytes)
        held = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([held[0] ^ 0xFF]))


def read_all(source: CachedFeatures) -> None:
    """Reads every utterance that batches may contain, in two batches."""
    for _ in source.batches(np.array_split(source.chosen, 2)):
        pass


@pytest.fixture
def cache_file(tmp_path: Path) -> Path:
    write_cache(tmp_path / "a.h5")
    return tmp_path / "a.h5"


@pytest.mark.parametrize("role", list(STREAMS))
@pytest.mark.parametrize("resident_bytes", [NO_ROOM, MUCH])
def test_a_rotten_row_ends_the_reading_with_its_utterance_and_stream(
    cache_file: Path, role: str, resident_bytes: int
) -> None:
    overwrite(cache_file, STREAMS[role], 3)
    with pytest.raises(DamagedRows, match=f"utterance u3 in {STREAMS[role]} are damaged.*; compute them again"):
        read_all(toy_source(cache_file, resident_bytes=resident_bytes))


@pytest.mark.parametrize("resident_bytes", [NO_ROOM, MUCH])
def test_a_rotten_scale_is_noticed(tmp_path: Path, resident_bytes: int) -> None:
    write_cache(tmp_path / "a.h5", dtype="int8")
    overwrite(tmp_path / "a.h5", STREAMS["audio"], 2, column="scales")
    with pytest.raises(DamagedRows, match="utterance u2 "):
        read_all(toy_source(tmp_path / "a.h5", resident_bytes=resident_bytes))


def test_the_command_that_repairs_is_that_of_the_caller(cache_file: Path) -> None:
    overwrite(cache_file, STREAMS["text"], 0)
    source = CachedFeatures(
        open_cache(cache_file), STREAMS, LABELS, resident_bytes=NO_ROOM, repair=lambda name: f"repair {name}"
    )
    with pytest.raises(DamagedRows, match=f"compute them again with repair {STREAMS['text']}"):
        read_all(source)


@pytest.mark.parametrize("resident_bytes", [NO_ROOM, MUCH])
def test_rows_that_a_run_does_not_read_are_not_checked(cache_file: Path, resident_bytes: int) -> None:
    overwrite(cache_file, STREAMS["audio"], 3)
    chosen = np.array([index for index in range(len(LABELS)) if index != 3])
    read_all(CachedFeatures(open_cache(cache_file), STREAMS, LABELS, chosen=chosen, resident_bytes=resident_bytes))


def test_a_single_row_is_checked_where_it_is_read_alone(cache_file: Path) -> None:
    overwrite(cache_file, STREAMS["audio"], 3)
    source = toy_source(cache_file, resident_bytes=NO_ROOM)
    assert len(source.rows("audio", 2))
    with pytest.raises(DamagedRows, match="utterance u3 "):
        source.rows("audio", 3)


def test_a_rotten_row_of_the_second_file_of_a_pattern_is_named(tmp_path: Path) -> None:
    for number, names in enumerate(("abc", "def")):
        path, plan = tmp_path / f"x{number}.h5", plan_for([3, 4, 5])
        create(path, utterances_named(names), [plan])
        commit(path, plan, [0, 1, 2])
    overwrite(tmp_path / "x1.h5", "enc", 1)
    source = CachedFeatures(open_cache(tmp_path / "x*.h5"), {"audio": "enc"}, np.zeros(6, int), resident_bytes=NO_ROOM)
    with pytest.raises(DamagedRows, match=r"x1\.h5: rows of utterance e in enc"):
        read_all(source)


@pytest.mark.parametrize("resident_bytes", [NO_ROOM, MUCH])
def test_each_row_is_checked_once(cache_file: Path, monkeypatch: pytest.MonkeyPatch, resident_bytes: int) -> None:
    counted: list[int] = []

    def counting(stored: StoredRows) -> int:
        counted.append(1)
        return rows_checksum(stored)

    monkeypatch.setattr(cache.store, "rows_checksum", counting)
    source = toy_source(cache_file, resident_bytes=resident_bytes)
    read_all(source)
    first = len(counted)
    read_all(source)
    assert first == len(LABELS) * len(STREAMS)
    assert len(counted) == first


def commit_again(path: Path) -> None:
    """Commits other rows of an utterance in place, as `mmer-featurize` does for a changed recording."""
    layout = read_layout(path)
    stream = layout.streams[STREAMS["audio"]]
    rows = int(stream.offsets[4] - stream.offsets[3])
    stored = to_stored(np.ones((rows, *stream.spec.shape), np.float32), stream.spec.dtype)
    with writing_lock(path), CacheWriter(layout) as writer:
        writer.commit([Row(stream=stream.spec.name, index=3, stored=stored, digest=b"d" * 16)])


def copy_over(path: Path) -> None:
    """Copies another cache of the same size into the file."""
    other = path.with_name("other.h5")
    shutil.copyfile(path, other)
    commit_again(other)
    path.write_bytes(other.read_bytes())


@pytest.mark.parametrize("rewrite", [commit_again, copy_over])
def test_a_cache_that_is_rewritten_while_it_is_read_ends_the_run(
    cache_file: Path, rewrite: Callable[[Path], None]
) -> None:
    source = toy_source(cache_file, resident_bytes=NO_ROOM)
    read_all(source)
    rewrite(cache_file)
    with pytest.raises(MmerError, match=r"was rewritten while it was read \(1 of \d+ utterances"):
        read_all(source)


def test_a_row_that_is_made_pending_while_it_is_read_ends_the_run(cache_file: Path) -> None:
    source = toy_source(cache_file, resident_bytes=NO_ROOM)
    read_all(source)
    with writing_lock(cache_file), CacheWriter(read_layout(cache_file)) as writer:
        writer.reset(STREAMS["text"], [1])
    with pytest.raises(MmerError, match=f"u1 has no {STREAMS['text']} "):
        read_all(source)


def test_rows_that_rot_later_are_noticed_in_the_next_epoch(cache_file: Path) -> None:
    source = toy_source(cache_file, resident_bytes=NO_ROOM)
    read_all(source)
    overwrite(cache_file, STREAMS["audio"], 3)
    read_all(source)  # the end of this epoch sees that the file was written to
    with pytest.raises(DamagedRows, match="utterance u3 "):
        read_all(source)


@pytest.mark.parametrize("resident_bytes", [NO_ROOM, MUCH])
def test_other_rows_may_be_committed_meanwhile(tmp_path: Path, resident_bytes: int) -> None:
    path, plan = tmp_path / "a.h5", plan_for([3, 4, 5])
    create(path, utterances_named("abc"), [plan])
    commit(path, plan, [0, 1])
    source = CachedFeatures(open_cache(path), {"audio": "enc"}, np.zeros(3, int), resident_bytes=resident_bytes)
    read_all(source)
    commit(path, plan, [2])
    read_all(source)
    source.check_unchanged()


def test_a_cache_that_a_rename_replaces_is_read_to_the_end(cache_file: Path) -> None:
    source = toy_source(cache_file, resident_bytes=NO_ROOM)
    (cache_file.with_name("new.h5")).write_bytes(b"not a cache")
    cache_file.with_name("new.h5").replace(cache_file)
    read_all(source)


@pytest.mark.parametrize("moment", ["between epochs", "inside an epoch"])
def test_a_cache_that_is_cut_short_ends_the_run_with_a_line(cache_file: Path, moment: str) -> None:
    source = toy_source(cache_file, resident_bytes=NO_ROOM)
    if moment == "between epochs":
        read_all(source)
        os.truncate(cache_file, 4096)
        with pytest.raises(CacheUnreadable, match="was cut short to 4096 bytes while it was read"):
            read_all(source)
        return
    batches = source.batches([np.array([index]) for index in range(len(LABELS))])
    next(batches)
    os.truncate(cache_file, 4096)
    with pytest.raises(CacheUnreadable, match="was cut short"):
        list(batches)
