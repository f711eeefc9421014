"""What decides a training, as plain values: a checkpoint must agree with it to be gone on from."""

import json
from dataclasses import asdict
from hashlib import blake2b
from typing import Any

from torch import nn

from fusion.features import FeatureSource
from fusion.packing import Indices
from fusion.steps import config_of, roles_of
from fusion.train_config import TrainConfig


def describe(
    head: nn.Module, source: FeatureSource, train: Indices, dev: Indices, config: TrainConfig
) -> dict[str, dict[str, Any]]:
    """Describes a training by section and name: its configuration, the head, the utterances, the streams.

    The device is not part of it: a run may go on elsewhere, where it is bit-equal no more.
    """
    shapes = {name: list(tensor.shape) for name, tensor in head.state_dict().items()}
    parts = {
        part: [(source.cache.ids[index], int(source.labels[index])) for index in indices.tolist()]
        for part, indices in {"train": train, "dev": dev}.items()
    }
    streams = {role: stream for role, stream in source.streams.items() if role in roles_of(head)}
    rows = {role: source.lengths[role][train].tolist() for role in streams}
    return {
        "training": asdict(config),
        "head": {"name": type(head).__name__, **asdict(config_of(head)), "shapes": _digest(shapes)},
        "data": {**{part: _digest(named) for part, named in parts.items()}, "rows": _digest(rows)},
        "streams": {role: f"{stream.spec.name} {stream.key}" for role, stream in streams.items()},
    }


def defaults_of(head: nn.Module) -> dict[str, dict[str, Any]]:
    """Gives the defaults of all fields that `describe` names, by section and name."""
    return {"training": asdict(TrainConfig()), "head": asdict(type(config_of(head))())}


def _digest(values: object) -> str:
    return blake2b(json.dumps(values).encode(), digest_size=16).hexdigest()
