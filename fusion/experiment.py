"""What a run is: the head, how it is trained, on what, and by which protocol."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from json import dumps
from typing import Any

import numpy as np

from cache.errors import MmerError
from cache.joined import AnyCache
from fusion.head import HeadConfig
from fusion.members import Fold
from fusion.narrowing import Only
from fusion.split import Split
from fusion.streams import Chosen
from fusion.train_config import SEEDS, TrainConfig


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A run as asked for.

    Attributes:
        fusion: name of the head.
        head: its configuration.
        training: how it is trained; its seed counts for none, `seeds` do.
        seeds: of the models, each trained on every fold.
        streams: role -> stream, where named.
        labels: what ``--labels`` says, None for the default of the corpus.
        protocol: what ``--protocol`` says, None for the default of the corpus.
        only: column -> the values that take part, of all utterances where there is none.
        allow_missing: score the test utterances that have features where some have none.
        allow_leak: take encoders that have seen test speakers.
        recipe: name of the recipe that set the fields, empty where none did.

    Raises:
        MmerError: if a seed is negative or too great, given twice, or there is none.
    """

    fusion: str
    head: HeadConfig
    training: TrainConfig
    seeds: tuple[int, ...] = (0,)
    streams: Mapping[str, str] = field(default_factory=dict)
    labels: str | None = None
    protocol: str | None = None
    only: Only = field(default_factory=dict)
    allow_missing: bool = False
    allow_leak: bool = False
    recipe: str = ""

    def __post_init__(self) -> None:
        if (
            not self.seeds
            or len(set(self.seeds)) < len(self.seeds)
            or not 0 <= min(self.seeds) <= max(self.seeds) < SEEDS
        ):
            told = ", ".join(map(str, self.seeds)) or "none"
            raise MmerError(f"seeds must be numbers from 0 to {SEEDS - 1} that differ from each other, got {told}")

    @property
    def defaults(self) -> dict[str, dict[str, Any]]:
        """Gives the defaults of all fields, by section as in `described`."""
        training = {name: value for name, value in asdict(TrainConfig()).items() if name != "seed"}
        return {"head": asdict(type(self.head)()), "training": training}

    def described(self, cache: AnyCache, chosen: Chosen, split: Split) -> dict[str, Any]:
        """Gives all that decides the results, as plain values by section; two runs that agree in it are one."""
        training = {name: value for name, value in asdict(self.training).items() if name != "seed"}
        return {
            "fusion": self.fusion,
            "recipe": self.recipe,
            "head": asdict(self.head),
            "training": training,
            "seeds": list(self.seeds),
            "labels": {name: list(raws) for name, raws in split.labels.classes.items()},
            "protocol": split.protocol,
            **({"only": {column: list(values) for column, values in self.only.items()}} if self.only else {}),
            "streams": _keyed(cache, chosen.streams),
            "starts": _keyed(cache, chosen.starts),
            "folds": {fold.name: _fold_digest(cache, split, fold) for fold in split.folds},
            "features": _features_digest(cache, chosen, split.folds),
        }


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


def _keyed(cache: AnyCache, streams: Mapping[str, str]) -> dict[str, str]:
    return {role: f"{name} {cache.stream(name).key}" for role, name in sorted(streams.items())}


def _features_digest(cache: AnyCache, chosen: Chosen, folds: Sequence[Fold]) -> str:
    """Digests the rows of all utterances that take part, whatever their order in the cache."""
    read = np.unique(np.concatenate([part for fold in folds for part in fold.parts.values()])).tolist()
    read.sort(key=lambda index: cache.ids[index])
    streams = [cache.stream(name) for _, name in sorted(chosen.streams.items())]
    return digest_of([[int(stream.checksum[index]) for index in read] for stream in streams])


def _fold_digest(cache: AnyCache, split: Split, fold: Fold) -> str:
    """Digests which utterances are in which part, and their classes, whatever their order in the cache."""
    parts = {
        part: sorted((cache.ids[index], int(split.classes[index])) for index in indices.tolist())
        for part, indices in fold.parts.items()
    }
    return digest_of(parts)
