"""The fields that a head and its training can be told, with their defaults and what they do, as docstrings say it."""

import inspect
import re
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from fusion.configure import ELSEWHERE
from fusion.heads.catalog import config_for, head_spec
from fusion.train_config import TrainConfig

SECTION = re.compile(r"^Attributes:\n(?P<entries>(?:(?: {4}.*)?\n)*)", re.MULTILINE)
ENTRY = re.compile(r"^ {4}(?P<names>\w+(?:, \w+)*): (?P<text>.*(?:\n {8}.*)*)", re.MULTILINE)
TRAINING, HEAD = "training", "head"

Field = tuple[str, object, str, str]


def list_fields(fusion: str) -> list[Field]:
    """Gives name, default, owner (``head`` or ``training``) and meaning of every field that may be set for a head.

    Raises:
        MmerError: if there is no such head.
    """
    spec, config = head_spec(fusion), config_for(fusion, {})
    left_out = {*spec.fixed, *ELSEWHERE}
    owners = ((HEAD, config), (TRAINING, TrainConfig()))
    return [
        (one.name, getattr(owned, one.name), owner, meanings(type(owned)).get(one.name, ""))
        for owner, owned in owners
        for one in fields(owned)
        if one.name not in left_out
    ]


def meanings(config: type[Any]) -> dict[str, str]:
    """Gives what the fields of a configuration mean, by name; those of the classes it extends too."""
    found: dict[str, str] = {}
    for kind in reversed(config.__mro__):
        found |= dict(_entries(inspect.cleandoc(kind.__doc__ or "") + "\n"))
    return found


def _entries(text: str) -> Iterator[tuple[str, str]]:
    section = SECTION.search(text)
    for entry in ENTRY.finditer(section["entries"]) if section else ():
        for name in entry["names"].split(", "):
            yield name, " ".join(entry["text"].split()).replace("``", "")
