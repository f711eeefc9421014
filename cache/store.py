"""Reads a cache: a memory map over its rows, so that a random batch costs about a memcpy."""

import mmap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cache.errors import MmerError
from cache.layout import COMMITTED, CacheLayout, Region, StreamLayout, read_layout, read_weights
from cache.rows import StoredRows, from_stored
from cache.stream import StreamSpec
from cache.utterance import Utterance


class PackedRows(NamedTuple):
    """Rows of several utterances, one after another, and how many each has.

    Attributes:
        rows: ``(total rows, ...)``; float32 for an int8 stream, the stored type otherwise.
        lengths: rows per utterance, int64 ``(batch,)``.
    """

    rows: npt.NDArray[Any]
    lengths: npt.NDArray[np.int64]


class Stream:
    """One stream of a mapped cache."""

    def __init__(self, layout: StreamLayout, buffer: mmap.mmap, ids: Sequence[str], path: Path) -> None:
        self.spec: StreamSpec = layout.spec
        self.key = layout.key
        self.offsets = layout.offsets
        arrays = {name: _mapped(region, buffer) for name, region in layout.regions.items()}
        self.values = arrays["values"]
        self.scales = arrays.get("scales")
        self.state, self.checksum = arrays["state"], arrays["checksum"]
        self.input_digest, self._reasons = arrays["input_digest"], arrays["reason"]
        self._ids, self._path = ids, path

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Rows of each utterance, int64 ``(n,)``."""
        return np.diff(self.offsets)

    def reason(self, index: int) -> str:
        """Says why an utterance failed, or what was noted of a committed one."""
        return bytes(self._reasons[index]).decode("utf-8", "replace")

    def stored(self, index: int) -> StoredRows:
        """Gives the rows of an utterance in their stored type, without a copy and whatever their state."""
        rows = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        return StoredRows(self.values[rows], None if self.scales is None else self.scales[rows])

    def read(self, index: int) -> npt.NDArray[Any]:
        """Gives the rows of one utterance, ``(rows, ...)``; read-only, without a copy where the type allows.

        Raises:
            MmerError: if the utterance is not committed.
        """
        self._check_committed([index])
        return from_stored(*self.stored(index))

    def pack(self, indices: Sequence[int], out: npt.NDArray[Any] | None = None) -> PackedRows:
        """Copies the rows of several utterances into one array without padding.

        Args:
            indices: utterances, in the order wanted.
            out: array to reuse, of the stored type (float32 for int8) and at least as many rows.

        Raises:
            MmerError: if one of the utterances is not committed.
            ValueError: if `out` is too short.
        """
        self._check_committed(indices)
        chosen = np.asarray(indices, dtype=np.int64)
        starts, stops = self.offsets[chosen], self.offsets[chosen + 1]
        lengths = stops - starts
        total = int(lengths.sum())
        if out is None:
            dtype = self.values.dtype if self.scales is None else np.dtype(np.float32)
            out = np.empty((total, *self.spec.shape), dtype=dtype)
        if len(out) < total:
            raise ValueError(f"out must hold {total} rows of {self.spec.name}, got {len(out)}")
        ends = np.cumsum(lengths)
        for start, stop, end in zip(starts.tolist(), stops.tolist(), ends.tolist(), strict=True):
            scales = None if self.scales is None else self.scales[start:stop]
            out[end - (stop - start) : end] = from_stored(self.values[start:stop], scales)
        return PackedRows(out[:total], lengths)

    def _check_committed(self, indices: Sequence[int]) -> None:
        for index in indices:
            if self.state[index] != COMMITTED:
                why = self.reason(index) or "not computed yet"
                raise MmerError(
                    f"{self._path}: {self._ids[index]} has no {self.spec.name} ({why}); "
                    "run mmer-featurize again or leave it out"
                )


class FeatureCache:
    """An open cache: its utterances, its streams and the weights that heads start from.

    It holds a read-only memory map and no HDF5 handle, so it may cross a fork; pickled, it reopens its file.

    Args:
        path: the cache file.

    Raises:
        CacheMissing: if there is no such file.
        CacheUnreadable: if it is no cache, a damaged one, or one of a newer format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.layout: CacheLayout = read_layout(path)
        with path.open("rb") as file:
            self._buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.ids = [utterance.id for utterance in self.utterances]
        self.streams: Mapping[str, Stream] = {
            name: Stream(layout, self._buffer, self.ids, path) for name, layout in self.layout.streams.items()
        }

    def __reduce__(self) -> tuple[type["FeatureCache"], tuple[Path]]:
        return FeatureCache, (self.path,)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def utterances(self) -> Sequence[Utterance]:
        """All utterances, in row order."""
        return self.layout.utterances

    def stream(self, name: str) -> Stream:
        """Gives a stream by name.

        Raises:
            MmerError: if the cache has none of that name.
        """
        try:
            return self.streams[name]
        except KeyError:
            known = ", ".join(self.streams) or "none"
            raise MmerError(f"{self.path} has no stream {name}; it has: {known}") from None

    def weights(self, encoder: str) -> dict[str, npt.NDArray[Any]]:
        """Reads the weights of an encoder that heads start from, by name; empty where there are none."""
        return read_weights(self.path).get(encoder, {})


def _mapped(region: Region, buffer: mmap.mmap) -> npt.NDArray[Any]:
    if not region.shape[0]:
        return np.empty(region.shape, dtype=region.dtype)
    return np.ndarray(region.shape, region.dtype, buffer=buffer, offset=region.offset)
