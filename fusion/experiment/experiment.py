"""Experiment: the head of a run, its training, its data and its protocol; from a request to a bound experiment."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cache.errors import MmerError
from cache.joined import AnyCache
from cache.stream import StreamSpec
from fusion.end_to_end.learning.tune import NONE, TUNABLE, Tune, parse_tunes
from fusion.evaluation.task import CLASSIFICATION, DIMENSIONS, SOFT, TASKS, loss_of
from fusion.experiment.defaults import automatic, only_modality, stream_defaults, without_auto
from fusion.experiment.featurize_commands import featurize_command
from fusion.experiment.fields import configure
from fusion.experiment.streams import StreamSelection, select_streams, select_text, streams_of
from fusion.fingerprint import digest_of
from fusion.head_config import TEXT, HeadConfig
from fusion.heads.catalog import head_spec
from fusion.protocols.catalog import AUTO, find_protocol
from fusion.protocols.folds import Fold
from fusion.protocols.labels import find_label_set
from fusion.protocols.own_folds import OwnFolds
from fusion.protocols.split import Filters, Split
from fusion.protocols.targets import parse_target
from fusion.recipes.catalog import Recipe, recipe
from fusion.training.config import SEEDS, TUNING, TrainConfig

STREAM_AXIS = "stream."  # prefix of the name of a grid axis of streams
TUNED_DEFAULTS: Mapping[str, object] = {"lr": 1e-4}  # a head on tuned encoders learns more slowly than on frozen ones
OF_CLASSES = ("class_weights", "balanced_batches", "focal_gamma", "label_smoothing")  # fields of the training
NO_AXES: Mapping[str, object] = {}


class LabelEncoder(Protocol):
    """The text encoder that reads the words of a class; a worker receives it by pickle."""

    @property
    def identity(self) -> Mapping[str, str]:
        """Plain values that decide the vectors."""
        ...

    def __call__(self, texts: Sequence[str], /) -> npt.NDArray[np.float64]:
        """Computes a vector for each text, float64 ``(texts, dim)``."""
        ...


class FindLabelEncoder(Protocol):
    """The choice of the label encoder, which the room of encoders and heads implements."""

    @property
    def requested(self) -> str:
        """Name of the encoder; empty for that of the text stream."""
        ...

    def find(self, spec: StreamSpec, /) -> tuple[LabelEncoder | None, str]:
        """Returns the encoder for a text stream, None if it is not available; and a note to print."""
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


@dataclass(frozen=True, kw_only=True)
class ExperimentRequest:
    """The options of a run: head or recipe, changed fields, streams and data; not yet bound to a cache.

    Attributes:
        fusion: name of the head; empty for the head of the recipe.
        recipe: name of the recipe; empty for none.
        fields: field of the head or of its training -> value, as text or as a value; replaces that of the recipe.
        streams: role -> stream, if several streams fit or another than the recipe's shall be read.
        labels: label set; None for that of the recipe, or the default of the corpus.
        target: dimensions to predict, such as ``valence,activation``; empty for classes.
        protocol: protocol; None for that of the recipe, or the default of the corpus.
        only: column -> values; utterances with other values are left out.
        seeds: random seeds of the models.
        allow_missing: score the test utterances with features if others have none.
        allow_leak: accept encoders that have seen test speakers.
        label_encoders: choice of the text encoder for the words of a class; None for vectors in the cache.
        tune: values of ``--tune``; empty for those of the recipe.
        tune_all: without values of ``--tune`` and without a recipe that has some, the encoder of every role learns.
        encoders: name of an encoder that learns -> folder with its checkpoint.
        root: folder of the corpus, for an encoder that learns from the recordings.
        own_folds: folds of ``--folds``, in the place of a protocol.

    Raises:
        MmerError: if there is neither head nor recipe, one of them is unknown, or the recipe is for another head.

    Example:
        >>> ExperimentRequest(recipe="gcf2net-iemocap", fields={"layers": 2}).head
        'rescmfa'
    """

    fusion: str = ""
    recipe: str = ""
    fields: Mapping[str, object] = field(default_factory=dict)
    streams: Mapping[str, str] = field(default_factory=dict)
    labels: str | None = None
    target: str = ""
    protocol: str | None = None
    only: Filters = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    allow_missing: bool = False
    allow_leak: bool = False
    label_encoders: FindLabelEncoder | None = None
    tune: tuple[str, ...] = ()
    tune_all: bool = False
    encoders: Mapping[str, Path] = field(default_factory=dict)
    root: Path | None = None
    own_folds: OwnFolds | None = None

    def __post_init__(self) -> None:
        parse_tunes(self.tune)
        if self.own_folds and self.protocol:
            raise MmerError(
                f"--folds {self.own_folds.source} and --protocol {self.protocol} both define the folds; give only one"
            )
        settings = self.settings
        if not self.fusion and settings is None:
            raise MmerError("no head given; pass --fusion NAME (see --list-heads) or --recipe NAME")
        if settings and self.fusion not in {"", settings.fusion}:
            raise MmerError(
                f"recipe {settings.name} is for head {settings.fusion}, not for {self.fusion}; leave --fusion out"
            )
        configure(self.head, {**(settings.fields if settings else {}), **self._set_fields})
        if self.protocol not in {None, "", AUTO}:
            find_protocol(str(self.protocol))
        if self.labels:
            find_label_set(self.labels)
        target = parse_target(self.target)
        if self.labels and target and not target.soft:
            raise MmerError(f"--labels selects classes, and --target {self.target} has none; leave one of them out")

    @property
    def settings(self) -> Recipe | None:
        """The settings of the recipe; None without a recipe."""
        return recipe(self.recipe) if self.recipe else None

    @property
    def head(self) -> str:
        """The name of the head; that of the recipe if there is one."""
        settings = self.settings
        return settings.fusion if settings else self.fusion

    @property
    def options(self) -> dict[str, object]:
        """The options that give the request back, by name without dashes in front; see `config_file`."""
        tunes, settings = self._tunes(), self.settings
        frozen = [NONE] if settings and settings.tune and not tunes else []
        return {
            "fusion": self.fusion,
            "recipe": self.recipe,
            "protocol": self.protocol,
            "folds": self.own_folds.source if self.own_folds else "",
            "labels": self.labels,
            "target": self.target,
            "seed": list(self.seeds),
            "tune": [f"{role}={tune.text}" for role, tune in tunes.items()] or frozen,
            "label-encoder": self.label_encoders.requested if self.label_encoders else "",
            "root": self.root and str(self.root),
            "allow-missing": self.allow_missing,
            "allow-leak": self.allow_leak,
            "set": {**self.fields},
            "stream": {**self.streams},
            "only": {column: "+".join(values) for column, values in self.only.items()},
            "encoder": {name: str(folder) for name, folder in self.encoders.items()},
        }

    def experiment(self, cache: AnyCache, axes: Mapping[str, object] = NO_AXES) -> Experiment:
        """Builds the requested experiment for a cache.

        Args:
            cache: open cache.
            axes: values of a grid's axes, by field or ``stream.ROLE``; they replace the requested ones.

        Raises:
            MmerError: if a head, a field or a stream is unknown, or a value is not allowed.
        """
        settings = self.settings
        tunes = self._tunes()
        tuned_defaults: Mapping[str, object] = TUNED_DEFAULTS if tunes else {}
        recipe_fields = {
            name: value for name, value in (settings.fields if settings else {}).items() if tunes or name not in TUNING
        }
        base = {**tuned_defaults, **recipe_fields, **self._set_fields}
        by_axis = {name.removeprefix(STREAM_AXIS): str(axes[name]) for name in axes if name.startswith(STREAM_AXIS)}
        fields = {name: value for name, value in axes.items() if not name.startswith(STREAM_AXIS)}
        fields = without_auto(self.head, fields)
        by_stream: dict[str, object] = {}
        if not settings and not tunes:
            by_stream = self._stream_defaults(cache, {**self.streams, **by_axis}, {**base, **fields})
            base = {**by_stream, **base}
        head, training = configure(self.head, {**base, **fields})
        training = _fitted(training, self.target, given={*self.fields, *fields})
        named = dict(self.streams)
        if fields:  # a role that only this combination drops needs no stream
            dropped = configure(self.head, base)[0].every_role - head.every_role
            named = {role: name for role, name in named.items() if role not in dropped}
        named |= by_axis
        if settings:
            named = {**{role: name for role, name in settings.streams.items() if role in tunes}, **named}
        roles = {*head.roles, *head.weight_roles} - tunes.keys()
        streams = streams_of(settings, cache, roles, named) if settings else named
        label_encoder, note = self._find_label_encoder(cache, head, streams, tunes, required=not axes)
        return Experiment(
            fusion=self.head,
            head=head,
            training=training,
            seeds=self.seeds,
            streams=streams,
            labels=self.labels or (settings.labels if settings and self._has_classes else None),
            target=self.target,
            protocol=self.protocol or (settings.protocol if settings else None),
            only=self.only,
            allow_missing=self.allow_missing,
            allow_leak=self.allow_leak,
            recipe=self.recipe,
            tune=tunes,
            encoders=self.encoders,
            root=self.root,
            own_folds=self.own_folds,
            by_stream=tuple(by_stream),
            label_encoder=label_encoder,
            notes=(note,) if note else (),
            options=self.options,
        )

    def _find_label_encoder(
        self,
        cache: AnyCache,
        head: HeadConfig,
        streams: Mapping[str, str],
        tunes: Mapping[str, Tune],
        *,
        required: bool,
    ) -> tuple[LabelEncoder | None, str]:
        """Returns the text encoder for the words of a class, if the head reads them; and a note."""
        if self.label_encoders is None:
            return None, ""
        if not head.encodes_texts:
            if required and self.label_encoders.requested:
                raise MmerError(f"head {self.head} with these fields reads no words of classes; omit --label-encoder")
            return None, ""
        if TEXT not in tunes:
            return self.label_encoders.find(select_text(cache, head, streams))
        from fusion.end_to_end.learning.start import find_start  # imports torch and transformers

        command = partial(featurize_command, cache)
        return self.label_encoders.find(
            find_start(cache, tunes[TEXT], streams.get(TEXT), command, self.encoders).output
        )

    @property
    def _set_fields(self) -> dict[str, object]:
        """The fields that the run sets to a value; ``auto`` leaves a field to the streams."""
        return without_auto(self.head, self.fields)

    def _stream_defaults(
        self, cache: AnyCache, named: Mapping[str, str], given: Mapping[str, object]
    ) -> dict[str, object]:
        """Returns the defaults of the head for the streams that it reads; an axis may drop a role."""
        if not automatic(self.head):
            return {}
        modality = only_modality(self.head, cache, given)
        config, _ = configure(self.head, {**modality, **given})
        named = {role: name for role, name in named.items() if role in config.every_role}
        streams = select_streams(cache, config, named).streams
        return modality | stream_defaults(self.head, config, cache, streams, given, classes=self._has_classes)

    @property
    def _has_classes(self) -> bool:
        """True if the target has classes, whose label set a recipe may name."""
        target = parse_target(self.target)
        return target is None or target.soft

    def _tunes(self) -> dict[str, Tune]:
        """Returns what of which encoder learns, by role."""
        if self.tune:
            return parse_tunes(self.tune)
        settings = self.settings
        if settings and settings.tune:
            return parse_tunes(settings.tune)
        if not self.tune_all:
            return {}
        head, _ = configure(self.head, {**(settings.fields if settings else {}), **self._set_fields})
        if not (roles := [role for role in head.roles if role in TUNABLE]):
            raise MmerError(f"head {self.head} reads {', '.join(head.roles)}, and no encoder of these can learn")
        return {role: Tune(role=role) for role in roles}


def _fitted(training: TrainConfig, target: str, given: Collection[str]) -> TrainConfig:
    """Returns the training with a development score of its task.

    Args:
        training: requested training.
        target: value of ``--target``.
        given: names of the fields that the user set.

    Raises:
        MmerError: if the task has no such score or loss, or cannot weigh its targets.
    """
    wanted = parse_target(target)
    task = TASKS[wanted.task] if wanted else CLASSIFICATION
    try:
        loss_of(task, training.loss)
    except ValueError as error:
        raise MmerError(f"training: {error}") from None
    if task is DIMENSIONS and (of_classes := [name for name in OF_CLASSES if getattr(training, name)]):
        raise MmerError(f"--target {target} has no classes for {', '.join(of_classes)}; leave them out")
    if task is SOFT and training.focal_gamma:
        raise MmerError("--target soft has no focal loss; set focal_gamma to 0")
    if training.monitor in task.monitors:
        return training
    if "monitor" in given:
        allowed = ", ".join(task.monitors)
        raise MmerError(f"training: monitor must be one of {allowed} for {task.name}, got {training.monitor!r}")
    return replace(training, monitor=task.monitors[0])


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
        for name, indices in {**fold.subsets, **fold.parts}.items()
    }
    return digest_of(subsets)
