"""Reader of a cache file: its rows are memory-mapped, so that a random batch costs about one memcpy."""

import mmap
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from cache.errors import CacheUnreadable, MmerError
from cache.layout import COMMITTED, CacheLayout, Region, StreamLayout, open_layout, read_weights
from cache.rows import StoredRows, from_stored
from cache.stream import StreamSpec
from cache.utterance import Utterance

Named = TypeVar("Named")


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

    def __init__(self, layout: StreamLayout, buffer: mmap.mmap, ids: Sequence[str], path: Path) -> None:
        self.spec: StreamSpec = layout.spec
        self.key = layout.key
        self.offsets = layout.offsets
        self.lengths: npt.NDArray[np.int64] = np.diff(layout.offsets)
        arrays = {name: _mapped(region, buffer) for name, region in layout.regions.items()}
        self.values = arrays["values"]
        self.scales = arrays.get("scales")
        self.state, self.checksum = arrays["state"], arrays["checksum"]
        self.input_digest, self._reasons = arrays["input_digest"], arrays["reason"]
        self._ids, self._path = ids, path

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
            self._buffer = _map_file(path, descriptor)
        self.ids = [utterance.id for utterance in self.utterances]
        self.streams: Mapping[str, Stream] = {
            name: Stream(layout, self._buffer, self.ids, path) for name, layout in self.layout.streams.items()
        }

    def __reduce__(self) -> tuple[type["FeatureCache"], tuple[Path]]:
        return FeatureCache, (self.path,)

    def __len__(self) -> int:
        return len(self.ids)

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
        return self.all_weights().get(encoder, {})

    def all_weights(self) -> dict[str, dict[str, npt.NDArray[Any]]]:
        """Reads the weights of all encoders, by encoder and name."""
        return self._weights

    @cached_property
    def _weights(self) -> dict[str, dict[str, npt.NDArray[Any]]]:
        # read once: the plans of a grid share these arrays, which take a hundred megabytes for a large encoder
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


def _map_file(path: Path, descriptor: int) -> mmap.mmap:
    try:
        return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    except OSError as error:  # each mapped file counts as an open file
        raise CacheUnreadable(
            f"{path} cannot be mapped ({error.strerror}); see ulimit -n, or merge the files"
        ) from error


def _mapped(region: Region, buffer: mmap.mmap) -> npt.NDArray[Any]:
    if not region.shape[0]:
        return np.empty(region.shape, dtype=region.dtype)
    return np.ndarray(region.shape, region.dtype, buffer=buffer, offset=region.offset)
