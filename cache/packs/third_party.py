"""Feature pack from the arrays of another toolkit: one stream, whose key depends on the values.

Nothing else about their computation is known.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cache.errors import MmerError
from cache.layout import COMMITTED
from cache.packs.base import Pack, PackEntry, PackStream, check_unique
from cache.rows import StoredRows, all_finite, rows_checksum, to_stored
from cache.stream import StreamSpec
from cache.utterance import Utterance
from cache.version import mmer_version

# From emotion2vec's README; EmoBox' encoders have the convolutions of wav2vec 2.0 or are cut to its number of frames.
FRAMES_HZ = 50.0
STORED_DTYPES: Mapping[str, str] = {"float16": "float16", "float32": "float32", "float64": "float32"}
ROLES: Mapping[str, bool] = {"audio": True, "mel": True, "patches": False, "text": False}  # role -> rows are frames

# Corpora whose ids contain the speaker; the columns are those of the corpus readers of mmer.
_SPEAKERS: Mapping[str, re.Pattern[str]] = {
    "iemocap": re.compile(r"(?P<dialogue>(?P<pair>Ses0(?P<session>[1-5]))[FM]_\w+)_(?P<gender>[FM])[A-Z\d]+"),
    "ravdess": re.compile(r"\d\d(?:-\d\d){5}-(?P<pair>\d\d)"),
}

Load = Callable[[], npt.NDArray[Any]]


class _Kind(NamedTuple):
    """The properties that all arrays of a stream share."""

    dtype: str
    dimensions: int
    row: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype} of {self.dimensions} dimensions with rows of {self.row}"


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """The user's description of a pack of another toolkit.

    Attributes:
        role: role of the stream, one of `ROLES`; empty for audio.
        corpus: name of the corpus; empty for the name in the pack, or else that of its folder.
        metadata: file that describes the utterances, where the layout has such a file; None for the file in the folder.
        known_ids: ids of the cache to import into, which decide whether a file is named by its path or its name.
    """

    role: str = ""
    corpus: str = ""
    metadata: Path | None = None
    known_ids: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class ForeignArrays:
    """The feature files of another toolkit.

    Attributes:
        folder: their folder.
        layout: a name of `cache.packs.catalog.LAYOUTS`.
        stream: name of the stream.
        corpus: name of the corpus in the pack.
        utterances: all utterances that the pack describes.
        arrays: by utterance id, the file for errors, and a function that loads ``(dim,)``, ``(rows, dim)`` or
            ``(rows, layers, dim)``.
    """

    folder: Path
    layout: str
    stream: str
    corpus: str
    utterances: Sequence[Utterance]
    arrays: Mapping[str, tuple[str, Load]]


def foreign_pack(found: ForeignArrays, options: ImportOptions) -> Pack:
    """Reads every array once and builds the pack.

    Raises:
        MmerError: if there are no arrays, or an array differs from the first in kind, is not of floats, or holds NaN or
            infinity.
    """
    check_unique((utterance.id for utterance in found.utterances), found.folder)
    if not found.arrays:
        raise MmerError(f"{found.folder} holds no features of any utterance that it describes; get the pack again")
    first = _kind(*next(iter(found.arrays.values())))
    entries = {name: _entry(found, name, first) for name in found.arrays}
    return Pack(
        path=found.folder,
        layout=found.layout,
        header={
            "mmer_version": mmer_version(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "corpus": {"name": found.corpus, "root": ""},
        },
        utterances=found.utterances,
        streams={
            found.stream: PackStream(
                spec=_spec(found, options, first, entries), entries=entries, read=lambda name: _rows(found, name)
            )
        },
    )


def speaker_columns(corpus: str, name: str) -> dict[str, str]:
    """Reads speaker, session and dialogue from an utterance id, if the corpus is known.

    Example:
        >>> speaker_columns("iemocap", "Ses01F_impro01_M000")
        {'speaker': 'Ses01M', 'dialogue': 'Ses01F_impro01', 'session': '1'}
    """
    match = _SPEAKERS[corpus].fullmatch(name) if corpus in _SPEAKERS else None
    if not match:
        return {}
    parts = match.groupdict()
    speaker = parts.pop("pair") + parts.pop("gender", "")
    return {"speaker": speaker, **parts}


def array_files(folder: Path) -> dict[str, Path]:
    """Lists the .npy files of a folder, at any depth, by their path without the ending."""
    paths = [path for path in sorted(folder.rglob("*.npy")) if not path.name.startswith(".")]
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in paths}


def _kind(file: str, load: Load) -> _Kind:
    array = load()
    if array.dtype.name not in STORED_DTYPES:
        raise MmerError(f"{file} is {array.dtype}; features must be one of {', '.join(STORED_DTYPES)}")
    row = array.shape if array.ndim == 1 else array.shape[1:]
    if array.ndim not in {1, 2, 3} or 0 in row:
        raise MmerError(f"{file} has shape {array.shape}; features are (dim,), (rows, dim) or (rows, layers, dim)")
    return _Kind(array.dtype.name, array.ndim, row)


def _entry(found: ForeignArrays, name: str, first: _Kind) -> PackEntry:
    file, load = found.arrays[name]
    kind = _kind(file, load)
    if kind != first:
        raise MmerError(f"{file} is {kind}, expected {first} as in the files before; a stream has rows of one kind")
    stored = _rows(found, name)
    if not all_finite(stored):
        raise MmerError(
            f"{file} holds NaN, infinity or values beyond the range of {stored.values.dtype}; compute it again"
        )
    # The input digest is of the rows: recordings with equal features count as identical.
    digest = blake2b(np.ascontiguousarray(stored.values).tobytes(), digest_size=16).digest()
    return PackEntry(state=COMMITTED, rows=len(stored.values), digest=digest, checksum=rows_checksum(stored))


def _rows(found: ForeignArrays, name: str) -> StoredRows:
    array = found.arrays[name][1]()
    return to_stored(array[None] if array.ndim == 1 else array, STORED_DTYPES[array.dtype.name])


def _spec(found: ForeignArrays, options: ImportOptions, kind: _Kind, entries: Mapping[str, PackEntry]) -> StreamSpec:
    role = options.role or "audio"
    frames = ROLES[role] and any(entry.rows != 1 for entry in entries.values())
    return StreamSpec(
        name=found.stream,
        role=role,
        source=found.stream,
        layers="all" if kind.dimensions == 3 else "last",
        shape=kind.row,
        dtype=STORED_DTYPES[kind.dtype],
        precision=kind.dtype,
        rate_hz=FRAMES_HZ if frames else 0.0,
        preprocessing={"imported": found.layout, "values": _values_digest(entries)},
    )


def _values_digest(entries: Mapping[str, PackEntry]) -> str:
    """Computes one digest of all rows, independent of their order."""
    lines = sorted(f"{name}\0{entry.checksum:016x}" for name, entry in entries.items())
    return blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()
