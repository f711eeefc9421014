"""What a feature pack holds, whatever its layout: utterances, and streams whose rows are read when they are needed.

JSON of feature packs: records with the fields and types that they must have, utterances among them.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import MmerError
from cache.layout import COMMITTED
from cache.rows import StoredRows, all_finite
from cache.stream import StreamSpec
from cache.utterance import COLUMNS, COUNT, NUMBER, TEXT, Utterance
from cache.writer import rows_checksum

_TYPES: Mapping[str, tuple[type, ...]] = {TEXT: (str,), NUMBER: (int, float), COUNT: (int,)}


@dataclass(frozen=True, kw_only=True, slots=True)
class PackEntry:
    """What a pack says of one utterance in one stream.

    Attributes:
        state: pending, committed or failed, as in `cache.layout`.
        rows: how many there are or, where nothing is committed, were planned.
        reason: why it failed, or what was noted.
        digest: 16 bytes, of what the encoder consumed; nothing where nothing is committed.
        checksum: of the stored rows.
    """

    state: int
    rows: int
    reason: str = ""
    digest: bytes = b""
    checksum: int = 0


@dataclass(frozen=True, kw_only=True)
class PackStream:
    """One stream of a pack.

    Attributes:
        spec: what was computed.
        entries: by utterance id.
        read: reads the rows of a committed utterance, by its id.
        weights: what heads start from, of its encoder, by name.
    """

    spec: StreamSpec
    entries: Mapping[str, PackEntry]
    read: Callable[[str], StoredRows]
    weights: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    def renamed(self, name: str) -> "PackStream":
        """Gives the same stream under another name."""
        return replace(self, spec=replace(self.spec, name=name))

    def committed(self) -> list[str]:
        """Lists the utterances that it has features of."""
        return [name for name, entry in self.entries.items() if entry.state == COMMITTED]


@dataclass(frozen=True, kw_only=True)
class Pack:
    """An open feature pack.

    Attributes:
        path: its folder.
        layout: a name of `cache.packs.catalog.LAYOUTS`.
        header: ``mmer_version``, ``created`` and ``corpus``, for a cache that is created from it.
        utterances: all of them; a stream may lack some.
        streams: by name.
    """

    path: Path
    layout: str
    header: Mapping[str, Any]
    utterances: Sequence[Utterance]
    streams: Mapping[str, PackStream]


def check_stream(pack: Pack, stream: PackStream) -> None:
    """Reads every row of a stream once, so that nothing is imported of a pack that is not sound.

    Raises:
        MmerError: with the first utterance whose rows have another shape, type or checksum, or hold NaN.
    """
    for name in stream.committed():
        entry, stored = stream.entries[name], stream.read(name)
        told = _mismatch(stream.spec, entry, stored)
        if told:
            raise MmerError(f"{pack.path}: {stream.spec.name} of {name} {told}; get the pack again")


def load_array(path: Path) -> npt.NDArray[Any]:
    """Maps a .npy file; nothing is ever unpickled.

    Raises:
        MmerError: if there is no such file, or it holds anything but plain numbers.
    """
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise MmerError(f"no file {path}; get the pack again") from None
    except (OSError, ValueError, EOFError, SyntaxError, TokenError, OverflowError) as error:
        what = " ".join(str(error).split())
        raise MmerError(f"{path} is no .npy array of plain numbers ({what}); pickles are never loaded") from error


def read_text(path: Path) -> str:
    """Reads a text file of a pack.

    Raises:
        MmerError: if it cannot be read or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise MmerError(f"cannot read {path} ({error.strerror}); get the pack again") from error
    except UnicodeDecodeError as error:
        raise MmerError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}); save it so") from error


def check_unique(ids: Iterable[str], place: Path) -> None:
    """Refuses ids that come twice, since rows are joined by them.

    Raises:
        MmerError: with the first of them.
    """
    seen: set[str] = set()
    for name in ids:
        if name in seen:
            raise MmerError(f"{place}: id {name} comes twice; rows are joined by id, so give each utterance its own")
        seen.add(name)


def read_json(path: Path) -> Any:
    """Reads a file that is one JSON value.

    Raises:
        MmerError: if it is none.
    """
    return _parsed(read_text(path), str(path))


def read_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Reads JSON lines: where each stands, for errors, and the object.

    Raises:
        MmerError: if a line is no JSON object.
    """
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            place = f"{path} line {number}"
            yield place, as_object(_parsed(line, place), place)


def as_object(value: Any, place: str) -> dict[str, Any]:
    """Gives a JSON object, or says where there is none.

    Raises:
        MmerError: if it is another kind of value.
    """
    if not isinstance(value, dict):
        raise MmerError(f"{place} is {type(value).__name__}, not a JSON object; get the pack again")
    return value


def wanted(record: Mapping[str, Any], name: str, kind: type, place: str) -> Any:
    """Gives a field of a record, of the type it must have.

    Raises:
        MmerError: if it is missing or of another type.
    """
    value = record.get(name)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise MmerError(f"{place}: field {name} must be {kind.__name__}, got {value!r}; get the pack again")
    return value


def utterance_record(utterance: Utterance) -> dict[str, Any]:
    """Gives the columns of an utterance that say something."""
    return {column: value for column, value in asdict(utterance).items() if value is not None and value != ""}


def utterance_from(record: Mapping[str, Any], place: str) -> Utterance:
    """Makes an utterance of a record; columns that this version does not know are left out.

    Raises:
        MmerError: if a column is of the wrong type, or says what cannot be.
    """
    known = {column: value for column, value in record.items() if column in COLUMNS and value is not None}
    for column, value in known.items():
        kinds = _TYPES[COLUMNS[column]]
        if not isinstance(value, kinds) or isinstance(value, bool) or not _storable(value):
            raise MmerError(f"{place}: {column} must be {COLUMNS[column]}, got {value!r}")
    try:
        return Utterance(**{"id": "", **known})
    except ValueError as error:
        raise MmerError(f"{place}: {error}") from error


def _mismatch(spec: StreamSpec, entry: PackEntry, stored: StoredRows) -> str:
    """Says what is wrong with the rows of an utterance, or nothing."""
    values, scales = stored
    if values.shape != (entry.rows, *spec.shape):
        return f"has shape {values.shape}, not {(entry.rows, *spec.shape)}"
    if values.dtype != np.dtype(spec.dtype):
        return f"is {values.dtype}, not {spec.dtype}"
    if (scales is not None) != (spec.dtype == "int8") or (scales is not None and scales.shape != (entry.rows,)):
        return f"needs {'one scale per row' if spec.dtype == 'int8' else 'no scales'}"
    if scales is not None and scales.dtype != np.float16:
        return f"has scales of {scales.dtype}, not float16"
    if rows_checksum(stored) != entry.checksum:
        return "is not what was exported: its checksum differs"
    return "" if all_finite(stored) else "holds NaN or infinity"


def _storable(value: Any) -> bool:
    """Tells whether HDF5 can hold it: text without NUL and lone surrogates, counts of 64 bits."""
    if isinstance(value, str):
        return "\0" not in value and not any("\ud800" <= sign <= "\udfff" for sign in value)
    return not isinstance(value, int) or abs(value) < 2**63


def _parsed(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MmerError(f"{place} is no JSON ({error}); get the pack again") from error
