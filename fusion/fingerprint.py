"""Fingerprints of runs: short digests of plain values, with fields that have their defaults left out."""

from collections.abc import Mapping
from hashlib import blake2b
from json import dumps
from typing import Any

Plain = Mapping[str, Any]


def without_defaults(described: Mapping[str, Any], defaults: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Leaves out the fields that have their defaults, so that a field that is new in a version renames no older run.

    Args:
        described: what decides the results, by section.
        defaults: of fields, by section.
    """
    changed = {
        section: {name: value for name, value in described[section].items() if fields.get(name) != value}
        for section, fields in defaults.items()
    }
    return {**described, **changed}


def digest_of(value: object) -> str:
    """Gives a short digest of plain values, 16 hexadecimal digits."""
    return blake2b(dumps(value, sort_keys=True).encode(), digest_size=8).hexdigest()


def filled(described: Plain, defaults: Plain) -> dict[str, Any]:
    """Gives fields that a description lacks their defaults, by section."""
    return {**described, **{section: {**fields, **described.get(section, {})} for section, fields in defaults.items()}}
