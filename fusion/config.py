"""Builds a configuration from ``field=value`` as it is written on a command line or in a file."""

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import fields
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from cache.errors import MmerError

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
    """Builds a configuration whose other fields keep their defaults.

    Args:
        kind: a dataclass with fields of type bool, int, float or str, or one of them or None.
        values: by field; text is read as what the type of the field says, anything else must be of it.
        owner: whose configuration it is, for errors.

    Raises:
        MmerError: if a field is unknown, or a value is not of its type or not allowed.
    """
    known = [one.name for one in fields(kind)]  # type: ignore[arg-type]  # a dataclass
    types = get_type_hints(kind)
    for name in values:
        if name not in known:
            raise MmerError(f"{owner} has no field {name!r}; {nearest(name, known)}")
    read = {name: _read(value, types[name], f"{owner}: {name}") for name, value in values.items()}
    try:
        return kind(**read)
    except ValueError as error:
        raise MmerError(f"{owner}: {error}") from None


def nearest(name: str, known: Iterable[str]) -> str:
    """Says which of the known names may have been meant, or which there are.

    Example:
        >>> nearest("droput", ["dim", "dropout"])
        'did you mean dropout?'
        >>> nearest("x", ["dim", "dropout"])
        'known: dim, dropout'
    """
    every = list(known)
    near = difflib.get_close_matches(name, every, n=3)
    return f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(every)}"


def _read(value: object, wanted: Any, what: str) -> object:
    """Reads one value as the type of its field."""
    if get_origin(wanted) in {Union, UnionType}:
        if value is None or value == "none":
            return None
        wanted = next(one for one in get_args(wanted) if one is not NoneType)
    if isinstance(value, str) and wanted is not str:
        read = _parse(value.strip(), wanted)
    else:
        read = float(value) if wanted is float and type(value) is int else value
    if type(read) is not wanted or (isinstance(read, float) and not math.isfinite(read)):
        raise MmerError(f"{what} must be {KINDS.get(wanted, wanted)}, got {value!r}")
    return read


def _parse(text: str, wanted: Any) -> object:
    """Gives the value that a text stands for, or None."""
    if wanted is bool:
        return WORDS.get(text.lower())
    try:
        return wanted(text)
    except (TypeError, ValueError):
        return None
