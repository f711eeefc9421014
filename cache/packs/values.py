"""The rows of one stream as plain files, in three layouts; each has a writer and a reader that belong together.

npy: one array per utterance, ``NAME.npy``, and ``NAME.scales.npy`` beside it for int8.
packed: all rows in one ``values.npy`` (and ``scales.npy``), one utterance after another.
safetensors: shards ``values-00000.safetensors`` of about `SHARD_BYTES`, one tensor per utterance.

No layout needs more memory than an utterance, or a shard.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import cache as remembered
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from cache.errors import MmerError
from cache.packs.pack import load_array
from cache.packs.records import wanted
from cache.rows import StoredRows
from cache.stream import StreamSpec

SHARD_BYTES = 512 << 20  # a shard is held in memory while it is written

Where = dict[str, Any]  # the fields of a row's record that say where its values are
Write = Callable[[str, StoredRows], Where]
Read = Callable[[Where, int, str], StoredRows]  # from the record, the number of rows, and the place to tell in errors


@contextmanager
def _npy_writer(folder: Path, spec: StreamSpec, rows: int) -> Iterator[Write]:
    def write(name: str, stored: StoredRows) -> Where:
        np.save(folder / f"{name}.npy", stored.values, allow_pickle=False)
        if stored.scales is not None:
            np.save(folder / f"{name}.scales.npy", stored.scales, allow_pickle=False)
        return {"file": f"{name}.npy"}

    yield write


@contextmanager
def _packed_writer(folder: Path, spec: StreamSpec, rows: int) -> Iterator[Write]:
    values = _created(folder / "values.npy", (rows, *spec.shape), spec.dtype)
    scales = _created(folder / "scales.npy", (rows,), "float16") if spec.dtype == "int8" else None
    done = 0

    def write(name: str, stored: StoredRows) -> Where:
        nonlocal done
        start, done = done, done + len(stored.values)
        values[start:done] = stored.values
        if scales is not None:
            scales[start:done] = stored.scales
        return {"start": start}

    yield write
    values.flush()  # where a full disk shows


@contextmanager
def _safetensors_writer(folder: Path, spec: StreamSpec, rows: int) -> Iterator[Write]:
    shard: dict[str, npt.NDArray[Any]] = {}
    number, size_bytes = 0, 0

    def flush() -> None:
        nonlocal number, size_bytes
        save_file(shard, folder / _shard_name(number))
        shard.clear()
        number, size_bytes = number + 1, 0

    def write(name: str, stored: StoredRows) -> Where:
        nonlocal size_bytes
        shard[name] = np.ascontiguousarray(stored.values)
        if stored.scales is not None:
            shard[f"{name}.scales"] = np.ascontiguousarray(stored.scales)
        size_bytes += stored.values.nbytes
        where = {"file": _shard_name(number), "tensor": name}
        if size_bytes >= SHARD_BYTES:
            flush()
        return where

    yield write
    if shard:
        flush()


def _npy_reader(folder: Path, spec: StreamSpec) -> Read:
    def read(where: Where, rows: int, place: str) -> StoredRows:
        path = _inside(folder, where, place)
        scales = load_array(path.with_suffix(".scales.npy")) if spec.dtype == "int8" else None
        return StoredRows(load_array(path), scales)

    return read


def _packed_reader(folder: Path, spec: StreamSpec) -> Read:
    values = load_array(folder / "values.npy")
    scales = load_array(folder / "scales.npy") if spec.dtype == "int8" else None

    def read(where: Where, rows: int, place: str) -> StoredRows:
        start = wanted(where, "start", int, place)
        if not 0 <= start <= start + rows <= len(values):
            raise MmerError(f"{place}: rows {start} to {start + rows} lie outside the {len(values)} of values.npy")
        part = slice(start, start + rows)
        return StoredRows(values[part], None if scales is None else scales[part])

    return read


def _safetensors_reader(folder: Path, spec: StreamSpec) -> Read:
    opened = remembered(_opened)

    def read(where: Where, rows: int, place: str) -> StoredRows:
        path, name = _inside(folder, where, place), wanted(where, "tensor", str, place)
        try:
            shard = opened(path)
            scales = shard.get_tensor(f"{name}.scales") if spec.dtype == "int8" else None
            return StoredRows(shard.get_tensor(name), scales)
        except (SafetensorError, OSError, TypeError) as error:
            raise MmerError(f"{place}: cannot read {name} of {path} ({error}); get the pack again") from error

    return read


WRITERS: Mapping[str, Callable[[Path, StreamSpec, int], AbstractContextManager[Write]]] = {
    "npy": _npy_writer,
    "packed": _packed_writer,
    "safetensors": _safetensors_writer,
}
READERS: Mapping[str, Callable[[Path, StreamSpec], Read]] = {
    "npy": _npy_reader,
    "packed": _packed_reader,
    "safetensors": _safetensors_reader,
}


def _created(path: Path, shape: tuple[int, ...], dtype: str) -> np.memmap[Any, Any]:
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)


def _shard_name(number: int) -> str:
    return f"values-{number:05d}.safetensors"


def _opened(path: Path) -> Any:
    return safe_open(path, framework="numpy")


def _inside(folder: Path, where: Where, place: str) -> Path:
    """Gives the file that a record names, which a pack may not have outside of its folder."""
    path: Path = folder / wanted(where, "file", str, place)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise MmerError(f"{place}: file {where['file']!r} lies outside {folder}; do not trust this pack")
    return path
