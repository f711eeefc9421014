"""Configuration dataclasses built from ``field=value`` pairs of a command line or a file."""

import math
from collections.abc import Mapping
from dataclasses import fields
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from cache.errors import MmerError
from cache.near_names import nearest

Config = TypeVar("Config")

WORDS = {
    "true": True,
    "on": True,
    "yes": True,
    "1": True,
    "false": False,
    "off": False,
    "no": False,
    "none": False,
    "0": False,
}
KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}


def configured(kind: type[Config], values: Mapping[str, object], *, owner: str) -> Config:
    """Builds a configuration from values; other fields keep their defaults.

    Args:
        kind: dataclass with fields of type bool, int, float or str, each possibly ``| None``.
        values: values by field; text is parsed as the type of the field, other values must have that type.
        owner: name of the owner of the configuration, for errors.

    Raises:
        MmerError: if a field is unknown, or a value has the wrong type or is not allowed.
    """
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]  # a dataclass
    types = get_type_hints(kind)
    for name in values:
        if name not in known:
            raise MmerError(f"{owner} has no field {name!r}; {nearest(name, known)}")
    converted = {name: _convert(value, types[name], f"{owner}: {name}") for name, value in values.items()}
    try:
        return kind(**converted)
    except ValueError as error:
        raise MmerError(f"{owner}: {error}") from None


def _convert(value: object, expected: Any, what: str) -> object:
    """Converts a value to the type of its field, which may be ``| None``."""
    if get_origin(expected) in {Union, UnionType}:
        if value is None or value == "none":
            return None
        expected = next(member for member in get_args(expected) if member is not NoneType)
    if isinstance(value, str) and expected is not str:
        result = _parse(value.strip(), expected)
    else:
        result = float(value) if expected is float and type(value) is int else value
    if type(result) is not expected or (isinstance(result, float) and not math.isfinite(result)):
        raise MmerError(f"{what} must be {KINDS.get(expected, expected)}, got {value!r}")
    return result


def _parse(text: str, expected: Any) -> object:
    """Parses text as a type; returns None if it is not of that type."""
    if expected is bool:
        return WORDS.get(text.lower())
    try:
        return expected(text)
    except (TypeError, ValueError):
        return None
