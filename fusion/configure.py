"""From field=value pairs to the configuration of a head and of its training."""

from collections.abc import Mapping
from dataclasses import fields

from cache.errors import MmerError
from fusion.head import HeadConfig
from fusion.heads.catalog import config_for, head_spec
from fusion.settings import configured, nearest
from fusion.train_config import TrainConfig


def configure(fusion: str, values: Mapping[str, object]) -> tuple[HeadConfig, TrainConfig]:
    """Builds both configurations from the fields that are to differ from their defaults.

    Args:
        fusion: name of the head.
        values: by field, of the head or of the training; as text or as they are.

    Raises:
        MmerError: if the head or a field is unknown, or a value is not allowed.
    """
    of_head = {one.name for one in fields(head_spec(fusion).config)}
    of_training = {one.name for one in fields(TrainConfig)}
    for name in values:
        if name not in of_head | of_training:
            raise MmerError(
                f"head {fusion} and its training have no field {name!r}; {_meant(name, of_head | of_training)}"
            )
    head = config_for(fusion, {name: value for name, value in values.items() if name in of_head})
    training = {name: value for name, value in values.items() if name in of_training}
    return head, configured(TrainConfig, training, owner="training")


def parse_fields(texts: tuple[str, ...]) -> dict[str, str]:
    """Reads ``FIELD=VALUE`` pairs.

    Raises:
        MmerError: if one is not of that form, or a field is named twice.

    Example:
        >>> parse_fields(("alpha=0.1", "layers=2"))
        {'alpha': '0.1', 'layers': '2'}
    """
    found: dict[str, str] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name.strip():
            raise MmerError(f"{text!r} is no FIELD=VALUE, such as --set alpha=0.1")
        if name.strip() in found:
            raise MmerError(f"{name.strip()} is set twice")
        found[name.strip()] = value.strip()
    return found


def _meant(name: str, known: set[str]) -> str:
    return nearest(name, sorted(known))
