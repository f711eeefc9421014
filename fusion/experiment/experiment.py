"""What a run is: the head, how it is trained, on what, and by which protocol."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from cache.errors import MmerError
from cache.joined import AnyCache
from fusion.experiment.fields import configure
from fusion.experiment.streams import StreamSelection, streams_of
from fusion.fingerprint import digest_of
from fusion.head import HeadConfig
from fusion.heads.catalog import head_spec
from fusion.protocols.folds import Fold
from fusion.protocols.split import Filters, Split
from fusion.recipes.catalog import Recipe, recipe
from fusion.training.config import SEEDS, TrainConfig

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
    only: Filters = field(default_factory=dict)
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
        """Gives the defaults of all fields, by section as in `identity`."""
        training = {name: value for name, value in asdict(TrainConfig()).items() if name != "seed"}
        return {"head": asdict(type(self.head)()), "training": training}

    def identity(self, cache: AnyCache, chosen: StreamSelection, split: Split) -> dict[str, Any]:
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


@dataclass(frozen=True, kw_only=True)
class ExperimentRequest:
    """A requested run: head or recipe, changed fields, streams and data; not yet bound to a cache.

    Attributes:
        fusion: name of the head; empty for the head of the recipe.
        recipe: name of the recipe; empty for none.
        fields: fields of the head or of its training by name, as text or as values; they replace the recipe's.
        streams: role -> stream, where several fit or another than the recipe's is wanted.
        labels: label set; None for that of the recipe, or the default of the corpus.
        protocol: protocol; None for that of the recipe, or the default of the corpus.
        only: column -> values; utterances with other values are left out.
        seeds: random seeds of the models.
        allow_missing: score the test utterances that have features where some have none.
        allow_leak: accept encoders that have seen test speakers.

    Raises:
        MmerError: if there is neither head nor recipe, one of them is unknown, or the recipe belongs to another head.

    Example:
        >>> ExperimentRequest(recipe="gcf2net-iemocap", fields={"layers": 2}).head
        'rescmfa'
    """

    fusion: str = ""
    recipe: str = ""
    fields: Mapping[str, object] = field(default_factory=dict)
    streams: Mapping[str, str] = field(default_factory=dict)
    labels: str | None = None
    protocol: str | None = None
    only: Filters = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    allow_missing: bool = False
    allow_leak: bool = False

    def __post_init__(self) -> None:
        settings = self.settings
        if not self.fusion and settings is None:
            raise MmerError("name a head by --fusion, see --list-heads, or a --recipe")
        if settings and self.fusion not in {"", settings.fusion}:
            told = f"recipe {settings.name} is for head {settings.fusion}, not for {self.fusion}"
            raise MmerError(f"{told}; leave --fusion out")
        head_spec(self.head)

    @property
    def settings(self) -> Recipe | None:
        """The settings of the recipe, None without one."""
        return recipe(self.recipe) if self.recipe else None

    @property
    def head(self) -> str:
        """Name of the head, that of the recipe where none is given."""
        settings = self.settings
        return settings.fusion if settings else self.fusion

    def experiment(self, cache: AnyCache, axes: Mapping[str, object] = NO_AXES) -> Experiment:
        """Returns the experiment that is requested, on a cache.

        Args:
            cache: an open cache.
            axes: fields and ``stream.ROLE`` that a grid sets in addition.

        Raises:
            MmerError: if a head, a field or a stream is unknown, or a value is not allowed.
        """
        settings = self.settings
        base = {**(settings.fields if settings else {}), **self.fields}
        by_axis = {name.removeprefix(STREAM_AXIS): str(axes[name]) for name in axes if name.startswith(STREAM_AXIS)}
        fields = {name: value for name, value in axes.items() if not name.startswith(STREAM_AXIS)}
        head, training = configure(self.head, {**base, **fields})
        named = dict(self.streams)
        if fields:  # a role that this combination alone drops needs no stream
            dropped = configure(self.head, base)[0].every_role - head.every_role
            named = {role: name for role, name in named.items() if role not in dropped}
        named |= by_axis
        roles = {*head.roles, *head.weight_roles}
        return Experiment(
            fusion=self.head,
            head=head,
            training=training,
            seeds=self.seeds,
            streams=streams_of(settings, cache, roles, named) if settings else named,
            labels=self.labels or (settings.labels if settings else None),
            protocol=self.protocol or (settings.protocol if settings else None),
            only=self.only,
            allow_missing=self.allow_missing,
            allow_leak=self.allow_leak,
            recipe=self.recipe,
        )


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


def _keyed(cache: AnyCache, streams: Mapping[str, str]) -> dict[str, str]:
    return {role: f"{name} {cache.stream(name).key}" for role, name in sorted(streams.items())}


def _features_digest(cache: AnyCache, chosen: StreamSelection, folds: Sequence[Fold]) -> str:
    """Digests the rows of all utterances that take part, whatever their order in the cache."""
    read = np.unique(np.concatenate([part for fold in folds for part in fold.subsets.values()])).tolist()
    read.sort(key=lambda index: cache.ids[index])
    streams = [cache.stream(name) for _, name in sorted(chosen.streams.items())]
    return digest_of([[int(stream.checksum[index]) for index in read] for stream in streams])


def _fold_digest(cache: AnyCache, split: Split, fold: Fold) -> str:
    """Digests which utterances are in which part, and their classes, whatever their order in the cache."""
    parts = {
        part: sorted((cache.ids[index], int(split.classes[index])) for index in indices.tolist())
        for part, indices in fold.subsets.items()
    }
    return digest_of(parts)
