"""emotion2vec features: packed arrays with lengths, or one .npy file per recording.

Source: Ma et al., 2023, arXiv:2312.15185; https://github.com/ddlBoJack/emotion2vec, scripts and iemocap_downstream.
Packed: ``NAME.npy`` ``(rows, dim)``, ``NAME.lengths`` with one number per line, and for the ids ``NAME.emo`` (lines
``id<TAB>label``) or ``NAME.tsv`` (a first line with the root, then lines ``path<TAB>samples``). Only the order of lines
relates these files, so their counts must be equal; the stream is then joined by id.
Single: ``ID.npy`` at any depth, ``(frames, dim)`` or averaged ``(dim,)``; FunASR writes the same to its output_dir.
Frames: 50 Hz.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import MmerError
from cache.packs.base import Pack, check_unique, load_array, read_text, utterance_from
from cache.packs.third_party import ForeignArrays, ImportOptions, Load, array_files, foreign_pack, speaker_columns
from cache.utterance import Utterance

PACKED, SINGLE, STREAM = "emotion2vec", "emotion2vec-files", "emotion2vec"
SAMPLES_HZ = 16_000  # the only rate that its scripts accept


def has_lengths(folder: Path) -> bool:
    """Returns True if a folder holds packed features."""
    return bool(_length_files(folder))


def read_packed(folder: Path, options: ImportOptions) -> Pack:
    """Opens packed features, of all NAMEs in the folder.

    Raises:
        MmerError: if ids are missing, counts differ, or features are not usable.
    """
    _check_no_metadata(options)
    utterances: list[Utterance] = []
    arrays: dict[str, tuple[str, Load]] = {}
    corpus = options.corpus or folder.resolve().name
    for lengths_file in _length_files(folder):
        values_file = lengths_file.with_suffix(".npy")
        described = _described(lengths_file, corpus)
        ends = _ends(lengths_file, values_file, described)
        check_unique((utterance.id for utterance in [*utterances, *described]), folder)
        utterances += described
        for utterance, start, end in zip(described, [0, *ends], ends, strict=False):
            load = partial(_load_rows, values_file, start, end)
            arrays[utterance.id] = (f"{values_file} ({utterance.id})", load)
    found = ForeignArrays(
        folder=folder, layout=PACKED, stream=STREAM, corpus=corpus, utterances=utterances, arrays=arrays
    )
    return foreign_pack(found, options)


def has_arrays(folder: Path) -> bool:
    """Returns True if a folder holds .npy files."""
    return bool(array_files(folder))


def read_single(folder: Path, options: ImportOptions) -> Pack:
    """Opens a folder with one file per recording; the name of a file is the utterance id.

    Where the cache to import into has none of the names but the paths, an id is the path without its ending, as in
    ``A/001``.

    Raises:
        MmerError: if two files have the same name, or features are not usable.
    """
    _check_no_metadata(options)
    files = array_files(folder)
    stems = [path.stem for path in files.values()]
    by_path = not options.known_ids & {*stems} and bool(options.known_ids & files.keys())
    if not by_path:
        check_unique(stems, folder)
    named = files if by_path else dict(zip(stems, files.values(), strict=True))
    corpus = options.corpus or folder.resolve().name
    utterances = [_utterance(corpus, {"id": name}, str(path)) for name, path in named.items()]
    arrays: dict[str, tuple[str, Load]] = {name: (str(path), partial(load_array, path)) for name, path in named.items()}
    found = ForeignArrays(
        folder=folder, layout=SINGLE, stream=STREAM, corpus=corpus, utterances=utterances, arrays=arrays
    )
    return foreign_pack(found, options)


def _length_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.lengths") if not path.name.startswith("."))


def _check_no_metadata(options: ImportOptions) -> None:
    if options.metadata is not None:
        raise MmerError(
            f"--metadata {options.metadata} applies to EmoBox only; this pack has another layout, see --layout"
        )


def _described(lengths_file: Path, corpus: str) -> list[Utterance]:
    """Reads the utterances, in the order of the lengths, from the file of labels or the manifest."""
    labels, manifest = lengths_file.with_suffix(".emo"), lengths_file.with_suffix(".tsv")
    recordings = _recordings(manifest) if manifest.is_file() else []
    if not labels.is_file():
        if not recordings:
            raise MmerError(
                f"{lengths_file} has no ids for its rows; put {labels.name} (one id and label per line) "
                f"or {manifest.name} (one path and number of samples per line) into its folder"
            )
        return [_utterance(corpus, record, str(manifest)) for record in recordings]
    records = [_labelled(line, f"{labels} line {number}") for number, line in _lines(labels)]
    by_id = {record["id"]: record for record in recordings}
    if recordings and [record["id"] for record in records] != list(by_id):
        raise MmerError(f"{labels} and {manifest} do not list the same ids in the same order; remove the wrong one")
    return [_utterance(corpus, {**by_id.get(record["id"], {}), **record}, str(labels)) for record in records]


def _recordings(manifest: Path) -> list[dict[str, Any]]:
    records = []
    for number, line in _lines(manifest)[1:]:
        path, _, samples = line.partition("\t")
        if not path or not samples.strip().isdecimal():
            raise MmerError(f"{manifest} line {number} must be a path, a tab and a number of samples, got {line!r}")
        records.append({"id": Path(path).stem, "audio": path, "duration_s": int(samples) / SAMPLES_HZ})
    return records


def _labelled(line: str, location: str) -> dict[str, Any]:
    name, tab, label = line.partition("\t")
    if not tab or not name or not label.strip():
        raise MmerError(f"{location} must be an id, a tab and a label, got {line!r}")
    return {"id": name, "label": label.strip()}


def _ends(lengths_file: Path, values_file: Path, described: Sequence[Utterance]) -> list[int]:
    """Returns the row after the last one of each utterance, after a check that all counts agree."""
    lengths = []
    for number, line in _lines(lengths_file):
        if not line.strip().isdecimal():
            raise MmerError(f"{lengths_file} line {number} must be a number of rows, got {line!r}")
        lengths.append(int(line))
    if len(lengths) != len(described):
        raise MmerError(f"{lengths_file} has {len(lengths)} lengths, but {len(described)} ids; get the pack again")
    values = load_array(values_file)
    if values.ndim != 2 or len(values) != sum(lengths):
        raise MmerError(f"{lengths_file} sums to {sum(lengths)} rows, {values_file.name} has shape {values.shape}")
    return [int(end) for end in np.cumsum(lengths)]


def _lines(file: Path) -> list[tuple[int, str]]:
    lines = [line.rstrip("\r") for line in read_text(file).split("\n")]
    return [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]


def _utterance(corpus: str, record: dict[str, Any], location: str) -> Utterance:
    return utterance_from({**record, **speaker_columns(corpus, record["id"])}, location)


def _load_rows(values_file: Path, start: int, end: int) -> npt.NDArray[Any]:
    return load_array(values_file)[start:end]
