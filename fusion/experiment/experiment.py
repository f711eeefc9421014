"""What a run is: the head, how it is trained, on what, and by which protocol."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from cache.errors import MmerError
from cache.joined import AnyCache
from fusion.experiment.fields import configure
from fusion.experiment.streams import Chosen
from fusion.fingerprint import digest_of
from fusion.head import HeadConfig
from fusion.heads.catalog import head_spec
from fusion.protocols.folds import Fold
from fusion.protocols.split import Only, Split
from fusion.training.config import SEEDS, TrainConfig

FLAGS = ("modalities", "modality_dropout", "epochs", "batch_size", "lr", "data_seed")  # fields with a flag of their own
STREAM_AXIS = "stream."  # begins the name of an axis of streams
NO_AXES: Mapping[str, object] = {}


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A run as asked for.

    Attributes:
        fusion: name of the head, or its import path.
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
        source = head_spec(self.fusion).source
        return {
            "fusion": self.fusion,
            **({"source": source} if source else {}),
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


def changed_fields(experiment: Experiment, values: Mapping[str, object]) -> list[str]:
    """Names the fields of a run that are not as a recipe sets them, each as ``field=value``.

    Args:
        experiment: the run.
        values: what the recipe sets, by field.

    Raises:
        MmerError: if the recipe is no configuration of the head.
    """
    asked = [asdict(one) for one in configure(experiment.fusion, values)]
    taken = [asdict(experiment.head), {**asdict(experiment.training), "seed": asked[1]["seed"]}]
    return [
        f"{name}={value}"
        for mine, theirs in zip(taken, asked, strict=True)
        for name, value in mine.items()
        if value != theirs[name]
    ]


def experiment_of(asked: Mapping[str, Any], cache: Any, axes: Mapping[str, object] = NO_AXES) -> Any:
    """Gives the experiment that a command was asked for.

    Args:
        asked: by option, those of `OPTIONS` and ``seeds``.
        cache: an open cache.
        axes: fields and ``stream.ROLE`` that a grid sets, on top of what was asked for.

    Raises:
        MmerError: if a head, a recipe, a field or a stream is unknown, or a value is not allowed.
    """
    from fusion.experiment.fields import configure, parse_fields
    from fusion.experiment.streams import streams_of
    from fusion.protocols.split import parse_only

    chosen, fusion = head_of(asked)
    base = {**(chosen.fields if chosen else {}), **fields_of(asked)}
    of_axes = {name.removeprefix(STREAM_AXIS): str(one) for name, one in axes.items() if name.startswith(STREAM_AXIS)}
    fields = {name: one for name, one in axes.items() if not name.startswith(STREAM_AXIS)}
    head, training = configure(fusion, {**base, **fields})
    named = _named_streams(asked)
    if fields:  # a role that this combination alone drops needs no stream
        dropped = configure(fusion, base)[0].every_role - head.every_role
        named = {role: name for role, name in named.items() if role not in dropped}
    named |= of_axes
    return Experiment(
        fusion=fusion,
        head=head,
        training=training,
        seeds=asked["seeds"] or (0,),
        streams=streams_of(chosen, cache, {*head.roles, *head.weight_roles}, named) if chosen else named,
        labels=asked["labels"] or (chosen.labels if chosen else None),
        protocol=asked["protocol"] or (chosen.protocol if chosen else None),
        only=parse_only(parse_fields(asked["only"], form="COLUMN=VALUE", such_as="--only style=improvised")),
        allow_missing=asked["allow_missing"],
        allow_leak=asked["allow_leak"],
        recipe=asked["recipe"] or "",
    )


def head_of(asked: Mapping[str, Any]) -> tuple[Any, str]:
    """Gives the recipe that was asked for, None without one, and the name of the head.

    Raises:
        MmerError: if there is no head, it is unknown, or the recipe is another's.
    """
    from cache.errors import MmerError
    from fusion.recipes.catalog import recipe

    chosen = recipe(asked["recipe"]) if asked["recipe"] else None
    fusion = asked["fusion"] or (chosen.fusion if chosen else None)
    if fusion is None:
        raise MmerError("name a head by --fusion, see --list-heads, or a --recipe")
    if chosen and chosen.fusion != fusion:
        raise MmerError(f"recipe {chosen.name} is for head {chosen.fusion}, not for {fusion}; leave --fusion out")
    head_spec(fusion)
    return chosen, fusion


def fields_of(asked: Mapping[str, Any]) -> dict[str, object]:
    """Gives the fields that flags and ``--set`` set."""
    from fusion.experiment.fields import check_once, parse_fields

    fields: dict[str, object] = {name: asked[name] for name in FLAGS if asked[name] is not None}
    for name, value in parse_fields(asked["fields"]).items():
        check_once(name, fields)
        fields[name] = value
    return fields


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


def _named_streams(asked: Mapping[str, Any]) -> dict[str, str]:
    """Gives the streams that the user names, by role."""
    from fusion.experiment.fields import check_once, parse_fields

    streams: dict[str, str] = {role: asked[role] for role in ("audio", "text") if asked[role]}
    for role, name in parse_fields(asked["streams"], form="ROLE=STREAM", such_as="--stream mel=logmel80").items():
        check_once(role, streams)
        streams[role] = name
    return streams
