"""Stream selection: the stream that a head reads for each role, and the encoder whose weights it starts from.

If a stream is missing, the error contains the ``mmer-featurize`` command that adds it.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from shlex import quote
from typing import TYPE_CHECKING

from cache.errors import MmerError
from cache.joined import AnyCache
from cache.near_names import nearest
from cache.stream import INTEGER_ROLES, ROLES, VIEW, StreamSpec
from cache.transcripts import AsrReading
from fusion.evaluation.classes import CROSS_ENTROPY
from fusion.experiment.featurize_commands import (
    ADDED_BY,
    encoder_of,
    featurize_command,
    featurize_command_for_role,
    options_for,
)
from fusion.head_config import (
    AUDIO,
    BOTH,
    CTC_SYMBOLS,
    MOST_CTC_SYMBOLS,
    TEXT,
    EncodeTexts,
    HeadConfig,
    HeadInputs,
    Weights,
    view_role,
)
from fusion.recipes.catalog import RECIPES, Recipe

if TYPE_CHECKING:
    from fusion.end_to_end.learning.start import Start

LANGUAGE = "language"  # role of JFM's language layers if they are of another encoder than the text stream

HISTORY = re.compile(r"\+history\d+")  # in the name of a stream with preceding turns
RECIPE_ENCODER = re.compile(r"--encoder ([^@ ]+)")  # in the options of a recipe
NO_STREAMS: Mapping[str, str] = {}
WILDCARDS = "*?["  # in a pattern of streams

# Role -> the role whose encoder it must be computed by, and the end of its name.
FOLLOWS: Mapping[str, tuple[str, str]] = {"codes": (AUDIO, ".codes"), "tokens": (TEXT, ".tokens")}

# Modality -> option that adds augmented views of its streams.
ADDED_VIEWS: Mapping[str, str] = {AUDIO: "--view lsa", TEXT: "--view cbca:5"}

# Of several streams for a role, those with these properties are preferred, in this order.
PREFERRED: Sequence[Callable[[StreamSpec], bool]] = (
    lambda spec: AsrReading.of(spec) is None,
    lambda spec: not spec.preprocessing.get("history"),
    lambda spec: spec.layers == "last",
)


@dataclass(frozen=True, kw_only=True)
class StreamSelection:
    """The streams of a run.

    Attributes:
        streams: role -> name of the stream that is read for it.
        starts: role -> name of a stream that is not read; the head starts from the weights of its encoder.
        required: names of the streams that every subset of a fold needs.
        training_only: names of the streams that only the training subset needs.
        choices: role -> streams of encoders that were trained on different folds; each fold reads the one that has not
            seen its test speakers, and `streams` has the first.
    """

    streams: dict[str, str]
    starts: dict[str, str] = field(default_factory=dict)
    required: list[str]
    training_only: list[str]
    choices: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def indirect(self) -> list[str]:
        """The names of the other streams that influence training: augmented views, encoders of starting weights."""
        named = [*self.streams.values(), *self.starts.values()]
        return [name for name in named if name not in {*self.required, *self.training_only}]


def select_streams(
    cache: AnyCache, config: HeadConfig, requested: Mapping[str, str], learned: Mapping[str, str] = NO_STREAMS
) -> StreamSelection:
    """Selects a stream for every role that a head reads or starts from.

    Args:
        cache: open cache.
        config: configuration of the head.
        requested: role -> stream that the user names; for ``audio`` any features of speech, for ``text`` of words.
        learned: role -> stream from which an encoder learns, instead of the stream of the role.

    Raises:
        MmerError: if no stream fits a role (with the command that adds one), several fit, views differ in form, or a
            requested role is not read by the head.
    """
    training_roles = {*config.training_roles, *config.prepare_roles} - set(config.roles)
    known = [*config.roles, *sorted(training_roles), *config.weight_roles, *config.optional_roles]
    for role in requested:
        if role not in known:
            raise MmerError(f"the head does not read {role}, for which a stream is given; it reads {', '.join(known)}")
    selector = _Selector(cache, config, requested)
    streams: dict[str, str] = dict(learned)
    for role in sorted({*config.roles, *training_roles}, key=lambda role: (role in FOLLOWS, role)):  # leaders first
        streams[role] = learned.get(role) or selector.select(role, streams)
    starts = {role: selector.select(role, streams) for role in config.weight_roles if role not in streams}
    training_only = [streams[role] for role in sorted(training_roles)]
    originals = dict(streams)
    for role in config.optional_roles:
        for number, view in enumerate(selector.select_views(role, originals), start=1):
            streams[view_role(_modality_of(role), number)] = view
    if config.needs_view and streams.keys() == originals.keys():
        raise MmerError(_lacks_views(cache, config, originals))
    required = [streams[role] for role in config.roles]
    choices = {role: selector.matching(role) for role in streams if selector.is_pattern(role) and role not in learned}
    return StreamSelection(
        streams=streams, starts=starts, required=required, training_only=training_only, choices=choices
    )


def select_text(cache: AnyCache, config: HeadConfig, requested: Mapping[str, str]) -> StreamSpec:
    """Selects the stream that a head reads as text, as `select_streams` does; returns its spec.

    Raises:
        MmerError: if no stream fits, or several do.
    """
    return cache.stream(_Selector(cache, config, requested).select(TEXT, {})).spec


def head_inputs(
    cache: AnyCache,
    selection: StreamSelection,
    classes: Sequence[str],
    learned: "Mapping[str, Start] | None" = None,
    encode_texts: EncodeTexts | None = None,
    *,
    loss: str = CROSS_ENTROPY,
) -> HeadInputs:
    """Returns the inputs that a head is built from: classes, row shapes, layers and weights of encoders.

    Args:
        cache: open cache.
        selection: selected streams.
        classes: names of the classes, in the order of their indices.
        learned: role -> start of an encoder that learns; the head reads what it makes of the stream.
        encode_texts: encoder of the text stream, if it is available.
        loss: main loss of the task.
    """
    learned = learned or {}
    specs = {role: cache.stream(name).spec for role, name in {**selection.starts, **selection.streams}.items()}
    weights: dict[str, Weights] = {
        role: stored for role, spec in specs.items() if (stored := cache.weights(spec.encoder))
    }
    return HeadInputs(
        classes=tuple(classes),
        loss=loss,
        shapes={role: spec.shape for role, spec in specs.items()} | {role: learned[role].shape for role in learned},
        weights=weights,
        layers={role: spec.layers for role, spec in specs.items()}
        | {role: learned[role].choice.text for role in learned},
        tuned=frozenset(learned),
        encode_texts=encode_texts,
        symbols=_symbols_of(specs.get("chars")),
    )


def _symbols_of(spec: StreamSpec | None) -> int:
    """Returns the number of symbols of CTC targets.

    Raises:
        MmerError: if the stream records an impossible number.
    """
    recorded = None if spec is None else spec.preprocessing.get("symbol_count")
    if recorded is None:
        return CTC_SYMBOLS
    if not isinstance(recorded, int) or not 2 <= recorded <= MOST_CTC_SYMBOLS:
        raise MmerError(f"stream ctc.chars records {recorded!r} symbols; run mmer-featurize again")
    return recorded


def streams_of(recipe: Recipe, cache: AnyCache, roles: Collection[str], requested: Mapping[str, str]) -> dict[str, str]:
    """Returns the named stream of each role: that of the user, else that of the recipe.

    Args:
        recipe: recipe of the run.
        cache: open cache.
        roles: roles that the head reads, or whose encoders it starts from.
        requested: role -> stream that the user names.

    Raises:
        MmerError: if the cache lacks a stream of the recipe; contains the command that adds it.
    """
    wanted = {role: name for role, name in recipe.streams.items() if role in roles and role not in requested}
    missing = {role: name for role, name in wanted.items() if name not in cache.streams}
    if missing:
        raise MmerError(
            f"{cache.path} lacks {', '.join(missing.values())}, which recipe {recipe.name} reads; add it with "
            f"{featurize_command(cache, recipe.featurize)}, or choose another stream with "
            f"{' and '.join(map(_option, missing))}"
        )
    return {**wanted, **requested}


class _Selector:
    """Selects among the streams of a cache for one head."""

    def __init__(self, cache: AnyCache, config: HeadConfig, requested: Mapping[str, str]) -> None:
        self.cache, self.config, self.requested = cache, config, requested

    def select(self, role: str, streams: Mapping[str, str]) -> str:
        """Returns the stream for a role: the requested one, or the only one that fits.

        Args:
            role: the role.
            streams: role -> stream, as selected so far.
        """
        if role in self.requested:
            return self._check_requested(role)
        names = [spec.name for spec in self._fitting(role, streams)]
        if not names:
            remedy = f"{self._remedy(role)}{self._without(role)}"
            raise MmerError(f"{self.cache.path} has no stream for {role}, which the head needs; {remedy}")
        if len(names) > 1:
            found = f"{self.cache.path} has {len(names)} streams for {role}: {', '.join(names)}"
            raise MmerError(f"{found}; choose one with {_option(role)}")
        return names[0]

    def select_views(self, role: str, streams: Mapping[str, str]) -> list[str]:
        """Returns the streams of augmented views for a role, of which each epoch reads one; empty without any."""
        if role in self.requested:
            return [self._check_requested(role)]
        prefix = f"{streams[_modality_of(role)]}{VIEW}"
        names = sorted((name for name in self.cache.streams if name.startswith(prefix)), key=_with_numbers)
        forms = {(spec.shape, spec.dtype) for spec in (self.cache.stream(name).spec for name in names)}
        if len(forms) > 1:
            found = f"{self.cache.path} has {len(names)} streams for {role}: {', '.join(names)}"
            raise MmerError(f"{found}; their rows differ in shape or type: choose one with {_option(role)}")
        return names

    def is_pattern(self, role: str) -> bool:
        """Checks whether the user names several streams for a role by a pattern such as ``tuned*``."""
        name = self.requested.get(role, "")
        return name not in self.cache.streams and any(sign in name for sign in WILDCARDS)

    def matching(self, role: str) -> tuple[str, ...]:
        """Returns the streams that match the pattern of a role and fit the role; all have rows of the same shape."""
        pattern, kind = self.requested[role], TEXT if role == LANGUAGE else role
        specs = [stream.spec for name, stream in self.cache.streams.items() if fnmatchcase(name, pattern)]
        fitting = [spec for spec in specs if spec.role == kind and VIEW not in spec.name]
        for preferred in PREFERRED:
            fitting = [spec for spec in fitting if preferred(spec)] or fitting
        if not fitting:
            known = ", ".join(self.cache.streams)
            raise MmerError(f"{self.cache.path} has no stream of {role} that matches {pattern}; it has {known}")
        shapes = {spec.shape: spec.name for spec in fitting}
        if len(shapes) > 1:
            names = " and ".join(shapes.values())
            raise MmerError(f"streams that match {pattern} must have rows of one shape; {names} differ")
        return tuple(spec.name for spec in fitting)

    def _check_requested(self, role: str) -> str:
        if self.is_pattern(role):
            return self.matching(role)[0]
        name = self.requested[role]
        if name not in self.cache.streams:
            known = nearest(name, self.cache.streams)
            raise MmerError(f"{self.cache.path} has no stream {name}; {known}{self._added_by(name)}")
        spec, kind = self.cache.stream(name).spec, role.removesuffix(".view")
        kind = TEXT if kind == LANGUAGE else kind
        is_feature = kind in {AUDIO, TEXT} and spec.role not in INTEGER_ROLES and spec.consumes == ROLES[kind]
        if not is_feature and spec.role != kind:
            raise MmerError(
                f"stream {name} holds {spec.role} and cannot be read as {role}; choose another with {_option(role)}"
            )
        return name

    def _added_by(self, name: str) -> str:
        """Returns a text with the command that adds a stream, if its encoder is known; empty for a misspelt name."""
        encoder = encoder_of(name.partition(VIEW)[0]).partition("@")[0]
        published = {row.partition("@")[0] for rows in ADDED_BY.values() for row in rows}
        published |= {row for recipe in RECIPES.values() for row in RECIPE_ENCODER.findall(recipe.featurize)}
        published |= {row.partition("@")[0].partition("+")[0] for row in self.cache.streams if row == encoder_of(row)}
        if encoder not in published:
            return ""
        # Without --audio-only, a run adds the text encoder of the corpus.
        sound_only = all(stream.spec.consumes == ROLES[AUDIO] for stream in self.cache.streams.values())
        options = f"{options_for(name)}{' --audio-only' if sound_only else ''}"
        return f"; or add it with {featurize_command(self.cache, options)}"

    def _fitting(self, role: str, streams: Mapping[str, str]) -> list[StreamSpec]:
        """Returns the streams that fit a role; if some of them are preferred, only those."""
        if role in FOLLOWS:
            leader, ending = FOLLOWS[role]
            name = f"{self.cache.stream(streams[leader]).spec.encoder}{ending}" if leader in streams else ""
            return [self.cache.streams[name].spec] if name in self.cache.streams else []
        kind = TEXT if role == LANGUAGE else role
        specs = [stream.spec for name, stream in self.cache.streams.items() if VIEW not in name]
        fitting = [spec for spec in specs if spec.role == kind]
        if role in self.config.weight_roles:
            fitting = [spec for spec in fitting if self._has_weights(spec)]
        for preferred in PREFERRED:
            fitting = [spec for spec in fitting if preferred(spec)] or fitting
        return fitting

    def _has_weights(self, spec: StreamSpec) -> bool:
        """Checks whether the cache has the layers that follow a stream; those of a ViT start from patches."""
        prefix = f"layers.{spec.layers}." if spec.role == TEXT else "layers."
        return any(name.startswith(prefix) for name in self.cache.weights(spec.encoder))

    def _without(self, role: str) -> str:
        """Returns a text with the option that reads the other modality alone; empty if cache or head cannot."""
        other = {AUDIO: TEXT, TEXT: AUDIO}.get(role, "")
        if not other or self.config.modalities != BOTH or not self._fitting(other, {}):
            return ""
        with suppress(ValueError):
            replace(self.config, modalities=other)  # checks that the head can
            return f", or read {other} alone by --modalities {other}"
        return ""

    def _remedy(self, role: str) -> str:
        kind = LANGUAGE if role == TEXT and TEXT in self.config.weight_roles else role
        command = f"add it with {featurize_command_for_role(self.cache, kind)}"
        leader, _ = FOLLOWS.get(role, ("", ""))
        return f"{command}, and choose that encoder with --{leader} NAME" if leader else command


def _modality_of(role: str) -> str:
    """Returns the role whose views a role holds."""
    return next(modality for modality in (AUDIO, TEXT) if view_role(modality) == role)


def _with_numbers(name: str) -> list[tuple[int, str]]:
    """Returns a sorting key under which the view cbca10 follows cbca9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _lacks_views(cache: AnyCache, config: HeadConfig, streams: Mapping[str, str]) -> str:
    """Returns the error text for a head that needs views which the cache does not have."""
    names = [streams[_modality_of(role)] for role in config.optional_roles]
    encoders = " ".join(f"--encoder {quote(encoder_of(name))}" for name in names)
    history = {match[0].replace("+history", " --history ") for name in names if (match := HISTORY.search(name))}
    views = " ".join(ADDED_VIEWS[_modality_of(role)] for role in config.optional_roles)
    command = featurize_command(cache, f"{encoders} {views}{''.join(sorted(history))}")
    return (
        f"{cache.path} has no augmented views of {' or '.join(names)}, which the task augmented needs; add them with "
        f"{command}, or pass --set tasks=cpc+supervised, which needs none"
    )


def _option(role: str) -> str:
    return f"--{role} NAME" if role in {AUDIO, TEXT} else f"--stream {role}=NAME"
