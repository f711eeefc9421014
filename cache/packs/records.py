"""JSON of feature packs: records with the fields and types that they must have, utterances among them."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cache.errors import MmerError
from cache.packs.pack import read_text
from cache.utterance import COLUMNS, COUNT, NUMBER, TEXT, Utterance

_TYPES: Mapping[str, tuple[type, ...]] = {TEXT: (str,), NUMBER: (int, float), COUNT: (int,)}


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
