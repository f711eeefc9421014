"""Reader of a cache file: its rows are memory-mapped, so that a random batch costs about one memcpy.

A map of a file that is cut short kills the process that reads it, so the size is looked up before rows are read.
"""

import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from cache.errors import CacheUnreadable, DamagedRows, MmerError
from cache.layout import COMMITTED, CacheLayout, Region, StreamLayout, open_layout, read_weights
from cache.rows import StoredRows, from_stored, rows_checksum
from cache.stream import StreamSpec
from cache.utterance import Utterance

Named = TypeVar("Named")
Generation: TypeAlias = tuple[tuple[int, int], ...]  # of each file: when its contents and its inode were written
HASHING = min(4, os.cpu_count() or 1)  # threads that compute checksums; more wait for the memory


class PackedRows(NamedTuple):
    """Rows of several utterances, concatenated without padding, and the number of each.

    Attributes:
        rows: ``(total rows, ...)``; float32 for an int8 stream, the stored type otherwise.
        lengths: rows per utterance, int64 ``(batch,)``.
    """

    rows: npt.NDArray[Any]
    lengths: npt.NDArray[np.int64]


class Stream:
    """One stream of a memory-mapped cache.

    Attributes:
        spec: description of the computed rows.
        key: digest of the spec, as stored in the file.
        offsets: first row of each utterance and the end of the last, int64 ``(n + 1,)``.
        lengths: rows of each utterance, int64 ``(n,)``.
        values: all rows in their stored type, ``(rows, ...)``.
        scales: scale of each row of an int8 stream, float16 ``(rows,)``; None for other types.
        state: pending, committed or failed, uint8 ``(n,)``.
        checksum: checksum of each utterance's committed rows, uint64 ``(n,)``.
        input_digest: digest of exactly what the encoder consumed, 16 bytes each, ``(n,)``.
    """

    def __init__(self, layout: StreamLayout, mapped: "MappedFile", ids: Sequence[str], path: Path) -> None:
        self.spec: StreamSpec = layout.spec
        self.key = layout.key
        self.offsets = layout.offsets
        self.lengths: npt.NDArray[np.int64] = np.diff(layout.offsets)
        arrays = {name: mapped.array(region) for name, region in layout.regions.items()}
        self.values = arrays["values"]
        self.scales = arrays.get("scales")
        self.state, self.checksum = arrays["state"], arrays["checksum"]
        self.input_digest, self._reasons = arrays["input_digest"], arrays["reason"]
        self._ids, self._path, self._file = ids, path, mapped
        self._checked = np.zeros(len(ids), dtype=bool)  # utterances whose rows matched their checksum

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def rows(self) -> int:
        """Rows of all utterances together."""
        return len(self.values)

    def reason(self, index: int) -> str:
        """Returns why an utterance failed, or the note of a committed utterance."""
        return bytes(self._reasons[index]).decode("utf-8", "replace")

    def stored(self, index: int) -> StoredRows:
        """Returns the rows of an utterance in their stored type, without a copy and in any state."""
        self._file.check_size()
        rows = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        return StoredRows(self.values[rows], None if self.scales is None else self.scales[rows])

    def read(self, index: int) -> npt.NDArray[Any]:
        """Returns the rows of one utterance, ``(rows, ...)``.

        They are read-only, and not copied unless the stream is int8.

        Raises:
            MmerError: if the utterance is not committed.
        """
        self._check_committed([index])
        return from_stored(*self.stored(index))

    def check_rows(self, indices: npt.NDArray[np.int64]) -> None:
        """Compares rows of committed utterances with their checksums, each utterance once while the cache is open.

        Args:
            indices: utterances, int64 ``(n,)``.

        Raises:
            DamagedRows: if rows are not those that were committed.
            CacheUnreadable: if the file was cut short.
        """
        due = indices[~self._checked[indices]]
        if not len(due):
            return
        for index, sound in zip(due.tolist(), self._compare(due.tolist()), strict=True):
            if not sound:
                raise DamagedRows(
                    f"{self._path}: rows of utterance {self._ids[index]} in {self.spec.name} are damaged (their "
                    "checksum differs)",
                    stream=self.spec.name,
                )
        self._checked[due] = True

    def row_versions(self) -> npt.NDArray[np.uint64]:
        """Returns the checksum of each committed utterance as the file has it now, 0 for others, uint64 ``(n,)``."""
        self._file.check_size()
        return np.where(np.asarray(self.state) == COMMITTED, self.checksum, np.uint64(0))

    def recheck_rows(self) -> None:
        """Makes `check_rows` compare all rows again, since the file has changed."""
        self._checked[:] = False

    def _compare(self, indices: Sequence[int]) -> Iterator[bool]:
        """Yields True for each utterance whose rows match their checksum; blake2b runs outside the interpreter lock."""
        if HASHING == 1 or len(indices) < 2 * HASHING:
            yield from map(self._matches, indices)
            return
        with ThreadPoolExecutor(HASHING) as threads:
            yield from threads.map(self._matches, indices)

    def _matches(self, index: int) -> bool:
        return rows_checksum(self.stored(index)) == int(self.checksum[index])

    def pack(self, indices: Sequence[int], out: npt.NDArray[Any] | None = None) -> PackedRows:
        """Copies the rows of several utterances into one array without padding.

        Args:
            indices: utterances, in the order of the result.
            out: array to reuse, of the stored type (float32 for int8), with at least as many rows as needed.

        Raises:
            MmerError: if one of the utterances is not committed.
            ValueError: if `out` is too short.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        lengths: npt.NDArray[np.int64] = self.lengths[chosen]
        ends = np.cumsum(lengths)
        total = int(lengths.sum())
        out = self.output_array(total, out)
        self.copy_into(out, chosen, ends)
        return PackedRows(out[:total], lengths)

    def output_array(self, rows: int, out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """Returns an array for rows as they are read, at least ``(rows, ...)``: `out` if it is given.

        Raises:
            ValueError: if `out` is too short.
        """
        if out is None:
            dtype = self.values.dtype if self.scales is None else np.dtype(np.float32)
            return np.empty((rows, *self.spec.shape), dtype=dtype)
        if len(out) < rows:
            raise ValueError(f"out must hold {rows} rows of {self.spec.name}, got {len(out)}")
        return out

    def copy_into(self, out: npt.NDArray[Any], chosen: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> None:
        """Copies the rows of the chosen utterances into `out`.

        Args:
            out: ``(total rows, ...)``.
            chosen: indices of utterances, ``(batch,)``.
            ends: row of `out` after the last one of each utterance, ``(batch,)``.

        Raises:
            MmerError: if one of the utterances is not committed.
        """
        self._file.check_size()
        self._check_committed(chosen.tolist())
        starts, stops = self.offsets[chosen], self.offsets[chosen + 1]
        for start, stop, end in zip(starts.tolist(), stops.tolist(), ends.tolist(), strict=True):
            scales = None if self.scales is None else self.scales[start:stop]
            out[end - (stop - start) : end] = from_stored(self.values[start:stop], scales)

    def _check_committed(self, indices: Sequence[int]) -> None:
        for index in indices:
            if self.state[index] != COMMITTED:
                reason = self.reason(index) or "not computed yet"
                raise MmerError(
                    f"{self._path}: {self._ids[index]} has no {self.spec.name} ({reason}); "
                    "run mmer-featurize again or leave it out"
                )


class FeatureCache:
    """An open cache file: its utterances, its streams and the weights that initialize heads.

    It holds a read-only memory map and no HDF5 handle, so that it survives a fork; a pickled one reopens its file.

    Args:
        path: the cache file.

    Raises:
        CacheMissing: if the file does not exist.
        CacheUnreadable: if it is not a cache, is damaged, or has another format version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with open_layout(path) as (layout, descriptor):  # one file, even if another one replaces it meanwhile
            self.layout: CacheLayout = layout
            self._file = MappedFile(path, descriptor)
        self.ids = [utterance.id for utterance in self.utterances]
        self.streams: Mapping[str, Stream] = {
            name: Stream(layout, self._file, self.ids, path) for name, layout in self.layout.streams.items()
        }
        # Read once: the plans of a grid share these arrays, which take a hundred megabytes for a large encoder.
        self._weights: dict[str, dict[str, npt.NDArray[Any]]] = {}

    def __reduce__(self) -> tuple[type["FeatureCache"], tuple[Path]]:
        return FeatureCache, (self.path,)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def generation(self) -> Generation:
        """Times of the last writing to the open file; they stay if a rename replaced it, since its rows stay, too.

        Raises:
            CacheUnreadable: if the file was cut short.
        """
        return self._file.generation()

    @property
    def files(self) -> Sequence["FeatureCache"]:
        """The open files, here only this cache itself; see `cache.joined` for several files."""
        return [self]

    @property
    def header(self) -> Mapping[str, Any]:
        """``mmer_version``, ``created`` and ``corpus``, a mapping with its name and root."""
        return self.layout.header

    @property
    def utterances(self) -> Sequence[Utterance]:
        """All utterances, in row order."""
        return self.layout.utterances

    def stream(self, name: str) -> Stream:
        """Returns a stream by name.

        Raises:
            MmerError: if the cache has no stream of that name.
        """
        return find_stream(self.streams, name, self.path)

    def weights(self, encoder: str) -> dict[str, npt.NDArray[Any]]:
        """Reads the weights of an encoder that initialize heads, by name; empty if it has none."""
        if encoder not in self._weights:
            self._weights[encoder] = read_weights(self.path, self.layout.stamp, encoder=encoder).get(encoder, {})
        return self._weights[encoder]

    def all_weights(self) -> dict[str, dict[str, npt.NDArray[Any]]]:
        """Reads the weights of all encoders, by encoder and name."""
        return read_weights(self.path, self.layout.stamp)


def find_stream(streams: Mapping[str, Named], name: str, path: Path) -> Named:
    """Finds a stream of a cache by name.

    Raises:
        MmerError: if no stream has that name, with the names that exist.
    """
    try:
        return streams[name]
    except KeyError:
        known = ", ".join(streams) or "none"
        raise MmerError(f"{path} has no stream {name}; it has: {known}") from None


class MappedFile:
    """A cache file mapped through the descriptor that its layout was read from.

    Args:
        path: the file, for errors.
        descriptor: open descriptor of the file; the map keeps a copy of it.

    Raises:
        CacheUnreadable: if it cannot be mapped.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._absolute = path.absolute()  # the working folder may change
        try:
            self._buffer = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        except OSError as error:  # each mapped file counts as an open file
            raise CacheUnreadable(
                f"{path} cannot be mapped ({error.strerror}); see ulimit -n, or merge the files"
            ) from error
        self._size_bytes = len(self._buffer)
        found = os.fstat(descriptor)
        self._inode, self._generation = (found.st_dev, found.st_ino), _written(found)

    def array(self, region: Region) -> npt.NDArray[Any]:
        """Returns a dataset of the file as a read-only array."""
        if not region.shape[0]:
            return np.empty(region.shape, dtype=region.dtype)
        if region.end > len(self._buffer):
            raise self._cut_short(len(self._buffer))
        return np.ndarray(region.shape, region.dtype, buffer=self._buffer, offset=region.offset)

    def check_size(self) -> None:
        """Checks that the file is as long as when it was opened.

        Raises:
            CacheUnreadable: if it was cut short.
        """
        size_bytes = self._buffer.size()  # of the file, not of the map
        if size_bytes < self._size_bytes:
            raise self._cut_short(size_bytes)

    def generation(self) -> Generation:
        """Returns the times of the last writing to the mapped file, by its path.

        Raises:
            CacheUnreadable: if it was cut short.
        """
        self.check_size()
        with suppress(OSError):  # deleted or moved away: nothing writes to the mapped file by this path
            found = self._absolute.stat()
            if (found.st_dev, found.st_ino) == self._inode:
                self._generation = _written(found)
        return self._generation

    def _cut_short(self, size_bytes: int) -> CacheUnreadable:
        return CacheUnreadable(
            f"{self.path} was cut short to {size_bytes} bytes while it was read; restore it and run the command again"
        )


def _written(found: os.stat_result) -> Generation:
    return ((found.st_mtime_ns, found.st_ctime_ns),)
