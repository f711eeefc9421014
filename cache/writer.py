"""Writes rows into an existing cache so that a kill at any moment loses only what was not yet committed."""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from cache.errors import CacheBusy, DiskFull, MmerError
from cache.layout import COMMITTED, FAILED, PENDING, CacheLayout, reason_bytes
from cache.rows import StoredRows

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, kw_only=True)
class Row:
    """The computed rows of one utterance in one stream.

    Attributes:
        stream: name of the stream.
        index: position of the utterance.
        stored: rows in their stored type, ``(rows, ...)``.
        digest: 16 bytes, of exactly what the encoder consumed.
        note: what was noticed about the input, empty where nothing was.
    """

    stream: str
    index: int
    stored: StoredRows
    digest: bytes
    note: str = ""


def rows_checksum(stored: StoredRows) -> int:
    """Gives the 64-bit checksum of stored rows, their scales included."""
    digest = blake2b(_bytes_of(stored.values), digest_size=8)
    if stored.scales is not None:
        digest.update(_bytes_of(stored.scales))
    return int.from_bytes(digest.digest(), "little")


@contextmanager
def writing_lock(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Holds the right to write to a cache; readers need none.

    Args:
        path: the cache file.
        wait: until another run is done, however long that takes, instead of stopping.

    Raises:
        CacheBusy: if another run holds it.
        MmerError: if the folder cannot be written, or the path is a folder itself.
    """
    if path.is_dir():
        raise MmerError(f"{path} is a folder; name a file by --cache, such as {path / 'corpus.h5'}")
    if path.exists() and not path.is_file():
        raise MmerError(f"{path} is no plain file; name another one by --cache")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{path}.lock", timeout=-1 if wait else 0)
        lock.acquire()
    except Timeout:
        raise CacheBusy(f"another run is writing to {path}; wait for it or name another file by --cache") from None
    except OSError as error:
        raise unwritable(path.parent, error) from error
    try:
        yield
    finally:
        lock.release()


def unwritable(folder: Path, error: OSError) -> MmerError:
    """Says in one line why nothing can be written to a folder."""
    why = error.strerror or " ".join(str(error).split())
    if error.errno in NO_ROOM:
        return DiskFull(f"no room in {folder} ({why}); free some or name another place by --cache")
    return MmerError(f"cannot write to {folder} ({why}); name a writable place by --cache")


class CacheWriter:
    """Writes rows at their byte offsets: data first, to disk, and only then the state.

    The caller holds `writing_lock`. The file stays open for reading by anybody.
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
        """Writes rows, flushes them to disk, then marks them as committed.

        Raises:
            DiskFull: if the disk fills up; whatever was committed before stays as it is.
            ValueError: if the rows are not those that the plan reserved.
        """
        if not rows:
            return
        with self._full_disk_told():
            for row in rows:
                self._write_row(row)
            os.fdatasync(self._file)
            for row in rows:
                self._set_state(row.stream, row.index, COMMITTED)
            os.fdatasync(self._file)

    def fail(self, stream: str, index: int, reason: str) -> None:
        """Marks an utterance as failed, with the reason."""
        with self._full_disk_told():
            self._set_state(stream, index, PENDING)
            self._write_item(stream, "reason", index, reason_bytes(reason))
            self._set_state(stream, index, FAILED)

    def note(self, stream: str, index: int, note: str) -> None:
        """Brings up to date what was noticed about a committed utterance."""
        with self._full_disk_told():
            self._write_item(stream, "reason", index, reason_bytes(note))

    def reset(self, stream: str, indices: Sequence[int]) -> None:
        """Takes back what was committed or failed, to be computed anew."""
        with self._full_disk_told():
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
        self._write(region.offset + start * region.row_bytes, _bytes_of(rows))

    def _write_item(self, stream: str, name: str, index: int, value: bytes) -> None:
        region = self.layout.streams[stream].regions[name]
        size = region.dtype.itemsize
        self._write(region.offset + index * size, memoryview(value.ljust(size, b"\0")))

    def _set_state(self, stream: str, index: int, state: int) -> None:
        self._write_item(stream, "state", index, bytes([state]))
        self.states[stream][index] = state

    def _write(self, offset: int, data: memoryview) -> None:
        while data:  # a short write is normal near a full disk
            written = os.pwrite(self._file, data, offset)
            offset, data = offset + written, data[written:]

    def _read_states(self, stream: str) -> npt.NDArray[np.uint8]:
        region = self.layout.streams[stream].regions["state"]
        return np.frombuffer(os.pread(self._file, region.shape[0], region.offset), dtype=np.uint8).copy()

    @contextmanager
    def _full_disk_told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise MmerError(f"cannot write to {self.layout.path} ({error.strerror})") from error
            raise DiskFull(
                f"no room left while writing {self.layout.path} ({error.strerror}); "
                "what is committed stays readable: free some and run the same command again"
            ) from error


def _bytes_of(rows: npt.NDArray[Any]) -> memoryview:
    # by way of uint8, since a memoryview cannot cast rows of shape (0, dim)
    return np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data
