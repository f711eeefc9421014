"""The HDF5 layout of cache format 1: creation of a complete file, and the byte offsets of its datasets.

All datasets that a run writes are contiguous, allocated when the file is created and aligned to 4096 bytes. Rows are
therefore written and mapped at byte offsets that never change, and HDF5 metadata are not touched after creation. This
file alone knows the names of groups and datasets; `cache.utterance` owns the columns of utterances.

Every file is checked before a row is mapped, since it may come from anybody: each dataset has the type, byte order,
shape and bytes of format 1 and lies inside this file, and the offsets divide the rows among the utterances.
"""

import json
import math
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from cache.errors import CacheMissing, CacheUnreadable
from cache.hdf5 import Dataset, GuardedFile, NewFile, count_attribute, names_in, open_group, text_attribute
from cache.json_text import parse_json
from cache.stream import StreamSpec
from cache.utterance import Utterance, read_utterances, write_utterances

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
CHOOSE = "choose a cache file that mmer-featurize wrote"
# First bytes of files that are mistaken for caches -> their kind.
SIGNATURES: Mapping[bytes, str] = {
    b"RIFF": "a WAV recording",
    b"fLaC": "a FLAC recording",
    b"OggS": "an Ogg recording",
    b"ID3": "an MP3 recording",
    b"PK\x03\x04": "a zip archive",
    b"{": "a JSON file",
    b"id": "a table",
    b"version https://git-lfs": "a pointer of Git LFS",
}
FORMAT, FORMAT_VERSION = "mmer-cache", 1
PENDING, COMMITTED, FAILED = 0, 1, 2
REASON_BYTES = 200
# Errors of h5py, numpy and the checks while the contents of a file are read; a deep JSON is a RuntimeError.
DAMAGE = (LookupError, ValueError, TypeError, AttributeError, RuntimeError, OSError, OverflowError, MemoryError)

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
        return math.prod(self.shape[1:]) * self.dtype.itemsize

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
        stamp: the file behind the path when it was read: device and inode.
    """

    path: Path
    header: Mapping[str, Any]
    utterances: Sequence[Utterance]
    streams: Mapping[str, StreamLayout]
    stamp: tuple[int, int]


def create_file(
    path: Path,
    *,
    header: Mapping[str, Any],
    utterances: Sequence[Utterance],
    plans: Sequence[StreamPlan],
    weights: Weights,
    mode: int | None = None,
) -> None:
    """Writes a complete cache file with every row pending or failed, and syncs it to disk.

    Args:
        path: the file.
        header: ``mmer_version``, ``created`` and ``corpus``.
        utterances: all utterances, in row order.
        plans: streams of the file.
        weights: by encoder and name.
        mode: permissions of the file, as those of the file that it replaces; None for those of a new file.

    Raises:
        OSError: if the file exists, or cannot be written.
    """
    descriptor = os.open(
        path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else stat.S_IRUSR | stat.S_IWUSR
    )
    try:
        if mode is not None:
            os.fchmod(descriptor, mode | stat.S_IRUSR | stat.S_IWUSR)
        written = NewFile(descriptor)
        _write_file(written, header=header, utterances=utterances, plans=plans, weights=weights)
        if written.error is not None:
            raise written.error
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_file(
    written: NewFile,
    *,
    header: Mapping[str, Any],
    utterances: Sequence[Utterance],
    plans: Sequence[StreamPlan],
    weights: Weights,
) -> None:
    access = _aligned()
    access.set_fileobj_driver(h5py.h5fd.fileobj_driver, written)
    with h5py.File(h5py.h5f.create(repr(written).encode(), h5py.h5f.ACC_TRUNC, fapl=access)) as file:
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


def read_layout(path: Path) -> CacheLayout:
    """Reads the layout of a file, then closes it.

    Raises:
        CacheMissing: if the file does not exist.
        CacheUnreadable: if it is not a cache, is damaged, or has another format version.
    """
    with open_layout(path) as (layout, _):
        return layout


@contextmanager
def open_layout(path: Path) -> Iterator[tuple[CacheLayout, int]]:
    """Yields the layout of a file, and an open descriptor of that very file: the path may name another one by now.

    Raises:
        CacheMissing: if the file does not exist.
        CacheUnreadable: if it is not a cache, is damaged, or has another format version.
    """
    with _opened(path) as (root, descriptor):
        yield _layout(path, root, descriptor), descriptor


def read_weights(
    path: Path, stamp: tuple[int, int] | None = None, *, encoder: str | None = None
) -> dict[str, dict[str, npt.NDArray[Any]]]:
    """Reads the weights that initialize heads, by encoder and name.

    Args:
        path: the file.
        stamp: `CacheLayout.stamp` of the file that the weights must belong to; None for any file.
        encoder: the only encoder to read, if the file has weights of it; None for all.

    Raises:
        CacheMissing: if the file does not exist.
        CacheUnreadable: if it is not a cache, is damaged or has been replaced, or has another format version.
    """
    with _opened(path) as (root, descriptor):
        found = os.fstat(descriptor)
        if stamp not in {None, (found.st_dev, found.st_ino)}:
            raise CacheUnreadable(f"{path} was replaced by another file meanwhile; run the command again")
        if "weights" not in names_in(root):
            return {}
        weights = open_group(root, "weights")
        names = [name for name in names_in(weights) if encoder in {None, name}]
        return {name: _arrays(open_group(weights, name), descriptor, found.st_size) for name in names}


def reason_bytes(reason: str) -> bytes:
    """Returns a reason as UTF-8, cut to the size of its field but never inside a character."""
    return reason.encode("utf-8", "replace")[:REASON_BYTES].decode("utf-8", "ignore").encode()


@contextmanager
def _opened(path: Path) -> Iterator[tuple[h5py.h5g.GroupID, int]]:
    """Opens a cache once: yields its root group and the descriptor through which all is read."""
    if path.is_dir():
        raise CacheUnreadable(f"{path} is a folder, not a cache file")
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a pipe would wait for its writer
    except (FileNotFoundError, NotADirectoryError):
        raise CacheMissing(f"no cache at {path}; choose an existing file, or make one with mmer-featurize") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = (error.strerror if isinstance(error, OSError) else None) or _line(error)
        raise CacheUnreadable(f"{path} cannot be read ({reason}); choose another file") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise CacheUnreadable(f"{path} is not a regular file; choose a cache file")
        with _hdf5(path, descriptor) as file, _damage(path):
            root = h5py.h5g.open(file.id, b"/")
            _check_format(path, root)
            yield root, descriptor
    finally:
        os.close(descriptor)


def _hdf5(path: Path, descriptor: int) -> h5py.File:
    """Opens an HDF5 file without a lock: its metadata never change, and readers may work while a run writes."""
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    guarded = GuardedFile(descriptor)
    access.set_fileobj_driver(h5py.h5fd.fileobj_driver, guarded)
    try:
        return h5py.File(h5py.h5f.open(repr(guarded).encode(), h5py.h5f.ACC_RDONLY, fapl=access))
    except (OSError, RuntimeError, ValueError) as error:
        if os.pread(descriptor, len(HDF5_SIGNATURE), 0) != HDF5_SIGNATURE:
            raise CacheUnreadable(f"{path} is not a cache file but {_kind(descriptor)}; {CHOOSE}") from None
        raise CacheUnreadable(f"{path} is not a readable cache ({_line(error)}); {CHOOSE}") from error


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turns all that HDF5 and the checks of a file raise into one line."""
    try:
        yield
    except DAMAGE as error:
        reason = _line(error) or type(error).__name__
        raise CacheUnreadable(
            f"{path} is damaged ({reason}); copy it again, or write another file with mmer-featurize"
        ) from error


def _kind(descriptor: int) -> str:
    """Returns what a file that is no HDF5 file seems to be, from its first bytes."""
    start = os.pread(descriptor, 64, 0)
    if not start:
        return "empty"
    kinds = [kind for signature, kind in SIGNATURES.items() if start.startswith(signature)]
    return kinds[0] if kinds else "a file of another kind"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _check_format(path: Path, root: h5py.h5g.GroupID) -> None:
    try:
        is_cache = text_attribute(root, "format") == FORMAT
    except ValueError:
        is_cache = False
    if not is_cache:
        raise CacheUnreadable(f"{path} is an HDF5 file but not an mmer cache; choose another file")
    version = count_attribute(root, "format_version")
    if version != FORMAT_VERSION:
        raise CacheUnreadable(
            f"{path} has cache format {version}, this mmer reads format {FORMAT_VERSION}; "
            f"{'upgrade mmer' if version > FORMAT_VERSION else 'run mmer-featurize again'}"
        )


def _layout(path: Path, root: h5py.h5g.GroupID, descriptor: int) -> CacheLayout:
    found = os.fstat(descriptor)
    header: dict[str, Any] = {name: text_attribute(root, name) for name in ("mmer_version", "created")}
    header["corpus"] = _corpus(text_attribute(root, "corpus"))
    utterances = read_utterances(open_group(root, "utterances"), descriptor, found.st_size)
    groups = open_group(root, "streams")
    streams = {
        name: _read_stream(open_group(groups, name), name, len(utterances), descriptor, found.st_size)
        for name in names_in(groups)
    }
    end = max((region.end for stream in streams.values() for region in stream.regions.values()), default=0)
    if end > found.st_size:
        raise CacheUnreadable(
            f"{path} is truncated ({found.st_size} bytes); expected at least {end}; "
            "copy it again, or run mmer-featurize again"
        )
    stamp = found.st_dev, found.st_ino
    return CacheLayout(path=path, header=header, utterances=utterances, streams=streams, stamp=stamp)


def _corpus(text: str) -> dict[str, Any]:
    """Reads the corpus of a header: an object of plain values, its name and root among them."""
    corpus = parse_json(text)
    if not isinstance(corpus, dict):
        raise ValueError("corpus is not an object")
    for name in ("name", "root"):
        if not isinstance(corpus.get(name, ""), str):
            raise ValueError(f"{name} of corpus is not a text")
    return corpus


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


def _read_stream(group: h5py.h5g.GroupID, name: str, count: int, descriptor: int, size_bytes: int) -> StreamLayout:
    """Reads and checks one stream of `count` utterances."""
    spec = StreamSpec.from_json(text_attribute(group, "spec"))
    if spec.name != name:
        raise ValueError(f"stream {name} is described as {spec.name}")
    starts = Dataset(group, "offsets", "<i8", (count + 1,), descriptor)
    starts.check_inside(size_bytes)
    offsets = starts.numbers()
    if offsets[0] != 0 or (offsets[1:] < offsets[:-1]).any():
        raise ValueError(f"offsets of {name} do not divide its rows among {count} utterances")
    rows = int(offsets[-1])
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {"values": (spec.dtype, (rows, *spec.shape))}
    shapes |= {column: (dtype, (count,)) for column, dtype in BOOKKEEPING.items()}
    if spec.dtype == "int8":
        shapes["scales"] = ("<f2", (rows,))
    datasets = {column: Dataset(group, column, *expected, descriptor) for column, expected in shapes.items()}
    regions = {column: Region(held.offset, held.shape, held.dtype) for column, held in datasets.items()}
    return StreamLayout(spec=spec, key=text_attribute(group, "key"), offsets=offsets, regions=regions)


def _arrays(group: h5py.h5g.GroupID, descriptor: int, size_bytes: int) -> dict[str, npt.NDArray[Any]]:
    """Reads the weights of one encoder."""
    datasets = [Dataset(group, name, ..., None, descriptor) for name in names_in(group)]
    for dataset in datasets:
        dataset.check_inside(size_bytes)
    return {dataset.name: dataset.numbers() for dataset in datasets}
