"""Feature pack in any layout: utterances, and streams whose rows are read on demand.

Also the parsing of its JSON: records are checked for the fields and types that they must have.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tokenize import TokenError
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from cache.errors import MmerError
from cache.files import check_regular
from cache.json_text import parse_json
from cache.layout import COMMITTED
from cache.rows import StoredRows, all_finite, rows_checksum
from cache.stream import StreamSpec
from cache.utterance import COLUMNS, COUNT, NUMBER, TEXT, Utterance

Value = TypeVar("Value")

_TYPES: Mapping[str, tuple[type, ...]] = {TEXT: (str,), NUMBER: (int, float), COUNT: (int,)}


@dataclass(frozen=True, kw_only=True, slots=True)
class PackEntry:
    """The record of one utterance in one stream of a pack.

    Attributes:
        state: pending, committed or failed, as in `cache.layout`.
        rows: number of rows; where none are committed, the planned number.
        reason: why the utterance failed, or the note of a committed one.
        digest: digest of what the encoder consumed, 16 bytes; empty where no rows are committed.
        checksum: checksum of the stored rows.
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
        spec: description of the computed rows.
        entries: records by utterance id.
        read: reads the rows of a committed utterance by its id.
        weights: weights of its encoder that initialize heads, by name.
    """

    spec: StreamSpec
    entries: Mapping[str, PackEntry]
    read: Callable[[str], StoredRows]
    weights: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    def renamed(self, name: str) -> "PackStream":
        """Returns the same stream under another name."""
        return replace(self, spec=replace(self.spec, name=name))

    def committed(self) -> list[str]:
        """Lists the ids of the utterances with features."""
        return [name for name, entry in self.entries.items() if entry.state == COMMITTED]


@dataclass(frozen=True, kw_only=True)
class Pack:
    """An open feature pack.

    Attributes:
        path: its folder.
        layout: a name of `cache.packs.catalog.LAYOUTS`.
        header: ``mmer_version``, ``created`` and ``corpus``, for a cache that is created from the pack.
        utterances: all utterances; a stream may lack some.
        streams: by name.
    """

    path: Path
    layout: str
    header: Mapping[str, Any]
    utterances: Sequence[Utterance]
    streams: Mapping[str, PackStream]


def check_stream(pack: Pack, stream: PackStream) -> None:
    """Checks every row of a stream, so that nothing is imported from a damaged pack.

    Raises:
        MmerError: with the first utterance whose rows have another shape, type or checksum, or hold NaN.
    """
    for name in stream.committed():
        mismatch = _mismatch(stream.spec, stream.entries[name], stream.read(name))
        if mismatch:
            raise MmerError(f"{pack.path}: {stream.spec.name} of {name} {mismatch}; get the pack again")


def load_array(path: Path) -> npt.NDArray[Any]:
    """Opens a .npy file as a memory map; nothing is ever unpickled.

    Raises:
        MmerError: if the file does not exist, or does not hold plain numbers.
    """
    try:
        check_regular(path)
        return np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise MmerError(f"no file {path}; get the pack again") from None
    except (OSError, ValueError, EOFError, SyntaxError, TokenError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise MmerError(f"{path} is not a .npy array of plain numbers ({reason}); pickles are never loaded") from error


def read_text(path: Path) -> str:
    """Reads a text file of a pack.

    Raises:
        MmerError: if it cannot be read or is not UTF-8.
    """
    try:
        check_regular(path)
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise MmerError(f"cannot read {path} ({error.strerror}); get the pack again") from error
    except UnicodeDecodeError as error:
        raise MmerError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from error


def check_unique(ids: Iterable[str], path: Path) -> None:
    """Checks that no id occurs twice, since rows are joined by id.

    Raises:
        MmerError: with the file or folder and the first duplicate.
    """
    seen: set[str] = set()
    for name in ids:
        if name in seen:
            raise MmerError(f"{path}: duplicate id {name}; rows are joined by id, so give each utterance its own id")
        seen.add(name)


def read_json(path: Path) -> object:
    """Reads a file that holds one JSON value.

    Raises:
        MmerError: if it is not JSON.
    """
    return _parsed(read_text(path), str(path))


def read_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Reads JSON lines; yields the location of each, for errors, and its object.

    Raises:
        MmerError: if a line is not a JSON object.
    """
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            location = f"{path} line {number}"
            yield location, as_object(_parsed(line, location), location)


def as_object(value: object, location: str) -> dict[str, Any]:
    """Returns a value that must be a JSON object.

    Raises:
        MmerError: if it is another kind of value.
    """
    if not isinstance(value, dict):
        raise MmerError(f"{location} is {type(value).__name__}, not a JSON object; get the pack again")
    return value


def required_field(record: Mapping[str, Any], name: str, kind: type[Value], location: str) -> Value:
    """Returns a field of a record, which must have the given type.

    Raises:
        MmerError: if it is missing or of another type.
    """
    value = record.get(name)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise MmerError(f"{location}: field {name} must be {kind.__name__}, got {value!r}; get the pack again")
    return value


def utterance_record(utterance: Utterance) -> dict[str, Any]:
    """Returns the columns of an utterance that are not empty."""
    return {column: value for column, value in asdict(utterance).items() if value is not None and value != ""}


def utterance_from(record: Mapping[str, Any], location: str) -> Utterance:
    """Builds an utterance from a record; columns unknown to this version are ignored.

    Raises:
        MmerError: if a column has the wrong type or an invalid value.
    """
    known = {column: value for column, value in record.items() if column in COLUMNS and value is not None}
    for column, value in known.items():
        kinds = _TYPES[COLUMNS[column]]
        if not isinstance(value, kinds) or isinstance(value, bool) or not is_storable(value):
            raise MmerError(f"{location}: {column} must be {COLUMNS[column]}, got {value!r}")
    try:
        return Utterance(**{"id": "", **known})
    except ValueError as error:
        raise MmerError(f"{location}: {error}") from error


def _mismatch(spec: StreamSpec, entry: PackEntry, stored: StoredRows) -> str:
    """Returns what is wrong with the rows of an utterance; empty for nothing."""
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


def check_inside(folder: Path, path: Path, location: str) -> None:
    """Checks that a file that a pack names lies in its folder, behind all links.

    Raises:
        MmerError: if it lies elsewhere.
    """
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # a loop of links, a NUL in the name
        inside = False
    if not inside:
        raise MmerError(f"{location}: {str(path)!r} lies outside {folder}; do not trust this pack")


def is_storable(value: object) -> bool:
    """Returns True if HDF5 can store it: text without NUL and lone surrogates, counts of 64 bits, finite numbers."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, str):
        return "\0" not in value and not any("\ud800" <= sign <= "\udfff" for sign in value)
    return not isinstance(value, int) or abs(value) < 2**63


def _parsed(text: str, location: str) -> object:
    try:
        value: object = parse_json(text)
    except ValueError as error:
        raise MmerError(f"{location} is not JSON ({error}); get the pack again") from error
    return value
