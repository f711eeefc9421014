"""What a run is: the head, how it is trained, on what, and by which protocol."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from json import dumps
from typing import Any

from cache.errors import MmerError
from cache.joined import AnyCache
from fusion.head import HeadConfig
from fusion.split import Split
from fusion.streams import Chosen
from fusion.train_config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A run as asked for.

    Attributes:
        fusion: name of the head.
        head: its configuration.
        training: how it is trained; its seed is that of the run's first seed and counts for none.
        seeds: of the models, each trained on every fold.
        streams: role -> stream, where named.
        labels: what ``--labels`` says, None for the default of the corpus.
        protocol: what ``--protocol`` says, None for the default of the corpus.
        allow_missing: score the test utterances that have features where some have none.
        allow_leak: take encoders that have seen test speakers.
        recipe: name of the recipe that set the fields, empty where none did.
    """

    fusion: str
    head: HeadConfig
    training: TrainConfig
    seeds: tuple[int, ...] = (0,)
    streams: Mapping[str, str] = field(default_factory=dict)
    labels: str | None = None
    protocol: str | None = None
    allow_missing: bool = False
    allow_leak: bool = False
    recipe: str = ""

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise MmerError(f"seeds must be given and differ from each other, got {list(self.seeds)}")

    def described(self, cache: AnyCache, chosen: Chosen, split: Split) -> dict[str, Any]:
        """Gives all that decides the results, as plain values by section; two runs that agree in it are one."""
        training = {name: value for name, value in asdict(self.training).items() if name != "seed"}
        streams = {role: f"{name} {cache.stream(name).key}" for role, name in sorted(chosen.streams.items())}
        return {
            "fusion": self.fusion,
            "recipe": self.recipe,
            "head": asdict(self.head),
            "training": training,
            "seeds": list(self.seeds),
            "labels": {name: list(raws) for name, raws in split.labels.classes.items()},
            "protocol": split.protocol,
            "streams": streams,
            "folds": {fold.name: digest_of(_named(cache.ids, fold.parts)) for fold in split.folds},
        }


def digest_of(value: object) -> str:
    """Gives a short digest of plain values, 16 hexadecimal digits."""
    return blake2b(dumps(value, sort_keys=True).encode(), digest_size=8).hexdigest()


def _named(ids: Sequence[str], parts: Mapping[str, Any]) -> dict[str, list[str]]:
    return {part: [ids[index] for index in indices.tolist()] for part, indices in parts.items()}
