"""Export of a cache, or of some of its streams, as a feature pack; `cache.packs.native` describes the files."""

import json
import shutil
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from cache.errors import DiskFull, MmerError
from cache.files import is_disk_full
from cache.joined import AnyCache, AnyStream
from cache.layout import COMMITTED
from cache.packs.base import utterance_record
from cache.packs.native import (
    FORMAT,
    FORMAT_VERSION,
    LENGTHS,
    MANIFEST,
    ROWS,
    STATES,
    UTTERANCES,
    WRITERS,
    RowFields,
    Write,
    layout_of,
    safe_name,
)
from cache.rebuild import free_bytes
from cache.rows import rows_checksum

_STATE_NAMES = {state: name for name, state in STATES.items()}
_RECORD_BYTES = 500  # estimate per utterance and stream: a line of JSON, and the name and blocks of a file


@dataclass(frozen=True, kw_only=True)
class Exported:
    """The counts of an export.

    Attributes:
        utterances: number of utterances.
        committed: number of utterances with features, by stream.
        size_bytes: size of all files.
    """

    utterances: int
    committed: dict[str, int]
    size_bytes: int


def export_pack(
    cache: AnyCache, folder: Path, *, layout: str = "npy", streams: Sequence[str] = (), replace: bool = False
) -> Exported:
    """Writes a feature pack to a temporary folder, then renames it to `folder`.

    Utterances are written singly, so that memory does not grow with the cache.

    Args:
        cache: an open cache, of one file or several.
        folder: the folder of the pack.
        layout: npy, packed or safetensors.
        streams: names of the streams to export; all if empty.
        replace: overwrite an older pack; nothing else is ever removed.

    Raises:
        MmerError: if the folder exists, a stream is unknown, or a file cannot be written.
        DiskFull: if there is not enough space.
    """
    folder = folder.resolve()
    chosen = {name: cache.stream(name) for name in dict.fromkeys(streams or cache.streams)}
    fresh = folder.with_name(f".{folder.name}.part")
    try:
        _check_free(folder, replace)
        _check_room(cache, folder, chosen.values())
        shutil.rmtree(fresh, ignore_errors=True)  # from a killed export
        fresh.mkdir(parents=True)
        _write(cache, chosen, fresh, layout)
        size_bytes = sum(file.stat().st_size for file in fresh.rglob("*") if file.is_file())
        _replace_folder(folder, fresh)
    except (OSError, SafetensorError) as error:
        if is_disk_full(error):
            raise DiskFull(f"no space left while writing {folder}; free some, or choose another folder") from error
        reason = (error.strerror or error) if isinstance(error, OSError) else error
        raise MmerError(f"cannot write {folder} ({reason}); choose another folder") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    committed = {name: int(np.count_nonzero(stream.state == COMMITTED)) for name, stream in chosen.items()}
    return Exported(utterances=len(cache), committed=committed, size_bytes=size_bytes)


def _check_free(folder: Path, replace: bool) -> None:
    if not folder.exists():
        return
    if not folder.is_dir() or (any(folder.iterdir()) and not layout_of(folder)):
        raise MmerError(f"{folder} already exists and is not a feature pack of mmer; choose another folder")
    if any(folder.iterdir()) and not replace:
        raise MmerError(
            f"{folder} already holds a feature pack; choose another folder, or pass --replace to overwrite it"
        )


def _check_room(cache: AnyCache, folder: Path, streams: Collection[AnyStream]) -> None:
    needed_bytes = sum(
        _committed_rows(stream) * stream.spec.row_bytes + len(stream) * _RECORD_BYTES for stream in streams
    )
    for encoder in {stream.spec.encoder for stream in streams}:
        needed_bytes += sum(values.nbytes for values in cache.weights(encoder).values())
    disk_bytes = free_bytes(folder.parent)
    if needed_bytes > disk_bytes:
        raise DiskFull(
            f"{needed_bytes / 1e9:.2f} GB needed in {folder.parent}, {disk_bytes / 1e9:.2f} GB free; "
            "free some, choose another folder, or export fewer streams with --stream"
        )


def _write(cache: AnyCache, streams: dict[str, AnyStream], folder: Path, layout: str) -> None:
    _write_lines(folder / UTTERANCES, (utterance_record(utterance) for utterance in cache.utterances))
    described = []
    for number, (name, stream) in enumerate(streams.items()):
        home = Path("streams") / safe_name(number, name, 2)
        (folder / home).mkdir(parents=True)
        with WRITERS[layout](folder / home, stream.spec, _committed_rows(stream)) as write:
            _write_lines(
                folder / home / ROWS, (_record(stream, cache.ids, index, write) for index in range(len(cache)))
            )
        if layout == "packed":
            np.save(folder / home / LENGTHS, np.where(stream.state == COMMITTED, stream.lengths, 0).astype("<i8"))
        spec = json.loads(stream.spec.to_json())
        described.append({"name": name, "key": stream.key, "folder": home.as_posix(), "spec": spec})
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "layout": layout,
        **{name: str(cache.header[name]) for name in ("mmer_version", "created")},
        "corpus": dict(cache.header["corpus"]),
        "utterances": len(cache),
        "streams": described,
        "weights": _write_weights(cache, streams.values(), folder),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _record(stream: AnyStream, ids: Sequence[str], index: int, write: Write) -> dict[str, Any]:
    state = _STATE_NAMES[int(stream.state[index])]
    record = {"id": ids[index], "state": state, "rows": int(stream.lengths[index]), "reason": stream.reason(index)}
    if state != "committed":
        return record
    stored = stream.stored(index)
    if rows_checksum(stored) != int(stream.checksum[index]):
        raise MmerError(
            f"{stream.spec.name} of {ids[index]} is damaged; recompute it with mmer-featurize and --replace"
        )
    fields: RowFields = write(safe_name(index, ids[index]), stored)
    digest, checksum = bytes(stream.input_digest[index]).hex(), f"{int(stream.checksum[index]):016x}"
    return {**record, "input_digest": digest, "checksum": checksum, **fields}


def _write_weights(cache: AnyCache, streams: Iterable[AnyStream], folder: Path) -> dict[str, str]:
    """Writes the weights that initialize heads, one file per encoder of these streams that has any."""
    files: dict[str, str] = {}
    for number, encoder in enumerate(dict.fromkeys(stream.spec.encoder for stream in streams)):
        arrays = cache.weights(encoder)
        if arrays:
            (folder / "weights").mkdir(exist_ok=True)
            files[encoder] = f"weights/{safe_name(number, encoder, 2)}.safetensors"
            save_file({name: np.asarray(values, order="C") for name, values in arrays.items()}, folder / files[encoder])
    return files


def _write_lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def _replace_folder(folder: Path, fresh: Path) -> None:
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.replace(old)
    fresh.replace(folder)
    shutil.rmtree(old, ignore_errors=True)


def _committed_rows(stream: AnyStream) -> int:
    return int(stream.lengths[stream.state == COMMITTED].sum())
