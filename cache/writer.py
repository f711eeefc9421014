"""Writer of a cache: rows are committed to an existing file; a kill at any moment loses uncommitted rows only."""

import fcntl
import glob
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from filelock import Timeout

from cache.errors import CacheBusy, DiskFull, MmerError
from cache.files import NO_ROOM, blamed, lock_of
from cache.layout import COMMITTED, FAILED, PENDING, CacheLayout, reason_bytes
from cache.rows import StoredRows, bytes_of, rows_checksum


@dataclass(frozen=True, kw_only=True)
class Row:
    """The computed rows of one utterance in one stream.

    Attributes:
        stream: name of the stream.
        index: index of the utterance.
        stored: rows in their stored type, ``(rows, ...)``.
        digest: digest of exactly what the encoder consumed, 16 bytes.
        note: remark on the input; empty for none.
    """

    stream: str
    index: int
    stored: StoredRows
    digest: bytes
    note: str = ""


@contextmanager
def writing_lock(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Holds the lock for writing to a cache; readers need no lock. What killed runs left next to it is removed.

    Args:
        path: the cache file.
        wait: wait until another run has finished, without a time limit, instead of raising.

    Raises:
        CacheBusy: if another run holds the lock.
        MmerError: if the folder cannot be written, or the path is not a regular file.
    """
    if path.is_dir():
        raise MmerError(f"{path} is a folder; choose a file with --cache, such as {path / 'corpus.h5'}")
    if path.exists() and not path.is_file():
        raise MmerError(f"{path} is not a regular file; choose another file with --cache")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = lock_of(_lock_path(path), wait=wait)
        lock.acquire()
    except Timeout:
        raise CacheBusy(
            f"another run is writing to {path}; wait until it has finished, or choose another file with --cache"
        ) from None
    except OSError as error:
        raise unwritable(path.parent, error) from error
    try:
        for leftover in unfinished_files(path):
            leftover.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


def unfinished_files(path: Path) -> list[Path]:
    """Lists the new files for a cache that are not complete: those of a killed run, or of the run that writes now."""
    return sorted(path.parent.glob(f".{glob.escape(path.name)}.*.part"))


def leftovers(path: Path) -> list[Path]:
    """Lists the files that a killed run left next to a cache; none while another run may be writing them."""
    found = unfinished_files(path)
    try:
        with _lock_path(path).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return found
    except FileNotFoundError:
        return found
    except OSError:
        return []


def _lock_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def unwritable(folder: Path, error: OSError) -> MmerError:
    """Returns the error of one line for a folder that cannot be written."""
    reason = error.strerror or " ".join(str(error).split())
    if error.errno in NO_ROOM:
        return DiskFull(f"no space left in {folder} ({reason}); free some, or choose another folder with --cache")
    target = blamed(folder, error)
    way_out = "choose a writable folder with --cache" if target == folder else "make it writable"
    return MmerError(f"cannot write to {target} ({reason}); {way_out}")


class CacheWriter:
    """An open cache that rows are written to at their byte offsets: first the data are synced, then the state is set.

    The caller holds `writing_lock`. Any process may read the file meanwhile.
    """

    def __init__(self, layout: CacheLayout) -> None:
        self.layout = layout
        try:
            self._file = os.open(layout.path, os.O_RDWR)
        except OSError as error:
            raise unwritable(layout.path.parent, error) from error
        self.states = {name: self._read_states(name) for name in layout.streams}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def commit(self, rows: Sequence[Row]) -> None:
        """Writes rows, syncs them to disk, then marks them as committed.

        Raises:
            DiskFull: if the disk is full; rows committed before are not affected.
            ValueError: if the rows have another shape or type than the plan reserved.
        """
        if not rows:
            return
        with self._disk_errors():
            for row in rows:
                self._write_row(row)
            os.fdatasync(self._file)
            for row in rows:
                self._set_state(row.stream, row.index, COMMITTED)
            os.fdatasync(self._file)

    def fail(self, stream: str, index: int, reason: str) -> None:
        """Marks an utterance as failed, with the reason."""
        with self._disk_errors():
            self._set_state(stream, index, PENDING)
            self._write_item(stream, "reason", index, reason_bytes(reason))
            self._set_state(stream, index, FAILED)

    def note(self, stream: str, index: int, note: str) -> None:
        """Replaces the note of a committed utterance."""
        with self._disk_errors():
            self._write_item(stream, "reason", index, reason_bytes(note))

    def reset(self, stream: str, indices: Sequence[int]) -> None:
        """Marks committed or failed utterances as pending, so that they are computed again."""
        with self._disk_errors():
            for index in indices:
                self._set_state(stream, index, PENDING)
                self._write_item(stream, "reason", index, b"")
            os.fdatasync(self._file)

    def _write_row(self, row: Row) -> None:
        layout = self.layout.streams[row.stream]
        start, stop = int(layout.offsets[row.index]), int(layout.offsets[row.index + 1])
        expected = (stop - start, *layout.spec.shape)
        if row.stored.values.shape != expected or row.stored.values.dtype != layout.regions["values"].dtype:
            found = f"{row.stored.values.shape} {row.stored.values.dtype}"
            raise ValueError(f"{row.stream} of utterance {row.index} must be {expected} as planned, got {found}")
        if self.states[row.stream][row.index] != PENDING:
            self.reset(row.stream, [row.index])
        self._write_rows(row.stream, "values", start, row.stored.values)
        if row.stored.scales is not None:
            self._write_rows(row.stream, "scales", start, row.stored.scales)
        self._write_item(row.stream, "input_digest", row.index, row.digest)
        self._write_item(row.stream, "reason", row.index, reason_bytes(row.note))
        self._write_item(row.stream, "checksum", row.index, rows_checksum(row.stored).to_bytes(8, "little"))

    def _write_rows(self, stream: str, name: str, start: int, rows: npt.NDArray[Any]) -> None:
        region = self.layout.streams[stream].regions[name]
        self._write(region.offset + start * region.row_bytes, bytes_of(rows))

    def _write_item(self, stream: str, name: str, index: int, value: bytes) -> None:
        region = self.layout.streams[stream].regions[name]
        size = region.dtype.itemsize
        self._write(region.offset + index * size, memoryview(value.ljust(size, b"\0")))

    def _set_state(self, stream: str, index: int, state: int) -> None:
        self._write_item(stream, "state", index, bytes([state]))
        self.states[stream][index] = state

    def _write(self, offset: int, data: memoryview) -> None:
        while data:  # pwrite may write fewer bytes, for instance on a nearly full disk
            written = os.pwrite(self._file, data, offset)
            offset, data = offset + written, data[written:]

    def _read_states(self, stream: str) -> npt.NDArray[np.uint8]:
        region = self.layout.streams[stream].regions["state"]
        return np.frombuffer(os.pread(self._file, region.shape[0], region.offset), dtype=np.uint8).copy()

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        """Turns errors of the disk into one line."""
        try:
            yield
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise MmerError(f"cannot write to {self.layout.path} ({error.strerror})") from error
            raise DiskFull(
                f"no space left while writing {self.layout.path} ({error.strerror}); "
                "committed rows stay readable: free some space, then run the same command again"
            ) from error
