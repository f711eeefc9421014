"""Encoders of a run: loaded by the records of its streams, and accepted only if they compute the same features."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cache.errors import MmerError
from cache.stream import SPEECH, StreamSpec
from cache.transcripts import MARKS
from featurize.encoders.base import Encoder
from featurize.encoders.catalog import ENCODERS, EncoderRequest
from featurize.encoders.layers import LAST
from featurize.encoders.load import load_encoders
from featurize.encoders.options import PRECISIONS, EncodingOptions
from fusion.end_to_end.learning.source import Folders, encoder_request

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
STORED = frozenset({"float16", "float32", "int8", "int32", "uint8", "uint16"})  # types of rows in a cache
FOLDER_NAME = re.compile(r"\w[\w.@+ -]*")
# Fields of a spec that two encoders with the same features share; a folder has another source and no revision.
COMPARED = ("role", "layers", "shape", "dtype", "precision", "rate_hz")


@dataclass(frozen=True, kw_only=True)
class StreamEncoder:
    """An encoder and the streams of a run that it computes.

    Attributes:
        encoder: loaded encoder.
        streams: identifier of a stream -> its name among the streams of the encoder.
        max_seconds: longest input in seconds; infinite if long recordings are encoded in pieces.
    """

    encoder: Encoder[Any, Any]
    streams: Mapping[str, str]
    max_seconds: float

    @property
    def speech(self) -> bool:
        """True if it reads recordings, False if it reads transcripts."""
        return self.encoder.specs[0].consumes == SPEECH


def stream_id(spec: StreamSpec) -> str:
    """Returns the identifier of a stream: equal identifiers mean equal features."""
    return f"{spec.name} {spec.key}"


def load_stream_encoders(specs: Iterable[StreamSpec], *, folders: Folders, device: torch.device) -> list[StreamEncoder]:
    """Loads the encoders of streams; several streams of an encoder are computed in one pass.

    Args:
        specs: specs of the streams.
        folders: folders of encoders that the user names.
        device: device that encodes.

    Raises:
        MmerError: if an encoder is not known or not available, or its weights differ from those of the run.
    """
    groups: dict[tuple[str, str, EncodingOptions], dict[str, StreamSpec]] = {}
    for spec in specs:
        request = stream_request(spec, folders)
        groups.setdefault((request.name, request.source, _options(spec, device)), {})[stream_id(spec)] = spec
    check_names(folders, [name for name, _, _ in groups])
    return [_load(name, source, options, held, folders) for (name, source, options), held in groups.items()]


def stream_request(spec: StreamSpec, folders: Folders) -> EncoderRequest:
    """Returns the request of the encoder of a stream; a source outside catalog and hub must be named.

    Args:
        spec: spec of the stream.
        folders: folders of encoders that the user names.

    Raises:
        MmerError: if the stream cannot be computed for recordings, or its encoder came from a folder that is not named.
    """
    _check_record(spec)
    name = spec.encoder.partition("+")[0]
    if spec.imported or spec.view:
        kind = "was imported from another toolkit" if spec.imported else "holds augmented views"
        raise MmerError(f"stream {spec.name} {kind}, so it cannot be computed for new recordings; train on another")
    hub = HUB_ID.fullmatch(spec.source)
    if spec.source not in ENCODERS and not hub and not FOLDER_NAME.fullmatch(spec.source) and name not in folders:
        raise MmerError(
            f"stream {spec.name} has the source {spec.source!r}, which is invalid; pass --encoder {name}=PATH"
        )
    if hub and Path(spec.source).exists() and name not in folders:
        raise MmerError(f"{spec.source} is a hub id, and a folder here; pass --encoder {name}=PATH to choose a folder")
    return encoder_request(spec, folders)


def check_names(folders: Folders, known: Sequence[str]) -> None:
    """Checks that a run has the encoders whose folders a user names.

    Args:
        folders: name of an encoder -> its folder.
        known: names of the encoders of the run.

    Raises:
        MmerError: if it lacks one of them.
    """
    unknown = [name for name in folders if name not in known]
    if unknown:
        raise MmerError(
            f"--encoder {unknown[0]}: the run has no such encoder; it has {', '.join(dict.fromkeys(known))}"
        )


def _load(
    name: str, source: str, options: EncodingOptions, specs: Mapping[str, StreamSpec], folders: Folders
) -> StreamEncoder:
    layers = tuple(dict.fromkeys(LAST if spec.role == "tokens" else spec.layers for spec in specs.values()))
    loaded = load_encoders([EncoderRequest(name=name, source=source, layers=layers)], options)
    encoder: Encoder[Any, Any] = loaded.speech[0] if loaded.speech else loaded.text[0]
    streams = {stream: _matching(encoder, spec, source, named=name in folders) for stream, spec in specs.items()}
    limit = float("inf") if options.chunk else options.max_seconds
    return StreamEncoder(encoder=encoder, streams=streams, max_seconds=limit)


def _options(spec: StreamSpec, device: torch.device) -> EncodingOptions:
    """Returns the options under which a stream was computed, as its spec records them."""
    try:
        return EncodingOptions(device=device, codes=False, start_layers=0, **_kept_options(spec))
    except (TypeError, ValueError) as error:
        raise MmerError(f"stream {spec.name} records invalid options ({error}); train the run again") from error


def _kept_options(spec: StreamSpec) -> dict[str, Any]:
    steps, limits = spec.preprocessing, spec.limits
    kept: dict[str, Any] = {} if spec.role == "tokens" else {"dtype": spec.dtype, "precision": spec.precision}
    if spec.consumes == SPEECH:
        kept |= {"max_seconds": float(limits.get("max_seconds") or 60.0), "chunk": bool(limits.get("chunk"))}
    else:
        kept |= {"event_tags": str(steps.get("event_tags", "strip")), "truncate": bool(steps.get("truncate"))}
        most = steps.get("max_tokens")
        kept |= {"history": int(steps.get("history") or 0), "max_tokens": int(most) if most else None}
    return kept


def _check_record(spec: StreamSpec) -> None:
    """Checks the fields of a recorded spec that loading relies on."""
    mappings = all(isinstance(value, dict) for value in (spec.preprocessing, spec.limits))
    texts = all(isinstance(value, str) for value in (spec.source, spec.revision, spec.weights, spec.layers))
    if not mappings or not texts or spec.dtype not in STORED or spec.precision not in PRECISIONS:
        raise MmerError(
            f"stream {spec.name} has an invalid record (dtype {spec.dtype!r}, precision {spec.precision!r}); train the "
            "run again"
        )


def _matching(encoder: Encoder[Any, Any], spec: StreamSpec, source: str, *, named: bool) -> str:
    """Returns the stream of an encoder that equals a stream of the run."""
    found = next((held for held in encoder.specs if (held.role, held.layers) == (spec.role, spec.layers)), None)
    differing = ["layers"] if found is None else _differences(found, spec)
    if found is None or differing:
        name = spec.encoder.partition("+")[0]
        way_out = f"pass --encoder {name}=PATH with the encoder of the run"
        raise MmerError(
            f"{source} is not the encoder that the run was trained with (stream {spec.name}: other "
            f"{', '.join(differing)}); {'name another folder' if named else way_out}"
        )
    return found.name


def _differences(found: StreamSpec, spec: StreamSpec) -> list[str]:
    differing = [name for name in COMPARED if getattr(found, name) != getattr(spec, name)]
    if spec.weights and found.weights != spec.weights:
        differing.append("weights")
    steps = {name: value for name, value in spec.preprocessing.items() if name not in MARKS}  # any text is a text
    changed = [name for name, value in steps.items() if found.preprocessing.get(name) != value]
    return differing + changed
