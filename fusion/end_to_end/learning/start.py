"""Where learning starts: the cached stream below the layers that learn, and what the head reads above them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cache.errors import MmerError
from cache.joined import AnyCache
from cache.stream import StreamSpec
from cache.transcripts import AsrReading
from featurize.encoders.catalog import BUILT_IN, ENCODERS
from featurize.encoders.layers import CONV_TEXT, LAST, LayerChoice, parse_layers
from featurize.encoders.load import ACOUSTIC
from fusion.end_to_end.learning.source import NO_FOLDERS, Folders, encoder_config
from fusion.end_to_end.learning.tune import PATCHES, Tune
from fusion.head_config import AUDIO, TEXT

# Role -> roles of the streams by which its encoder is known.
KINDS: Mapping[str, tuple[str, ...]] = {AUDIO: ("audio", "codes"), TEXT: ("text", "tokens"), PATCHES: ("patches",)}
BEGINNING: Mapping[str, str] = {AUDIO: CONV_TEXT, TEXT: "tokenizer", PATCHES: "0"}  # layers of the first stream
MOST_LAYERS = 1000  # more than any encoder has
INEXACT = "int8"  # storage whose rounding is too coarse to learn from


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where the learning of one encoder starts.

    Attributes:
        tune: what learns.
        spec: spec of the stream that is read.
        first: number of frozen layers; None to start from convolutional features or token ids.
        choice: hidden states that the head reads.
        dim: width of a hidden state.
        weights: digest of the encoder's weights; empty if the cache records none.
    """

    tune: Tune
    spec: StreamSpec
    first: int | None
    choice: LayerChoice
    dim: int
    weights: str

    @property
    def role(self) -> str:
        """The role that the encoder computes."""
        return self.tune.role

    @property
    def stream(self) -> str:
        """The name of the stream that is read."""
        return self.spec.name

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a row that the head reads."""
        return self.choice.row_shape(self.dim)

    @property
    def output(self) -> StreamSpec:
        """The spec of a stream with the rows that the head reads before the encoder has learned."""
        layers = self.choice.text
        return replace(
            self.spec, role=self.role, weights=self.weights, layers=layers, shape=self.shape, dtype="float32"
        )

    @property
    def words(self) -> str:
        """Text for users: the encoder, the layers that learn, and the rows that are read."""
        return f"{self.role} {self.spec.encoder} ({self.tune.words}, from {self.origin})"

    @property
    def origin(self) -> str:
        """Source of the rows: the name of the stream, or the recordings."""
        return "the recordings" if self.tune.wave else self.stream


def recorded_start(tune: Tune, spec: StreamSpec, layers: str, shape: tuple[int, ...]) -> Start:
    """Returns the start of a finished run from its records.

    Args:
        tune: what learned; LoRA adapters are merged into the weights of a saved encoder.
        spec: spec of the start stream.
        layers: layers that the head reads.
        shape: shape of a row that the head reads.

    Raises:
        MmerError: if the layers are not valid.
    """
    begins = tune.wave or spec.layers == BEGINNING[tune.role]
    first = (0 if tune.role == PATCHES else None) if begins else int(spec.layers)
    return Start(
        tune=replace(tune, rank=0),
        spec=spec,
        first=first,
        choice=parse_layers(layers, layers=MOST_LAYERS, encoder=spec.encoder),
        dim=shape[-1],
        weights="",
    )


def find_start(
    cache: AnyCache,
    tune: Tune,
    requested: str | None,
    command: Callable[[str], str],
    folders: Folders = NO_FOLDERS,
) -> Start:
    """Finds the stream from which the encoder of a role learns.

    Args:
        cache: open cache.
        tune: what learns.
        requested: stream or encoder that the user names for the role; its layers are those that the head reads.
        command: returns the ``mmer-featurize`` command with some options, for errors.
        folders: folders of encoders that the user names.

    Raises:
        MmerError: if no encoder fits the role or several do, its start stream is missing or stored as int8, or the
            encoder is not available.
    """
    known = _encoders(cache, tune.role)
    encoder, target = _chosen(cache, tune, requested, known, command)
    spec = known[encoder][0]
    config = encoder_config(tune.role, spec, folders)
    count = int(config.num_hidden_layers)
    choice = parse_layers(target, layers=count, encoder=encoder)
    top = max(choice.indices, default=count)
    if tune.layers > top:
        raise MmerError(f"--tune {tune.role}={tune.layers}: {encoder} has {top} layers; choose 1 to {top}, or all")
    first = top - tune.layers if tune.layers else None
    if choice.indices and min(choice.indices) < (first or 0):
        raise MmerError(
            f"--tune {tune.role}={tune.layers}: the head reads layers {target} of {encoder}, of which some are frozen; "
            "tune all layers, or read another stream"
        )
    layers = BEGINNING[tune.role] if first is None else str(first)
    if tune.wave:
        layers = next((held.layers for held in known[encoder] if _has_weights(held)), layers)
    found = next((held for held in known[encoder] if held.layers == layers), None)
    if found is None:
        raise MmerError(_missing(cache, tune, spec, layers, command))
    if found.dtype == INEXACT and not tune.wave:
        raise MmerError(
            f"stream {found.name} is stored as int8, whose rounding is too coarse to learn from; store it as float16 "
            f"or float32: {command(f'--encoder {_request(found, layers)} --dtype float16 --replace')}"
        )
    return Start(
        tune=tune,
        spec=found,
        first=0 if first is None and tune.role == PATCHES else first,
        choice=choice,
        dim=int(config.hidden_size),
        weights=next((held.weights for held in known[encoder] if _has_weights(held)), ""),
    )


def _encoders(cache: AnyCache, role: str) -> dict[str, list[StreamSpec]]:
    """Returns the streams of every encoder that fits a role, by its name."""
    known: dict[str, list[StreamSpec]] = {}
    for name, stream in cache.streams.items():
        spec = stream.spec
        fits = spec.role in KINDS[role] and spec.source not in ACOUSTIC and not spec.imported and "~" not in name
        if fits:
            known.setdefault(spec.encoder, []).append(spec)
    return known


def _chosen(
    cache: AnyCache,
    tune: Tune,
    requested: str | None,
    known: Mapping[str, list[StreamSpec]],
    command: Callable[[str], str],
) -> tuple[str, str]:
    """Returns the encoder and the layers that the head reads."""
    role = tune.role
    if requested:
        if requested in cache.streams:
            spec = cache.stream(requested).spec
            encoder, layers = spec.encoder, spec.layers
        else:
            name, _, rest = requested.partition("@")
            layers, _, variant = rest.partition("+")
            encoder, layers = f"{name}+{variant}" if variant else name, layers or LAST
        if encoder not in known:
            raise MmerError(
                f"--tune {role}: {cache.path} has no encoder {encoder} whose layers can learn"
                f"{_listed(known)}; {_add(role, command)}"
            )
        return encoder, LAST if layers == BEGINNING[role] else layers
    if not known:
        raise MmerError(f"--tune {role}: {cache.path} has no encoder of {role}; {_add(role, command)}")
    ready = [name for name, specs in known.items() if any(spec.layers == BEGINNING[role] for spec in specs)]
    names = ready if len(ready) == 1 or (ready and not tune.layers) else list(known)
    plain = [name for name in names if "+" not in name] or names  # without history, as for frozen features
    if len(plain) > 1:
        option = f"--{role} NAME" if role in {AUDIO, TEXT} else f"--stream {role}=NAME"
        raise MmerError(
            f"--tune {role}: {cache.path} has {len(plain)} encoders of {role}: {', '.join(plain)}; "
            f"choose one with {option}"
        )
    return plain[0], LAST


def _missing(cache: AnyCache, tune: Tune, spec: StreamSpec, layers: str, command: Callable[[str], str]) -> str:
    what = f"{spec.encoder}.tokens" if layers == BEGINNING[TEXT] else f"{spec.encoder.partition('+')[0]}@{layers}"
    history = {name: spec.preprocessing[name] for name in ("history", "max_tokens") if spec.preprocessing.get(name)}
    options = "".join(f" --{name.replace('_', '-')} {value}" for name, value in history.items())
    reading = AsrReading.of(spec)
    if reading is not None:
        options += f" --asr {reading.source}{' --asr-all' if reading.every else ''}"
    added = command(f"--encoder {_request(spec, layers)}{options}")
    return f"--tune {tune.role}={tune.text} learns from {what}, which {cache.path} lacks; add it with {added}"


def _request(spec: StreamSpec, layers: str) -> str:
    """Returns the value of ``--encoder`` that computes some layers of the encoder of a stream."""
    name, source = spec.encoder.partition("+")[0], spec.source
    catalog = next((row for row, known in ENCODERS.items() if source in {row, known.source} != {BUILT_IN}), "")
    named = source if catalog in {"", name} and source.rpartition("/")[2] == name else f"{name}={source}"
    named = name if catalog == name else named
    return named if layers == BEGINNING[TEXT] else f"{named}@{layers}"


def _add(role: str, command: Callable[[str], str]) -> str:
    example = {AUDIO: "wav2vec2-base@conv", TEXT: "roberta-base", PATCHES: "vit-mel-base@0"}[role]
    return f"add one with {command(f'--encoder {example}')}"


def _listed(known: Mapping[str, Any]) -> str:
    return f" (it has {', '.join(known)})" if known else ""


def _has_weights(spec: StreamSpec) -> bool:
    """Checks whether a stream records the digest of the whole encoder; codes record another."""
    return bool(spec.weights) and spec.role != "codes"
