"""Which stream of a cache a head reads for each role, and whose weights it starts from.

The mmer-featurize command that adds to a cache what a head misses.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from shlex import quote

from cache.errors import MmerError
from cache.joined import AnyCache
from cache.stream import ROLES, StreamSpec
from fusion.config import nearest
from fusion.data.views import view_role
from fusion.head import AUDIO, TEXT, HeadConfig, HeadInputs, Weights
from fusion.recipes.catalog import Recipe

LANGUAGE = "language"  # JFM's language layers where they belong to another encoder than its text stream

# Role -> the encoders that give it, published and built in.
ADDED_BY: Mapping[str, tuple[str, str]] = {
    "audio": ("wav2vec2-base", "wav2vec2-tiny"),
    "codes": ("wav2vec2-base", "wav2vec2-tiny"),
    "text": ("roberta-base", "roberta-tiny"),
    "tokens": ("roberta-base", "roberta-tiny"),
    "chars": ("roberta-base", "roberta-tiny"),
    "language": ("roberta-large@12", "roberta-tiny@4"),
    "mel": ("logmel80", "logmel80"),
    "patches": ("vit-mel-base", "vit-mel-tiny"),
}
DEMO = "demo"  # has the built-in encoders
SHARD = re.compile(r"(?P<stem>.+)-\d+-of-(?P<count>\d+)")  # how mmer-featurize --shards names files
NO_NUMBERS = frozenset({"codes", "tokens", "chars"})
VIEW = "~"  # stands in the name of a stream of augmented views

# Role -> the role whose encoder it must come from, and what ends its name.
FOLLOWS: Mapping[str, tuple[str, str]] = {"codes": (AUDIO, ".codes"), "tokens": (TEXT, ".tokens")}

# Of several streams for a role, those with one of these traits come first.
PREFERRED: Sequence[Callable[[StreamSpec], bool]] = (
    lambda spec: not spec.preprocessing.get("history"),
    lambda spec: spec.layers == "last",
)


def featurize_command_for_role(cache: AnyCache, role: str) -> str:
    """Gives the command that adds a stream for a role."""
    return featurize_command_for_encoder(cache, ADDED_BY[role][corpus_of(cache) == DEMO])


def featurize_command_for_encoder(cache: AnyCache, encoder: str) -> str:
    """Gives the command that computes an encoder's streams for the utterances of a cache."""
    return featurize_command(cache, f"--encoder {quote(encoder)}")


def featurize_command(cache: AnyCache, options: str) -> str:
    """Gives the command that computes for the utterances of a cache what some options say."""
    root = str(cache.header["corpus"].get("root", ""))
    told = f"--root {quote(root)} " if root else ""
    return f"mmer-featurize {quote(corpus_of(cache))} {told}--cache {_files(cache)} {options}"


def corpus_of(cache: AnyCache) -> str:
    """Names the corpus of a cache."""
    return str(cache.header["corpus"].get("name", ""))


@dataclass(frozen=True, kw_only=True)
class StreamSelection:
    """The streams of a run.

    Attributes:
        streams: role -> name of the stream that is read for it.
        starts: role -> name of a stream that is not read, whose encoder's weights the head starts from.
        required: names of those that every part of a fold needs.
        training_only: names of those that only the training part needs.
    """

    streams: dict[str, str]
    starts: dict[str, str] = field(default_factory=dict)
    required: list[str]
    training_only: list[str]

    @property
    def indirect(self) -> list[str]:
        """Names of those that come in on another way: augmented views, encoders that the head starts from."""
        named = [*self.streams.values(), *self.starts.values()]
        return [name for name in named if name not in {*self.required, *self.training_only}]


def select_streams(cache: AnyCache, config: HeadConfig, asked: Mapping[str, str]) -> StreamSelection:
    """Chooses a stream for every role that a head reads or starts from.

    Args:
        cache: an open cache.
        config: of the head.
        asked: role -> stream, as named by the user; for ``audio`` any numbers from speech, for ``text`` from words.

    Raises:
        MmerError: if there is none for a role, with the command that adds it, or more than one; or if a role is asked
            for that the head does not read.
    """
    later = {*config.training_roles, *config.prepare_roles} - set(config.roles)
    _check_read(asked, [*config.roles, *sorted(later), *config.weight_roles, *config.optional_roles])
    choice = _Choice(cache, config, asked)
    streams: dict[str, str] = {}
    for role in sorted({*config.roles, *later}, key=_after):
        streams[role] = choice.of(role, streams)
    starts = {role: choice.of(role, streams) for role in config.weight_roles if role not in streams}
    training = [streams[role] for role in sorted(later)]
    for role in config.optional_roles:
        if view := choice.view(role, streams):
            streams[role] = view
    always = [streams[role] for role in config.roles]
    return StreamSelection(streams=streams, starts=starts, required=always, training_only=training)


def head_inputs(cache: AnyCache, chosen: StreamSelection, classes: Sequence[str]) -> HeadInputs:
    """Gathers what a head is built from.

    Args:
        cache: an open cache.
        chosen: its streams.
        classes: names of the classes, in the order of their indices.
    """
    specs = {role: cache.stream(name).spec for role, name in {**chosen.starts, **chosen.streams}.items()}
    held = cache.all_weights()
    weights: dict[str, Weights] = {role: held[spec.encoder] for role, spec in specs.items() if spec.encoder in held}
    return HeadInputs(
        classes=tuple(classes),
        shapes={role: spec.shape for role, spec in specs.items()},
        weights=weights,
        layers={role: spec.layers for role, spec in specs.items()},
    )


def streams_of(recipe: Recipe, cache: AnyCache, roles: Collection[str], asked: Mapping[str, str]) -> dict[str, str]:
    """Gives the stream to read for each role: the one the user names, else the recipe's.

    Args:
        recipe: of the run.
        cache: an open cache.
        roles: those that the head reads, or whose encoders it starts from.
        asked: role -> stream, as named by the user.

    Raises:
        MmerError: if the cache lacks one of the recipe's, with the command that adds it.
    """
    wanted = {role: name for role, name in recipe.streams.items() if role in roles and role not in asked}
    missing = {role: name for role, name in wanted.items() if name not in cache.streams}
    if missing:
        raise MmerError(
            f"{cache.path} lacks {', '.join(missing.values())}, which recipe {recipe.name} reads; add it by "
            f"{featurize_command(cache, recipe.featurize)}, or name another stream by "
            f"{' and '.join(map(_flag, missing))}"
        )
    return {**wanted, **asked}


def _files(cache: AnyCache) -> str:
    """Says where the command writes; shards are written by the name that they were cut from."""
    first = cache.files[0].path
    shard = SHARD.fullmatch(first.stem)
    if len(cache.files) == 1 or shard is None:
        return quote(str(cache.path))
    return f"{quote(str(first.with_name(shard['stem'] + first.suffix)))} --shards {shard['count']}"


class _Choice:
    """Chooses among the streams of a cache for one head."""

    def __init__(self, cache: AnyCache, config: HeadConfig, asked: Mapping[str, str]) -> None:
        self.cache, self.config, self.asked = cache, config, asked
        self.weights = cache.all_weights() if config.weight_roles else {}

    def of(self, role: str, streams: Mapping[str, str]) -> str:
        """Gives the stream for a role: the one asked for, or the only one that fits."""
        if role in self.asked:
            return self._asked(role)
        names = [spec.name for spec in self._fitting(role, streams)]
        if not names:
            raise MmerError(f"{self.cache.path} has no stream for {role}, which the head needs; {self._remedy(role)}")
        if len(names) > 1:
            raise MmerError(
                f"{self.cache.path} has {len(names)} streams for {role}: {', '.join(names)}; choose by {_flag(role)}"
            )
        return names[0]

    def view(self, role: str, streams: Mapping[str, str]) -> str:
        """Gives the stream of augmented views for a role, empty if there is none."""
        if role in self.asked:
            return self._asked(role)
        viewed = next(one for one in (AUDIO, TEXT) if view_role(one) == role)
        start = f"{streams[viewed]}{VIEW}"
        names = [name for name in self.cache.streams if name.startswith(start)]
        if len(names) > 1:
            told = f"{self.cache.path} has {len(names)} streams for {role}: {', '.join(names)}"
            raise MmerError(f"{told}; one serves all epochs: choose by {_flag(role)}")
        return names[0] if names else ""

    def _asked(self, role: str) -> str:
        name = self.asked[role]
        if name not in self.cache.streams:
            meant, add = nearest(name, self.cache.streams), featurize_command_for_encoder(self.cache, _encoder_of(name))
            raise MmerError(f"{self.cache.path} has no stream {name}; {meant}; or add it by {add}")
        spec, kind = self.cache.stream(name).spec, role.removesuffix(".view")
        kind = TEXT if kind == LANGUAGE else kind
        numbers = kind in {AUDIO, TEXT} and spec.role not in NO_NUMBERS and spec.consumes == ROLES[kind]
        if not numbers and spec.role != kind:
            raise MmerError(f"stream {name} holds {spec.role} and cannot be read as {role}; choose by {_flag(role)}")
        return name

    def _fitting(self, role: str, streams: Mapping[str, str]) -> list[StreamSpec]:
        """Lists the streams that may be taken for a role, where some are preferred those alone."""
        if role in FOLLOWS:
            leader, ending = FOLLOWS[role]
            name = f"{self.cache.stream(streams[leader]).spec.encoder}{ending}" if leader in streams else ""
            return [self.cache.streams[name].spec] if name in self.cache.streams else []
        kind = TEXT if role == LANGUAGE else role
        every = [stream.spec for name, stream in self.cache.streams.items() if VIEW not in name]
        fitting = [spec for spec in every if spec.role == kind]
        if role in self.config.weight_roles:
            return [spec for spec in fitting if self._starts(spec)]
        for preferred in PREFERRED:
            fitting = [spec for spec in fitting if preferred(spec)] or fitting
        return fitting

    def _starts(self, spec: StreamSpec) -> bool:
        """Tells whether the cache holds the layers that go on from this stream; a ViT's start from patches."""
        start = f"layers.{spec.layers}." if spec.role == TEXT else "layers."
        return any(name.startswith(start) for name in self.weights.get(spec.encoder, {}))

    def _remedy(self, role: str) -> str:
        kind = LANGUAGE if role == TEXT and TEXT in self.config.weight_roles else role
        add = f"add it by {featurize_command_for_role(self.cache, kind)}"
        leader, _ = FOLLOWS.get(role, ("", ""))
        return f"{add}, and choose that encoder by --{leader} NAME" if leader else add


def _encoder_of(name: str) -> str:
    """Says what to featurize for a stream that a user named, layers included."""
    return name.partition("+")[0].removesuffix(".codes").removesuffix(".tokens")


def _check_read(asked: Collection[str], known: Sequence[str]) -> None:
    for role in asked:
        if role not in known:
            raise MmerError(f"the head reads no {role}, for which a stream is named; it reads {', '.join(known)}")


def _after(role: str) -> tuple[bool, str]:
    """Puts roles that follow from another one behind it."""
    return role in FOLLOWS, role


def _flag(role: str) -> str:
    return f"--{role} NAME" if role in {AUDIO, TEXT} else f"--stream {role}=NAME"
