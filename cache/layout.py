"""The HDF5 layout of cache format 1: creation of a complete file, and the byte offsets of its datasets.

All datasets that a run writes are contiguous, allocated when the file is created and aligned to 4096 bytes. Rows are
therefore written and mapped at byte offsets that never change, and HDF5 metadata are not touched after creation. This
file alone knows the names of groups and datasets; `cache.utterance` owns the columns of utterances.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from cache.errors import CacheMissing, CacheUnreadable
from cache.stream import StreamSpec
from cache.utterance import Utterance, read_array, read_utterances, write_utterances

FORMAT, FORMAT_VERSION = "mmer-cache", 1
PENDING, COMMITTED, FAILED = 0, 1, 2
REASON_BYTES = 200

Weights = Mapping[str, Mapping[str, npt.NDArray[Any]]]  # encoder -> name -> values

BOOKKEEPING: Mapping[str, str] = {"state": "u1", "checksum": "<u8", "input_digest": "V16", "reason": f"S{REASON_BYTES}"}


@dataclass(frozen=True, kw_only=True)
class StreamPlan:
    """A stream to create: the rows reserved for each utterance, and the utterances that failed beforehand.

    Attributes:
        spec: description of the rows that will be computed.
        lengths: rows of each utterance, int64 ``(n,)``, 0 for failed utterances.
        failures: index of an utterance -> why nothing can be computed for it.
    """

    spec: StreamSpec
    lengths: npt.NDArray[np.int64]
    failures: Mapping[int, str]


@dataclass(frozen=True)
class Region:
    """The byte range of a dataset in the file; an empty dataset has offset 0, which is never used."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def row_bytes(self) -> int:
        """Bytes from one row to the next."""
        return int(np.prod(self.shape[1:])) * self.dtype.itemsize

    @property
    def end(self) -> int:
        """First byte after the dataset."""
        return self.offset + self.shape[0] * self.row_bytes


@dataclass(frozen=True, kw_only=True)
class StreamLayout:
    """One stream of an existing file: its spec, its offsets and the byte ranges of its datasets."""

    spec: StreamSpec
    key: str
    offsets: npt.NDArray[np.int64]
    regions: Mapping[str, Region]


@dataclass(frozen=True, kw_only=True)
class CacheLayout:
    """The contents of an existing file: header, utterances, and the layout of every stream.

    Attributes:
        path: the file.
        header: ``mmer_version``, ``created`` and ``corpus`` (a mapping).
        utterances: all utterances, in row order.
        streams: by name.
    """

    path: Path
    header: Mapping[str, Any]
    utterances: Sequence[Utterance]
    streams: Mapping[str, StreamLayout]


def create_file(
    path: Path,
    *,
    header: Mapping[str, Any],
    utterances: Sequence[Utterance],
    plans: Sequence[StreamPlan],
    weights: Weights,
) -> None:
    """Writes a complete cache file with every row pending or failed, and syncs it to disk."""
    with h5py.File(h5py.h5f.create(os.fsencode(path), h5py.h5f.ACC_EXCL, fapl=_aligned())) as file:
        file.attrs.update({"format": FORMAT, "format_version": FORMAT_VERSION})
        file.attrs.update({name: header[name] for name in ("mmer_version", "created")})
        file.attrs["corpus"] = json.dumps(header["corpus"], sort_keys=True)
        write_utterances(file.create_group("utterances"), utterances)
        streams = file.create_group("streams")
        for plan in plans:
            _create_stream(streams.create_group(plan.spec.name), plan)
        for encoder, arrays in weights.items():
            for name, values in arrays.items():
                file.create_dataset(f"weights/{encoder}/{name}", data=values)
    with path.open("rb+") as handle:
        os.fsync(handle.fileno())


def read_layout(path: Path) -> CacheLayout:
    """Reads the layout of a file, then closes it.

    Raises:
        CacheMissing: if the file does not exist.
        CacheUnreadable: if it is not a cache, is damaged, or has another format version.
    """
    with _reading(path) as file:
        header = {name: file.attrs[name] for name in ("mmer_version", "created")}
        header["corpus"] = dict(json.loads(file.attrs["corpus"]))
        streams = {name: _read_stream(group) for name, group in file["streams"].items()}
        utterances = read_utterances(file["utterances"])
    size = path.stat().st_size
    end = max((region.end for stream in streams.values() for region in stream.regions.values()), default=0)
    if end > size:
        raise CacheUnreadable(
            f"{path} is truncated ({size} bytes); expected at least {end}; copy it again, or run mmer-featurize again"
        )
    return CacheLayout(path=path, header=header, utterances=utterances, streams=streams)


def read_weights(path: Path) -> dict[str, dict[str, npt.NDArray[Any]]]:
    """Reads the weights that initialize heads, by encoder and name."""
    with _reading(path) as file:
        groups = file["weights"].items() if "weights" in file else ()
        return {encoder: {name: read_array(group, name) for name in group} for encoder, group in groups}


def reason_bytes(reason: str) -> bytes:
    """Returns a reason as UTF-8, cut to the size of its field but never inside a character."""
    return reason.encode("utf-8", "replace")[:REASON_BYTES].decode("utf-8", "ignore").encode()


@contextmanager
def _reading(path: Path) -> Iterator[h5py.File]:
    """Opens a cache; turns every error of HDF5 into one line."""
    if path.is_dir():
        raise CacheUnreadable(f"{path} is a folder, not a cache file")
    if not path.is_file():
        raise CacheMissing(f"no cache at {path}; make one with mmer-featurize CORPUS --cache {path}")
    try:
        # No HDF5 lock: the file's metadata never change, and readers may work while a run writes.
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        reason = " ".join(str(error).split())
        raise CacheUnreadable(f"{path} is not a readable cache ({reason}); remove it or choose another file") from error
    with file:
        try:
            _check_format(path, file)
            yield file
        except (KeyError, ValueError, TypeError, AttributeError, RuntimeError, OSError) as error:
            reason = " ".join(str(error).split())
            raise CacheUnreadable(f"{path} is damaged ({reason}); remove it and run mmer-featurize again") from error


def _check_format(path: Path, file: h5py.File) -> None:
    if file.attrs.get("format") != FORMAT:
        raise CacheUnreadable(f"{path} is an HDF5 file but not an mmer cache; choose another file")
    version = int(file.attrs.get("format_version", 0))
    if version != FORMAT_VERSION:
        raise CacheUnreadable(
            f"{path} has cache format {version}, this mmer reads format {FORMAT_VERSION}; "
            f"{'upgrade mmer' if version > FORMAT_VERSION else 'run mmer-featurize again'}"
        )


def _aligned() -> h5py.h5p.PropFAID:
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_alignment(1, 4096)  # page size: a mapped row never shares a page with metadata
    return access


def _create_stream(group: h5py.Group, plan: StreamPlan) -> None:
    spec, count = plan.spec, len(plan.lengths)
    group.attrs.update({"spec": spec.to_json(), "key": spec.key})
    offsets = np.concatenate([[0], np.cumsum(plan.lengths)]).astype("<i8")
    _create_region(group, "offsets", (count + 1,), "<i8")[...] = offsets
    _create_region(group, "values", (int(offsets[-1]), *spec.shape), spec.dtype)
    if spec.dtype == "int8":
        _create_region(group, "scales", (int(offsets[-1]),), "<f2")
    # All bookkeeping is allocated on disk now, so that a full disk cannot prevent later writes to it.
    columns = {name: np.zeros(count, dtype=dtype) for name, dtype in BOOKKEEPING.items()}
    for index, reason in plan.failures.items():
        columns["state"][index], columns["reason"][index] = FAILED, reason_bytes(reason)
    for name, values in columns.items():
        _create_region(group, name, values.shape, BOOKKEEPING[name])[...] = values


def _create_region(group: h5py.Group, name: str, shape: tuple[int, ...], dtype: str) -> h5py.Dataset:
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_layout(h5py.h5d.CONTIGUOUS)
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    space, kind = h5py.h5s.create_simple(shape), h5py.h5t.py_create(np.dtype(dtype), logical=True)
    return h5py.Dataset(h5py.h5d.create(group.id, name.encode(), kind, space, creation))


def _read_stream(group: h5py.Group) -> StreamLayout:
    spec = StreamSpec.from_json(group.attrs["spec"])
    names = ["values", *BOOKKEEPING, *(["scales"] if spec.dtype == "int8" else [])]
    regions = {name: _region(h5py.h5d.open(group.id, name.encode())) for name in names}
    return StreamLayout(spec=spec, key=str(group.attrs["key"]), offsets=read_array(group, "offsets"), regions=regions)


def _region(dataset: h5py.h5d.DatasetID) -> Region:
    offset = dataset.get_offset() if math.prod(dataset.shape) else 0
    if offset is None:
        raise ValueError(f"{h5py.h5i.get_name(dataset).decode()} is not contiguous")
    return Region(int(offset), dataset.shape, dataset.dtype)
