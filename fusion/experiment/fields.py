"""Fields of a head and of its training: list of fields, and configurations from ``FIELD=VALUE``.

The meaning of a field is its entry in the docstring of its configuration class.
"""

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from cache.errors import MmerError
from cache.near_names import nearest
from fusion.config import configured
from fusion.experiment.defaults import AUTO, automatic, without_auto, word_of
from fusion.head_config import HeadConfig
from fusion.heads.catalog import HEADS, config_for, head_spec
from fusion.training.config import TrainConfig

TRAINING, HEAD = "training", "head"  # owners of fields
SCORE = "score"  # name of the baseline that adds the logits of two models
ELSEWHERE = {"seed": "--seed"}  # field of the training -> option that sets it for the whole run

# The section of a docstring with the fields, and one entry of it.
SECTION = re.compile(r"^Attributes:\n(?P<entries>(?:(?: {4}.*)?\n)*)", re.MULTILINE)
ENTRY = re.compile(r"^ {4}(?P<names>\w+(?:, \w+)*): (?P<text>.*(?:\n {8}.*)*)", re.MULTILINE)

Field = tuple[str, object, str, str]  # name, default, owner, meaning
Value = TypeVar("Value")


def list_fields(fusion: str) -> list[Field]:
    """Returns every field that can be set for a head or its training.

    Args:
        fusion: name of the head.

    Returns:
        Name, default, owner (``head`` or ``training``) and meaning of each field.

    Raises:
        MmerError: if the head is unknown.
    """
    spec, config = head_spec(fusion), config_for(fusion, {})
    hidden = {*spec.fixed, *ELSEWHERE}
    owners = ((HEAD, config), (TRAINING, TrainConfig()))
    by_stream = automatic(fusion)
    rows: list[Field] = []
    for owner, owned in owners:
        for field in fields(owned):
            default, meaning = getattr(owned, field.name), meanings(type(owned)).get(field.name, "")
            if field.name in by_stream:
                meaning = f"{meaning} auto: {by_stream[field.name]}; {word_of(default)} otherwise, and with a recipe."
                default = AUTO
            if field.name not in hidden:
                rows.append((field.name, default, owner, meaning))
    return rows


def field_names() -> list[str]:
    """Returns the fields of training and of every built-in head, which one of them at least accepts."""
    kinds: list[type[Any]] = [TrainConfig, *(spec.config for spec in HEADS.values())]
    return list(dict.fromkeys(field.name for kind in kinds for field in fields(kind)))


def meanings(config: type[Any]) -> dict[str, str]:
    """Returns the meaning of each field of a configuration class, by name; inherited fields included."""
    found: dict[str, str] = {}
    for kind in reversed(config.__mro__):
        found |= dict(_entries(inspect.cleandoc(kind.__doc__ or "") + "\n"))
    return found


def configure(fusion: str, values: Mapping[str, object]) -> tuple[HeadConfig, TrainConfig]:
    """Builds the configurations of a head and of its training from the fields that differ from their defaults.

    Args:
        fusion: name of the head.
        values: field of the head or of the training -> value, as text or as a value of its type; ``auto`` for the
            default of the class, which the caller replaces by that of the stream.

    Raises:
        MmerError: if the head or a field is unknown, or a value is not allowed.
    """
    values = without_auto(fusion, values)
    of_head = {field.name for field in fields(head_spec(fusion).config)}
    of_training = {field.name for field in fields(TrainConfig)} - ELSEWHERE.keys()
    known = of_head | of_training
    for name in values:
        if name in ELSEWHERE:
            raise MmerError(f"{name} cannot be set as a field; use {ELSEWHERE[name]}")
        if name not in known:
            raise MmerError(f"head {fusion} and its training have no field {name!r}; {nearest(name, sorted(known))}")
    head = config_for(fusion, {name: value for name, value in values.items() if name in of_head})
    training = configured(
        TrainConfig, {name: value for name, value in values.items() if name in of_training}, owner="training"
    )
    if fusion == SCORE and (training.class_weights or training.label_smoothing or training.focal_gamma):
        raise MmerError(f"head {SCORE} does not use class_weights, label_smoothing and focal_gamma; leave them out")
    if training.focal_gamma and training.label_smoothing:
        raise MmerError("training: focal_gamma and label_smoothing exclude each other; set one of them to 0")
    return head, training


def parse_fields(
    texts: Iterable[str], *, form: str = "FIELD=VALUE", such_as: str = "--set alpha=0.1"
) -> dict[str, str]:
    """Reads ``NAME=VALUE`` pairs.

    Args:
        texts: the pairs.
        form: form of a pair, for errors.
        such_as: example of a pair, for errors.

    Returns:
        Name -> value, both without surrounding spaces.

    Raises:
        MmerError: if a pair does not have this form, or a name is given twice.

    Example:
        >>> parse_fields(("alpha=0.1", "layers=2"))
        {'alpha': '0.1', 'layers': '2'}
    """
    found: dict[str, str] = {}
    for text in texts:
        name, _, value = (part.strip() for part in text.partition("="))
        if not name or not value:
            raise MmerError(f"invalid {text!r}; expected {form}, such as {such_as}{_shell_hint(text)}")
        check_once(name, found)
        found[name] = value
    return found


def _shell_hint(text: str) -> str:
    """Returns a hint if a text is the name of a file, by which the shell replaces a pattern without quotes."""
    if "=" in text or not text or not Path(text).exists():
        return ""
    return f"; {text} is a file: quote a pattern, or the shell replaces it by the names of files"


def united(first: Mapping[str, Value], *others: Mapping[str, Value]) -> dict[str, Value]:
    """Merges mappings whose names must all differ.

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
    """Checks that a name was not given before.

    Raises:
        MmerError: if it was.
    """
    if name in given:
        raise MmerError(f"{name} is given twice; give it once")


def _entries(text: str) -> Iterator[tuple[str, str]]:
    """Yields name and meaning of each field in a docstring."""
    section = SECTION.search(text)
    for entry in ENTRY.finditer(section["entries"]) if section else ():
        for name in entry["names"].split(", "):
            yield name, " ".join(entry["text"].split()).replace("``", "")
