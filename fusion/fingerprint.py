"""Fingerprints of runs: short digests of plain values, without the fields that have their defaults."""

from collections.abc import Mapping
from hashlib import blake2b
from json import dumps
from typing import Any

Plain = Mapping[str, Any]


def without_defaults(identity: Plain, defaults: Mapping[str, Plain]) -> dict[str, Any]:
    """Removes the fields that have their defaults.

    The fingerprint of a run then stays the same when a new version adds a field.

    Args:
        identity: everything that decides the results, by section.
        defaults: default values of the fields, by section.
    """
    changed = {
        section: {name: value for name, value in identity[section].items() if fields.get(name) != value}
        for section, fields in defaults.items()
    }
    return {**identity, **changed}


def digest_of(value: object) -> str:
    """Computes a short digest of plain values, 16 hexadecimal digits."""
    return blake2b(dumps(value, sort_keys=True).encode(), digest_size=8).hexdigest()


def with_defaults(identity: Plain, defaults: Plain) -> dict[str, Any]:
    """Adds the fields that an identity lacks with their defaults, by section."""
    return {**identity, **{section: {**fields, **identity.get(section, {})} for section, fields in defaults.items()}}
