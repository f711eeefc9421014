"""Experiment: the head of a run, its training, its data and its protocol, bound to a cache."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cache.errors import MmerError
from cache.joined import AnyCache
from fusion.end_to_end.learning.tune import Tune
from fusion.experiment.fields import configure
from fusion.experiment.streams import StreamSelection
from fusion.fingerprint import digest_of
from fusion.head_config import HeadConfig
from fusion.heads.catalog import head_spec
from fusion.protocols.filters import Filters
from fusion.protocols.folds import Fold
from fusion.protocols.own_folds import OwnFolds
from fusion.protocols.split import Split
from fusion.training.config import SEEDS, TrainConfig


class LabelEncoder(Protocol):
    """The text encoder that reads the words of a class; a worker receives it by pickle."""

    @property
    def identity(self) -> Mapping[str, str]:
        """Plain values that decide the vectors."""
        ...

    def __call__(self, texts: Sequence[str], /) -> npt.NDArray[np.float64]:
        """Computes a vector for each text, float64 ``(texts, dim)``."""
        ...


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A requested run, not yet bound to streams and folds of a cache.

    Attributes:
        fusion: name of the head, or its import path.
        head: configuration of the head.
        training: training configuration; its seed has no effect, `seeds` replace it.
        seeds: random seeds of the models; each is trained on every fold.
        streams: role -> stream, for roles with a named stream.
        labels: value of ``--labels``; None for the default of the corpus.
        target: value of ``--target``; empty for classes.
        protocol: value of ``--protocol``; None for the default of the corpus.
        only: column -> values that take part; empty for all utterances.
        allow_missing: score the test utterances with features if others have none.
        allow_leak: accept encoders that have seen test speakers.
        recipe: name of the recipe that sets the fields; empty without a recipe.
        label_encoder: text encoder for the words of a class; None for vectors in the cache.
        notes: lines to print with the scores.
        tune: role -> what of its encoder learns; empty if all features are frozen.
        encoders: name of an encoder that learns -> folder with its checkpoint, if it did not come from a hub.
        root: folder of the corpus, for an encoder that learns from the recordings; None for that of the cache.
        own_folds: folds of ``--folds``, which take the place of the protocol.
        by_stream: fields whose values are defaults of the streams.
        options: the options that give the experiment back, for its configuration file; empty if they are unknown.
        earlier_dev: draw dev as version 0.1 did, to go on with a run that it began.

    Raises:
        MmerError: if there is no seed, or a seed is negative, too great or given twice.
    """

    fusion: str
    head: HeadConfig
    training: TrainConfig
    seeds: tuple[int, ...] = (0,)
    streams: Mapping[str, str] = field(default_factory=dict)
    labels: str | None = None
    target: str = ""
    protocol: str | None = None
    only: Filters = field(default_factory=dict)
    allow_missing: bool = False
    allow_leak: bool = False
    recipe: str = ""
    label_encoder: LabelEncoder | None = None
    notes: tuple[str, ...] = ()
    tune: Mapping[str, Tune] = field(default_factory=dict)
    encoders: Mapping[str, Path] = field(default_factory=dict)
    root: Path | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    own_folds: OwnFolds | None = None
    by_stream: tuple[str, ...] = ()
    earlier_dev: bool = False

    def __post_init__(self) -> None:
        if (
            not self.seeds
            or len(set(self.seeds)) < len(self.seeds)
            or not 0 <= min(self.seeds) <= max(self.seeds) < SEEDS
        ):
            seeds = ", ".join(map(str, self.seeds)) or "none"
            raise MmerError(f"seeds must be numbers from 0 to {SEEDS - 1} that differ from each other, got {seeds}")

    @property
    def defaults(self) -> dict[str, dict[str, Any]]:
        """The defaults of all fields, by section as in `identity`."""
        training = {name: value for name, value in asdict(TrainConfig()).items() if name != "seed"}
        return {"head": asdict(type(self.head)()), "training": training}

    def as_recorded(self, held: Mapping[str, Any]) -> "Experiment":
        """Returns the experiment with the defaults that a held run was recorded with.

        Versions without defaults by stream recorded those of the fields' classes; a run of theirs is continued with
        them, and so is the journal of a grid.

        Args:
            held: identity of the held run, by section.
        """
        older = {
            section: {name: value for name, value in values.items() if name in self.by_stream}
            for section, values in self.defaults.items()
        }
        if not (held and self.by_stream) or any(
            held.get(section, {}).get(name, value) != value
            for section, values in older.items()
            for name, value in values.items()
        ):
            return self
        names = ", ".join(self.by_stream)
        note = f"continued with the defaults of an older version for {names}; choose another --out for those by stream"
        head, training = replace(self.head, **older["head"]), replace(self.training, **older["training"])
        return replace(self, head=head, training=training, by_stream=(), notes=(*self.notes, note))

    def identity(self, cache: AnyCache, selection: StreamSelection, split: Split) -> dict[str, Any]:
        """Returns the identity of the run: all values that determine its results.

        Two runs with equal identities are the same run.

        Args:
            cache: open cache.
            selection: selected streams.
            split: label set and folds.

        Returns:
            Plain values by section.
        """
        training = {name: value for name, value in asdict(self.training).items() if name != "seed"}
        source = head_spec(self.fusion).source
        return {
            "fusion": self.fusion,
            **({"source": source} if source else {}),
            "recipe": self.recipe,
            "head": asdict(self.head),
            "training": training,
            "seeds": list(self.seeds),
            **({"task": split.target.task, "target": split.target.text} if split.target else {}),
            "labels": {name: list(raws) for name, raws in split.labels.classes.items()},
            "protocol": split.protocol,
            **({"own_folds": self.own_folds.digest} if self.own_folds else {}),
            **({"label_encoder": dict(self.label_encoder.identity)} if self.label_encoder else {}),
            **({"tune": {role: tune.text for role, tune in self.tune.items()}} if self.tune else {}),
            **({"only": {column: list(values) for column, values in self.only.items()}} if self.only else {}),
            "streams": _stream_keys(cache, selection.streams),
            "starts": _stream_keys(cache, selection.starts),
            **(
                {"by_fold": {fold: _stream_keys(cache, streams) for fold, streams in split.chosen.items()}}
                if split.chosen
                else {}
            ),
            "folds": {fold.name: _fold_digest(cache, split, fold) for fold in split.folds},
            "features": _features_digest(cache, selection, split.folds),
        }


def changed_fields(experiment: Experiment, values: Mapping[str, object]) -> list[str]:
    """Returns the fields of a run that differ from those of a recipe, each as ``field=value``.

    Args:
        experiment: the run.
        values: field -> value, as the recipe sets it.

    Raises:
        MmerError: if the recipe is not a valid configuration of the head.
    """
    recipe_head, recipe_training = (asdict(config) for config in configure(experiment.fusion, values))
    training = {**asdict(experiment.training), "seed": recipe_training["seed"]}
    return [
        f"{name}={value}"
        for actual, expected in ((asdict(experiment.head), recipe_head), (training, recipe_training))
        for name, value in actual.items()
        if value != expected[name]
    ]


def _stream_keys(cache: AnyCache, streams: Mapping[str, str]) -> dict[str, str]:
    """Returns role -> name and key of its stream."""
    return {role: f"{name} {cache.stream(name).key}" for role, name in sorted(streams.items())}


def _features_digest(cache: AnyCache, selection: StreamSelection, folds: Sequence[Fold]) -> str:
    """Returns a digest of the rows of all utterances that take part, in whatever order the cache has them."""
    used = np.unique(np.concatenate([subset for fold in folds for subset in fold.subsets.values()])).tolist()
    used.sort(key=lambda index: cache.ids[index])
    streams = [cache.stream(name) for _, name in sorted(selection.streams.items())]
    streams += [cache.stream(name) for _, names in sorted(selection.choices.items()) for name in names]
    return digest_of([[int(stream.checksum[index]) for index in used] for stream in streams])


def _fold_digest(cache: AnyCache, split: Split, fold: Fold) -> str:
    """Returns a digest of the utterances of each subset and their classes, in whatever order the cache has them."""
    targets = split.targets.tolist()
    subsets = {
        name: sorted((cache.ids[index], targets[index]) for index in indices.tolist())
        for name, indices in {**fold.subsets, **fold.test_parts}.items()
    }
    return digest_of(subsets)
