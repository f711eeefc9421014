"""The fields that a head and its training can be told, with their defaults and what they do, as docstrings say it.

From field=value pairs to the configuration of a head and of its training.
"""

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any, TypeVar

from cache.errors import MmerError
from fusion.config import configured, nearest
from fusion.head import HeadConfig
from fusion.heads.catalog import config_for, head_spec
from fusion.training.config import TrainConfig

SECTION = re.compile(r"^Attributes:\n(?P<entries>(?:(?: {4}.*)?\n)*)", re.MULTILINE)
ENTRY = re.compile(r"^ {4}(?P<names>\w+(?:, \w+)*): (?P<text>.*(?:\n {8}.*)*)", re.MULTILINE)
TRAINING, HEAD = "training", "head"
Field = tuple[str, object, str, str]
Value = TypeVar("Value")
SCORE = "score"
ELSEWHERE = {"seed": "--seed"}  # fields of the training that a run sets itself


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


def configure(fusion: str, values: Mapping[str, object]) -> tuple[HeadConfig, TrainConfig]:
    """Builds both configurations from the fields that are to differ from their defaults.

    Args:
        fusion: name of the head.
        values: by field, of the head or of the training; as text or as they are.

    Raises:
        MmerError: if the head or a field is unknown, or a value is not allowed.
    """
    of_head = {one.name for one in fields(head_spec(fusion).config)}
    of_training = {one.name for one in fields(TrainConfig)} - ELSEWHERE.keys()
    known = of_head | of_training
    for name in values:
        if name in ELSEWHERE:
            raise MmerError(f"{name} is no field to set; it is given by {ELSEWHERE[name]}")
        if name not in known:
            raise MmerError(f"head {fusion} and its training have no field {name!r}; {nearest(name, sorted(known))}")
    head = config_for(fusion, {name: value for name, value in values.items() if name in of_head})
    training = configured(
        TrainConfig, {name: value for name, value in values.items() if name in of_training}, owner="training"
    )
    if fusion == SCORE and (training.class_weights or training.label_smoothing):
        raise MmerError(f"head {SCORE} trains two models by their own losses; leave class weights and smoothing out")
    return head, training


def parse_fields(
    texts: Iterable[str], *, form: str = "FIELD=VALUE", such_as: str = "--set alpha=0.1"
) -> dict[str, str]:
    """Reads ``NAME=VALUE`` pairs.

    Args:
        texts: the pairs.
        form: what a pair looks like, for errors.
        such_as: an example, for errors.

    Raises:
        MmerError: if one is not of that form, or a name is given twice.

    Example:
        >>> parse_fields(("alpha=0.1", "layers=2"))
        {'alpha': '0.1', 'layers': '2'}
    """
    found: dict[str, str] = {}
    for text in texts:
        name, _, value = (part.strip() for part in text.partition("="))
        if not name or not value:
            raise MmerError(f"{text!r} is no {form}, such as {such_as}")
        check_once(name, found)
        found[name] = value
    return found


def united(first: Mapping[str, Value], *others: Mapping[str, Value]) -> dict[str, Value]:
    """Unites values by name that are given in several places.

    Raises:
        MmerError: if a name is given twice.

    Example:
        >>> united({"lr": 0.1}, {"alpha": "0.2"})
        {'lr': 0.1, 'alpha': '0.2'}
    """
    result = dict(first)
    for other in others:
        for name, value in other.items():
            check_once(name, result)
            result[name] = value
    return result


def check_once(name: str, given: Iterable[str]) -> None:
    """Refuses a name that was given before.

    Raises:
        MmerError: if it was.
    """
    if name in given:
        raise MmerError(f"{name} is given twice; give it once")


def _entries(text: str) -> Iterator[tuple[str, str]]:
    section = SECTION.search(text)
    for entry in ENTRY.finditer(section["entries"]) if section else ():
        for name in entry["names"].split(", "):
            yield name, " ".join(entry["text"].split()).replace("``", "")
