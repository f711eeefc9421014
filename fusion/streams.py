"""Which stream of a cache a head reads for each role, and the command that adds one that is not there."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cache.errors import MmerError
from cache.joined import AnyCache
from cache.stream import StreamSpec
from fusion.head import AUDIO, TEXT, HeadConfig
from fusion.inputs import HeadInputs, Weights
from fusion.views import view_role

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


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The streams of a run.

    Attributes:
        streams: role -> name of the stream that is read for it.
        always: names of those that every part of a fold needs.
        training: names of those that only the training part needs.
        notes: what was noticed about the choice.
    """

    streams: dict[str, str]
    always: list[str]
    training: list[str]
    notes: list[str]


def choose_streams(cache: AnyCache, config: HeadConfig, asked: Mapping[str, str]) -> Chosen:
    """Chooses a stream for every role that a head reads.

    Args:
        cache: an open cache.
        config: of the head.
        asked: role -> stream, as named by the user; ``audio`` and ``text`` may be any stream of numbers.

    Raises:
        MmerError: if there is none for a role, with the command that adds it, or more than one.
    """
    streams: dict[str, str] = {}
    needed = (*config.roles, *config.training_roles, *config.prepare_roles)
    for role in sorted(set(needed), key=_after):
        streams[role] = _asked(cache, asked[role]) if role in asked else _found(cache, config, role, streams)
    notes = []
    for role in config.optional_roles:
        view = next((name for name in cache.streams if name.startswith(f"{streams.get(_viewed(role), '')}~")), "")
        if view and _viewed(role) in streams:
            streams[role] = view
        else:
            notes.append(f"no stream of augmented views of {_viewed(role)}: losses that compare views are off")
    return Chosen(
        streams=streams,
        always=[streams[role] for role in config.roles],
        training=[streams[role] for role in {*config.training_roles, *config.prepare_roles} - set(config.roles)],
        notes=notes,
    )


def head_inputs(cache: AnyCache, config: HeadConfig, chosen: Chosen, classes: Sequence[str]) -> HeadInputs:
    """Gathers what a head is built from.

    Args:
        cache: an open cache.
        config: of the head.
        chosen: its streams.
        classes: names of the classes, in the order of their indices.
    """
    specs = {role: cache.stream(name).spec for role, name in chosen.streams.items()}
    for role in set(config.weight_roles) - specs.keys():
        found = _candidates(cache, config, role, chosen.streams)
        specs |= {role: found[0]} if found else {}
    held = cache.all_weights()
    weights: dict[str, Weights] = {role: held[spec.encoder] for role, spec in specs.items() if spec.encoder in held}
    return HeadInputs(
        classes=tuple(classes),
        shapes={role: spec.shape for role, spec in specs.items()},
        weights=weights,
        layers={role: spec.layers for role, spec in specs.items()},
    )


def _after(role: str) -> tuple[bool, str]:
    """Puts roles that follow from another one behind it."""
    return role in {"codes", "tokens"}, role


def _viewed(role: str) -> str:
    return next(one for one in (AUDIO, TEXT) if view_role(one) == role)


def _asked(cache: AnyCache, name: str) -> str:
    spec = cache.stream(name).spec
    if spec.role in {"codes", "tokens", "chars"}:
        raise MmerError(f"stream {name} holds {spec.role}, no features; name one of numbers")
    return name


def _found(cache: AnyCache, config: HeadConfig, role: str, streams: Mapping[str, str]) -> str:
    names = [spec.name for spec in _candidates(cache, config, role, streams)]
    if not names:
        raise MmerError(f"{cache.path} has no stream for {role}, which the head reads; {_way_out(cache, config, role)}")
    if len(names) > 1:
        flag = f"--{role}" if role in {AUDIO, TEXT} else f"--stream {role}="
        raise MmerError(f"{cache.path} has {len(names)} streams for {role}: {', '.join(names)}; choose by {flag} NAME")
    return names[0]


def _candidates(cache: AnyCache, config: HeadConfig, role: str, streams: Mapping[str, str]) -> list[StreamSpec]:
    """Lists the streams that may be taken for a role; of text, plain ones before those with a history."""
    if role in _FOLLOWS:
        leader, suffix = _FOLLOWS[role]
        name = f"{cache.stream(streams[leader]).spec.encoder}{suffix}" if leader in streams else ""
        return [cache.streams[name].spec] if name in cache.streams else []
    specs = [stream.spec for name, stream in cache.streams.items() if "~" not in name]
    kind = TEXT if role == LANGUAGE else role
    fitting = [spec for spec in specs if spec.role == kind]
    if role == LANGUAGE or (role == TEXT and TEXT in config.weight_roles):
        return [spec for spec in fitting if _starts(cache, spec)]
    for preferred in _PREFERRED:
        if len(fitting) > 1 and any(map(preferred, fitting)):
            fitting = [spec for spec in fitting if preferred(spec)]
    return fitting


def _starts(cache: AnyCache, spec: StreamSpec) -> bool:
    """Tells whether the cache holds the layer that reads this stream."""
    return any(name.startswith(f"layers.{spec.layers}.") for name in cache.weights(spec.encoder))


def _way_out(cache: AnyCache, config: HeadConfig, role: str) -> str:
    kind = LANGUAGE if role == TEXT and TEXT in config.weight_roles else role
    corpus = cache.header["corpus"]
    encoder = ADDED_BY[kind][corpus.get("name") == "demo"]
    return (
        f"add it by mmer-featurize {corpus.get('name')} --root {corpus.get('root')} --cache {cache.path} "
        f"--encoder {encoder}"
    )


_FOLLOWS: Mapping[str, tuple[str, str]] = {"codes": (AUDIO, ".codes"), "tokens": (TEXT, ".tokens")}
_PREFERRED: Sequence[Callable[[StreamSpec], bool]] = (
    lambda spec: not spec.preprocessing.get("history"),
    lambda spec: spec.layers == "last",
)
