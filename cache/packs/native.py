"""Feature pack of mmer: a folder of plain files in three layouts, each with a writer and a reader.

    pack.json               format, format_version, layout, mmer_version, created, corpus, utterances (their number),
                            streams: [{name, key, folder, spec}], weights: {encoder: file}
    utterances.jsonl        one object per utterance, in the order of the cache; columns as in `cache.utterance`,
                            empty ones are left out
    streams/FOLDER/         one folder per stream
        rows.jsonl          one object per utterance: id, state (committed, failed or pending), rows (their number),
                            reason (why it failed, or a note), input_digest and checksum (hexadecimal),
                            and for committed utterances the location of the values
        NAME.npy            layout npy: ``(rows, dim)`` or ``(rows, layers, dim)`` of one utterance; ``file`` names it
        values.npy          layout packed: the rows of all committed utterances; ``start`` is the first row of one
        lengths.npy         layout packed: rows of each utterance in values.npy, in the order of rows.jsonl
        values-*.safetensors  layout safetensors: ``file`` and ``tensor`` name the shard and the tensor
        *scales*            float16 ``(rows,)`` for int8: a row is its values times its scale
    weights/*.safetensors   weights that initialize heads, one file per encoder

A file name is a number and the letters of the id that are safe on every disk; the complete id is in rows.jsonl.

npy: one array per utterance, ``NAME.npy``, and for int8 also ``NAME.scales.npy``.
packed: all rows in one ``values.npy`` (and ``scales.npy``), one utterance after another.
safetensors: shards ``values-00000.safetensors`` of about `SHARD_BYTES`, one tensor per utterance.

Every layout is written and read with the memory of one utterance, or of one shard.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import cache as remembered
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from cache.errors import MmerError
from cache.files import check_regular
from cache.layout import COMMITTED, FAILED, PENDING
from cache.packs.base import (
    Pack,
    PackEntry,
    PackStream,
    as_object,
    check_inside,
    check_unique,
    is_storable,
    load_array,
    read_json,
    read_lines,
    required_field,
    utterance_from,
)
from cache.rows import StoredRows
from cache.stream import StreamSpec, is_member_name
from cache.utterance import Utterance

FORMAT, FORMAT_VERSION = "mmer-pack", 1
MANIFEST, UTTERANCES, ROWS, LENGTHS = "pack.json", "utterances.jsonl", "rows.jsonl", "lengths.npy"
MOST_ROWS = 2**40  # of one utterance: five thousand centuries of frames, and sums of lengths still fit 64 bits
ROW_FIELDS = ("file", "tensor", "start")
STATES: Mapping[str, int] = {"pending": PENDING, "committed": COMMITTED, "failed": FAILED}
SHARD_BYTES = 512 << 20  # a shard is held in memory while it is written

RowFields = dict[str, Any]  # the fields of an utterance's record that locate its values, some of ROW_FIELDS
Write = Callable[[str, StoredRows], RowFields]  # from a file name
Read = Callable[[RowFields, int, str], StoredRows]  # from the fields, the number of rows, and the location for errors


def safe_name(number: int, text: str, digits: int = 6) -> str:
    """Builds a file name from a unique number and the letters that are safe on every disk.

    Example:
        >>> safe_name(7, "Ses01/ü a.wav")
        '000007-Ses01_a_wav'
    """
    return f"{number:0{digits}d}-{re.sub(r'[^A-Za-z0-9-]+', '_', text)[:60]}"


def layout_of(folder: Path) -> str:
    """Returns the layout of a pack of mmer; empty for any other folder."""
    if not (folder / MANIFEST).is_file():
        return ""
    check_inside(folder, folder / MANIFEST, MANIFEST)
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        return ""
    return str(manifest.get("layout"))


def read_native(folder: Path, layout: str) -> Pack:
    """Opens a pack of mmer; its rows are read on demand.

    Raises:
        MmerError: if it is not such a pack, has another format version or layout, or its files contradict each other.
    """
    manifest = _manifest(folder, layout)
    location = str(folder / MANIFEST)
    check_inside(folder, folder / UTTERANCES, location)
    utterances = [utterance_from(record, line) for line, record in read_lines(folder / UTTERANCES)]
    check_unique((utterance.id for utterance in utterances), folder / UTTERANCES)
    count = required_field(manifest, "utterances", int, location)
    if count != len(utterances):
        raise MmerError(f"{folder / UTTERANCES} has {len(utterances)} utterances of {count}; get the pack again")
    descriptions = [as_object(value, location) for value in required_field(manifest, "streams", list, location)]
    files = required_field(manifest, "weights", dict, location)
    weights = {name: _weights(folder, str(file)) for name, file in files.items()}
    header = _header(manifest, location)
    streams = [_stream(folder, layout, described, utterances) for described in descriptions]
    return Pack(
        path=folder,
        layout=layout,
        header=header,
        utterances=utterances,
        streams={stream.spec.name: replace(stream, weights=weights.get(stream.spec.encoder, {})) for stream in streams},
    )


def _header(manifest: Mapping[str, Any], location: str) -> dict[str, Any]:
    """Reads the header of a cache that is created from the pack."""
    header: dict[str, Any] = {
        name: required_field(manifest, name, str, location) for name in ("mmer_version", "created")
    }
    corpus = required_field(manifest, "corpus", dict, location)
    texts = [*header.values(), corpus.get("name", ""), corpus.get("root", "")]
    if not all(isinstance(text, str) and is_storable(text) for text in texts):
        raise MmerError(f"{location}: versions, dates and the name of the corpus must be texts; get the pack again")
    return {**header, "corpus": corpus}


def _manifest(folder: Path, layout: str) -> dict[str, Any]:
    if not (folder / MANIFEST).is_file():
        raise MmerError(f"{folder} has no {MANIFEST}; mmer-cache export writes one")
    manifest = as_object(read_json(folder / MANIFEST), str(folder / MANIFEST))
    found = layout_of(folder)
    version = manifest.get("format_version")
    if found and version != FORMAT_VERSION:
        raise MmerError(f"{folder} has pack format {version}, this mmer reads format {FORMAT_VERSION}; upgrade mmer")
    if found != layout:
        raise MmerError(f"{folder} is a pack of layout {found or 'unknown'}, not {layout}; omit --layout")
    return manifest


def _stream(folder: Path, layout: str, described: Mapping[str, Any], utterances: list[Utterance]) -> PackStream:
    location = f"{folder / MANIFEST}: stream {described.get('name')}"
    spec = _spec(described, location)
    home = folder / required_field(described, "folder", str, location)
    check_inside(folder, home, location)
    for name in (ROWS, LENGTHS, "values.npy", "scales.npy"):
        check_inside(folder, home / name, location)
    records = dict(_records(home))
    missing = [utterance.id for utterance in utterances if utterance.id not in records]
    if missing or len(records) != len(utterances):
        first = missing[0] if missing else next(iter(records.keys() - {utterance.id for utterance in utterances}))
        raise MmerError(f"{home / ROWS} and {UTTERANCES} do not list the same ids (first: {first}); get the pack again")
    entries = {name: entry for name, (entry, _) in records.items()}
    if layout == "packed":
        _check_lengths(home, list(entries.values()))
    read = READERS[layout](home, spec)

    def rows_of(name: str) -> StoredRows:
        entry, fields = records[name]
        return read(fields, entry.rows, f"{home / ROWS}: {name}")

    return PackStream(spec=spec, entries=entries, read=rows_of)


def _spec(described: Mapping[str, Any], location: str) -> StreamSpec:
    try:
        spec = StreamSpec.from_json(json.dumps(required_field(described, "spec", dict, location)))
    except (TypeError, ValueError, KeyError) as error:
        raise MmerError(f"{location} has an invalid description ({error}); get the pack again") from error
    if spec.name != described.get("name") or spec.key != described.get("key"):
        raise MmerError(f"{location}: its spec is of {spec.name} with the key {spec.key}, not {described.get('key')}")
    return spec


def _records(home: Path) -> list[tuple[str, tuple[PackEntry, RowFields]]]:
    records = [
        (required_field(record, "id", str, location), _entry(record, location))
        for location, record in read_lines(home / ROWS)
    ]
    check_unique((name for name, _ in records), home / ROWS)
    return records


def _entry(record: dict[str, Any], location: str) -> tuple[PackEntry, RowFields]:
    state = required_field(record, "state", str, location)
    rows = required_field(record, "rows", int, location)
    if state not in STATES or not 0 <= rows <= MOST_ROWS:
        raise MmerError(f"{location}: state must be one of {', '.join(STATES)} and rows 0 or more, got {state}, {rows}")
    entry = partial(PackEntry, state=STATES[state], rows=rows, reason=required_field(record, "reason", str, location))
    if state != "committed":
        return entry(), {}
    digest = required_field(record, "input_digest", str, location)
    checksum = required_field(record, "checksum", str, location)
    if not re.fullmatch("[0-9a-f]{32}", digest) or not re.fullmatch("[0-9a-f]{16}", checksum):
        raise MmerError(
            f"{location}: input_digest and checksum must be 32 and 16 hexadecimal digits; get the pack again"
        )
    return entry(digest=bytes.fromhex(digest), checksum=int(checksum, 16)), {
        name: record[name] for name in ROW_FIELDS if name in record
    }


def _check_lengths(home: Path, entries: list[PackEntry]) -> None:
    lengths, values = load_array(home / LENGTHS), load_array(home / "values.npy")
    listed = [entry.rows if entry.state == COMMITTED else 0 for entry in entries]
    if lengths.shape != (len(listed),) or not np.array_equal(lengths, listed):
        raise MmerError(f"{home / LENGTHS} does not match the {len(listed)} lengths of {ROWS}; get the pack again")
    if not values.ndim or len(values) != sum(listed):
        raise MmerError(f"{home / LENGTHS} sums to {sum(listed)} rows, values.npy has {values.shape}; get it again")


def _weights(folder: Path, file: str) -> dict[str, npt.NDArray[Any]]:
    path = folder / file
    check_inside(folder, path, str(folder / MANIFEST))
    try:
        check_regular(path)
        weights = dict(load_file(path))
    except (SafetensorError, OSError, LookupError, TypeError, ValueError) as error:
        raise MmerError(f"cannot read the weights {path} ({error}); get the pack again") from error
    for name in weights:
        if not is_member_name(name):
            raise MmerError(f"weight {name!r} of {path} has a name that no cache can hold; get the pack again")
    return weights


@contextmanager
def _npy_writer(folder: Path, spec: StreamSpec, rows: int) -> Iterator[Write]:
    def write(name: str, stored: StoredRows) -> RowFields:
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

    def write(name: str, stored: StoredRows) -> RowFields:
        nonlocal done
        start, done = done, done + len(stored.values)
        values[start:done] = stored.values
        if scales is not None:
            scales[start:done] = stored.scales
        return {"start": start}

    yield write
    values.flush()  # raises here if the disk is full


@contextmanager
def _safetensors_writer(folder: Path, spec: StreamSpec, rows: int) -> Iterator[Write]:
    shard: dict[str, npt.NDArray[Any]] = {}
    number, size_bytes = 0, 0

    def flush() -> None:
        nonlocal number, size_bytes
        save_file(shard, folder / _shard_name(number))
        shard.clear()
        number, size_bytes = number + 1, 0

    def write(name: str, stored: StoredRows) -> RowFields:
        nonlocal size_bytes
        shard[name] = np.ascontiguousarray(stored.values)
        if stored.scales is not None:
            shard[f"{name}.scales"] = np.ascontiguousarray(stored.scales)
        size_bytes += stored.values.nbytes
        fields = {"file": _shard_name(number), "tensor": name}
        if size_bytes >= SHARD_BYTES:
            flush()
        return fields

    yield write
    if shard:
        flush()


def _npy_reader(folder: Path, spec: StreamSpec) -> Read:
    def read(fields: RowFields, rows: int, location: str) -> StoredRows:
        path = _file_at(folder, fields, location)
        scales_path = path.with_suffix(".scales.npy")
        check_inside(folder, scales_path, location)
        scales = load_array(scales_path) if spec.dtype == "int8" else None
        return StoredRows(load_array(path), scales)

    return read


def _packed_reader(folder: Path, spec: StreamSpec) -> Read:
    values = load_array(folder / "values.npy")
    scales = load_array(folder / "scales.npy") if spec.dtype == "int8" else None

    def read(fields: RowFields, rows: int, location: str) -> StoredRows:
        start = required_field(fields, "start", int, location)
        if not 0 <= start <= start + rows <= len(values):
            raise MmerError(f"{location}: rows {start} to {start + rows} lie outside the {len(values)} of values.npy")
        span = slice(start, start + rows)
        return StoredRows(values[span], None if scales is None else scales[span])

    return read


def _safetensors_reader(folder: Path, spec: StreamSpec) -> Read:
    opened = remembered(_opened)

    def read(fields: RowFields, rows: int, location: str) -> StoredRows:
        path, name = _file_at(folder, fields, location), required_field(fields, "tensor", str, location)
        try:
            shard = opened(path)
            scales = shard.get_tensor(f"{name}.scales") if spec.dtype == "int8" else None
            return StoredRows(shard.get_tensor(name), scales)
        except (SafetensorError, OSError, TypeError, LookupError, ValueError) as error:
            raise MmerError(f"{location}: cannot read {name} of {path} ({error}); get the pack again") from error

    return read


def _created(path: Path, shape: tuple[int, ...], dtype: str) -> np.memmap[Any, Any]:
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)


def _shard_name(number: int) -> str:
    return f"values-{number:05d}.safetensors"


def _opened(path: Path) -> Any:
    check_regular(path)
    return safe_open(path, framework="numpy")


def _file_at(folder: Path, fields: RowFields, location: str) -> Path:
    """Returns the file that a record names, which must lie inside the folder of the pack."""
    path = folder / required_field(fields, "file", str, location)
    check_inside(folder, path, location)
    return path


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
