"""EmoBox features: one .npy file per utterance, together with EmoBox' metadata.

Source: Ma et al., 2024, EmoBox, Interspeech; https://github.com/emo-box/EmoBox, data/ and examples/sb.
Features: ``KEY.npy``, ``(frames, dim)``, with all layers ``(layers, frames, dim)``, averaged ``(dim,)``; its older
script mirrors the tree of the recordings instead. EmoBox leaves out recordings over 30 s; here they are failed.
Metadata: ``data/DATASET/DATASET.jsonl`` (key, dataset, wav, length, emo, ...) or ``.json`` (the same by key), copied
into the folder or passed with --metadata. Records may have speaker, session, dialogue, split and text. Labels stay as
published; its label_map.json is not applied.
Ids: the key without its prefix ``DATASET-``, which is the utterance id of the corpora.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import MmerError
from cache.packs.base import Pack, as_object, load_array, read_json, read_lines, required_field, utterance_from
from cache.packs.third_party import ForeignArrays, ImportOptions, Load, array_files, foreign_pack, speaker_columns
from cache.utterance import Utterance

LAYOUT = "emobox"
DESCRIBED = ("speaker", "session", "dialogue", "split", "text")  # further columns, where a record has them
_FIELDS = {"wav", "emo"}  # fields of every record of EmoBox' metadata, and of no other file of a dataset


def has_metadata(folder: Path) -> bool:
    """Returns True if a folder holds arrays and EmoBox' metadata."""
    return bool(_metadata_files(folder)) and bool(array_files(folder))


def read_emobox(folder: Path, options: ImportOptions) -> Pack:
    """Opens a folder of EmoBox features; each array is read once.

    Raises:
        MmerError: if there is no metadata, a file has no record in it, or features are not usable.
    """
    metadata = options.metadata or _metadata_in(folder)
    records = [(location, record) for location, record in _records(metadata) if _check_fields(record, location)]
    datasets = {str(record.get("dataset", "")) for _, record in records}
    prefix = f"{next(iter(datasets))}-" if len(datasets) == 1 else ""
    corpus = options.corpus or prefix.removesuffix("-") or folder.name
    files = array_files(folder)
    utterances: list[Utterance] = []
    arrays: dict[str, tuple[str, Load]] = {}
    for location, record in records:
        utterance = _utterance(record, corpus, prefix, location)
        utterances.append(utterance)
        file = _file_of(record, files)
        if file is not None:
            arrays[utterance.id] = (str(file), partial(_loaded, file))
    _check_described(files, arrays, metadata)
    found = ForeignArrays(
        folder=folder, layout=LAYOUT, stream=folder.resolve().name, corpus=corpus, utterances=utterances, arrays=arrays
    )
    return foreign_pack(found, options)


def _metadata_files(folder: Path) -> list[Path]:
    """Lists the files of a folder with EmoBox' records, JSON lines first."""
    files = [*sorted(folder.glob("*.jsonl")), *sorted(folder.glob("*.json"))]
    return [file for file in files if not file.name.startswith(".") and _has_fields(file)]


def _has_fields(file: Path) -> bool:
    try:
        _, record = next(_records(file))
    except (MmerError, StopIteration):
        return False
    return record.keys() >= _FIELDS


def _metadata_in(folder: Path) -> Path:
    files = _metadata_files(folder)
    names = {file.stem for file in files}
    if len(names) != 1:
        found = f"{len(names)} ({', '.join(sorted(names)[:3])})" if names else "no"
        raise MmerError(f"{folder} holds {found} metadata files of EmoBox; choose the file with --metadata")
    return files[0]


def _records(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the records of a metadata file, each with its location and its key as a field."""
    if file.suffix == ".jsonl":
        yield from read_lines(file)
        return
    for key, record in as_object(read_json(file), str(file)).items():
        location = f"{file}: {key}"
        yield location, {"key": key, **as_object(record, location)}


def _check_fields(record: Mapping[str, Any], location: str) -> bool:
    for name in ("key", "wav", "emo"):
        required_field(record, name, str, location)
    return True


def _utterance(record: Mapping[str, Any], corpus: str, prefix: str, location: str) -> Utterance:
    name = record["key"].removeprefix(prefix)
    columns = {
        "id": name,
        "audio": record["wav"],
        "label": record["emo"],
        "duration_s": record.get("length"),
        "start_s": record.get("start_time"),
        "end_s": record.get("end_time"),
    }
    described = {column: record[column] for column in DESCRIBED if isinstance(record.get(column), str)}
    return utterance_from({**columns, **speaker_columns(corpus, name), **described}, location)


def _file_of(record: Mapping[str, Any], files: Mapping[str, Path]) -> Path | None:
    """Finds the features of a record by its key, else by the path of its recording in a mirrored tree."""
    parts = PurePosixPath(record["wav"]).with_suffix("").parts if record["wav"] else ()
    names = [record["key"], *("/".join(parts[start:]) for start in range(len(parts)))]
    return next((files[name] for name in names if name in files), None)


def _check_described(files: Mapping[str, Path], arrays: Mapping[str, tuple[str, Load]], metadata: Path) -> None:
    uses = Counter(file for file, _ in arrays.values())
    unused = [path for path in files.values() if str(path) not in uses]
    if unused:
        raise MmerError(
            f"{len(unused)} of {len(files)} feature files have no record in {metadata} (first: {unused[0]}); "
            "pass the metadata of the whole dataset with --metadata"
        )
    file, count = next(iter(uses.most_common(1)), ("", 0))
    if count > 1:
        raise MmerError(f"{file} matches two records of {metadata}; name it after the key of its record")


def _loaded(file: Path) -> npt.NDArray[Any]:
    array = load_array(file)
    return np.moveaxis(array, 0, 1) if array.ndim == 3 else array  # (frames, layers, dim)
