"""Request of a run: the options as a user gives them, checked, and turned into an `Experiment` for a cache."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from cache.errors import MmerError
from cache.joined import AnyCache
from cache.stream import StreamSpec
from fusion.end_to_end.learning.tune import NONE, TUNABLE, Tune, parse_tunes
from fusion.evaluation.task import CLASSIFICATION, DIMENSIONS, SOFT, TASKS, loss_of
from fusion.experiment.defaults import automatic, only_modality, stream_defaults, without_auto
from fusion.experiment.experiment import Experiment, LabelEncoder
from fusion.experiment.featurize_commands import featurize_command
from fusion.experiment.fields import configure
from fusion.experiment.streams import select_streams, select_text, streams_of
from fusion.head_config import TEXT, HeadConfig
from fusion.protocols.catalog import AUTO, find_protocol
from fusion.protocols.labels import find_label_set
from fusion.protocols.own_folds import OwnFolds
from fusion.protocols.split import Filters
from fusion.protocols.targets import parse_target
from fusion.recipes.catalog import Recipe, recipe
from fusion.training.config import TUNING, TrainConfig

STREAM_AXIS = "stream."  # prefix of the name of a grid axis of streams
TUNED_DEFAULTS: Mapping[str, object] = {"lr": 1e-4}  # a head on tuned encoders learns more slowly than on frozen ones
OF_CLASSES = ("class_weights", "balanced_batches", "focal_gamma", "label_smoothing")  # fields of the training
NO_AXES: Mapping[str, object] = {}


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
