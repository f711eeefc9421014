"""The encoder to pre-train: found by its name and the stream in the cache, and loaded with its quantizer."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import torch

from cache.errors import MmerError
from cache.joined import AnyCache, AnyStream
from cache.stream import SPEECH, StreamSpec
from featurize.encoders.catalog import ENCODERS, EncoderRequest, parse_requests
from featurize.encoders.huggingface import (
    HubCheckpoint,
    SpeechCheckpoint,
    open_checkpoint,
    weights_digest,
)
from featurize.encoders.layers import CONV_TEXT
from featurize.encoders.load import load_speech_model
from fusion.end_to_end.learning.encoder import drawn_from
from fusion.experiment.featurize_commands import featurize_command

AUDIO = "audio"  # role of the streams of such an encoder
TINY = "wav2vec2-tiny"
CONV, WAVE = "conv", "wave"  # values of ``--from``
STARTS = (CONV, WAVE)
WITH_QUANTIZER = "a pre-training checkpoint of wav2vec 2.0, such as wav2vec2-base or wav2vec2-large"
HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")


@dataclass(frozen=True, kw_only=True)
class StartEncoder:
    """An encoder with its quantizer, ready for pre-training.

    Attributes:
        name: name of its streams.
        source: catalog name, hub id or folder name, as a stream records it.
        revision: commit of the hub repository, empty for a folder or a built-in encoder.
        model: Hugging Face's model for pre-training, in eval mode and float32.
        normalize: each utterance must have zero mean and unit variance.
        trained_on: record of an earlier training on a corpus, empty if there is none.
        weights: digest of all weights, those of the quantizer included.
        stream: stream that pre-training reads, or whose recordings it reads.
    """

    name: str
    source: str
    revision: str
    model: Any
    normalize: bool
    trained_on: Mapping[str, object]
    weights: str
    stream: AnyStream


def find_request(cache: AnyCache, text: str) -> EncoderRequest:
    """Finds the encoder that the user names: by its source, or by the name of its streams in the cache.

    Args:
        cache: open cache.
        text: ``[NAME=]SOURCE``, or the name of an encoder in the cache.

    Raises:
        MmerError: if the encoder is unknown, or its weights were in a folder that the cache does not record.
    """
    plain = text.removesuffix(f"@{CONV_TEXT}")
    _, separator, source = plain.partition("=")
    if not separator and plain not in ENCODERS and not Path(plain).is_dir() and "/" not in plain:
        known = [stream.spec for stream in cache.streams.values() if stream.spec.encoder == plain]
        if known and known[0].source not in ENCODERS and not HUB_ID.fullmatch(known[0].source):
            raise MmerError(
                f"{plain} was read from a folder named {known[0].source}, whose path {cache.path} does not record; "
                f"pass it as --encoder {quote(f'{plain}=PATH')}"
            )
        if known:
            return EncoderRequest(name=plain, source=known[0].source, layers=(CONV_TEXT,))
    path = source if separator else plain
    if "/" in path and not HUB_ID.fullmatch(path) and not Path(path).is_dir():
        raise MmerError(f"folder {path} of --encoder {text} not found; pass the folder that holds config.json")
    (request,) = parse_requests([plain])
    if request.layers != ("last",):
        raise MmerError(f"--encoder {text}: pre-training starts from the convolutions; leave out @{request.layers[0]}")
    return request


def load_start(cache: AnyCache, request: EncoderRequest, start: str, *, seed: int) -> StartEncoder:
    """Loads the encoder and checks it against the stream of the cache.

    Args:
        cache: open cache.
        request: requested encoder.
        start: ``conv`` to start from convolutional features of the cache, ``wave`` from recordings.
        seed: random seed of weights that the checkpoint lacks (the mask embedding).

    Raises:
        MmerError: if the cache lacks the stream, its rows or its weights do not fit, the weights are not available, or
            the encoder has no quantizer.
    """
    stream = _conv_stream(cache, request) if start == CONV else _speech_stream(cache, request)
    with drawn_from(seed, device=torch.device("cpu")):
        checkpoint, loaded = _load(request)
    model = _with_quantizer(request, loaded)
    if stream.spec.encoder == request.name:
        _check_weights(cache, stream.spec, request, loaded)
    return StartEncoder(
        name=request.name,
        source=request.source if checkpoint is None else checkpoint.source,
        revision="" if checkpoint is None else checkpoint.revision,
        model=model,
        normalize=loaded.normalize,
        trained_on={} if checkpoint is None else checkpoint.trained_on,
        weights=weights_digest(model),
        stream=stream,
    )


def _load(request: EncoderRequest) -> tuple[HubCheckpoint | None, SpeechCheckpoint]:
    if request.source == TINY:
        return load_speech_model(request)
    if request.source in ENCODERS and request.location == request.source:
        raise MmerError(f"{request.source} is not a wav2vec 2.0 encoder; pre-training needs {WITH_QUANTIZER}")
    if not hasattr(open_checkpoint(request.location).config, "conv_stride"):
        raise MmerError(f"{request.source} has no convolutions over speech; pre-training needs {WITH_QUANTIZER}")
    return load_speech_model(request)


def _with_quantizer(request: EncoderRequest, loaded: SpeechCheckpoint) -> Any:
    if loaded.pretraining is None:
        config: Any = loaded.base.config
        raise MmerError(
            f"{request.source} ({config.model_type}) has no quantizer, whose codes pre-training predicts; "
            f"use {WITH_QUANTIZER}"
        )
    model: Any = loaded.pretraining
    if not hasattr(model.base_model, "masked_spec_embed"):
        raise MmerError(
            f"{request.source} has no mask embedding (mask_time_prob and mask_feature_prob of its config.json are 0); "
            f"use {WITH_QUANTIZER}"
        )
    return model


def _conv_stream(cache: AnyCache, request: EncoderRequest) -> AnyStream:
    name = f"{request.name}@{CONV_TEXT}"
    if name not in cache.streams:
        named = request.name if request.name == request.source else f"{request.name}={request.source}"
        command = featurize_command(cache, f"--encoder {quote(f'{named}@{CONV_TEXT}')}")
        raise MmerError(
            f"{cache.path} has no stream {name}, from which pre-training starts; add it with {command}, "
            "or pass --from wave to read the recordings"
        )
    stream = cache.stream(name)
    if stream.spec.dtype == "int8":
        raise MmerError(
            f"{name} is stored as int8, whose rounding the encoder would learn; add it again as float16: "
            f"mmer-cache drop {quote(str(cache.path))} {quote(name)}, then "
            f"{featurize_command(cache, f'--encoder {quote(name)} --dtype float16')}"
        )
    return stream


def _speech_stream(cache: AnyCache, request: EncoderRequest) -> AnyStream:
    """Selects the stream whose input digests recordings are compared with: of the encoder if there is one."""
    streams = [
        stream for stream in cache.streams.values() if stream.spec.consumes == SPEECH and not stream.spec.imported
    ]
    if not streams:
        raise MmerError(
            f"{cache.path} has no stream of speech that recordings can be compared with; add one with "
            f"{featurize_command(cache, f'--encoder {quote(request.source)}')}"
        )
    matching = [stream for stream in streams if stream.spec.encoder == request.name and stream.spec.role == AUDIO]
    return (matching or streams)[0]


def _check_weights(cache: AnyCache, spec: StreamSpec, request: EncoderRequest, loaded: SpeechCheckpoint) -> None:
    """Checks that a stream was computed by the base model of the encoder."""
    found = weights_digest(loaded.base)
    if spec.weights != found:
        revision = f" at revision {spec.revision}" if spec.revision else ""
        raise MmerError(
            f"the weights of {request.source} are not those that computed {spec.name} in {cache.path} "
            f"(digest {found[:8]}, expected {spec.weights[:8]} of {spec.source}{revision}); pass the folder of those "
            f"weights as --encoder {quote(f'{request.name}=PATH')}, or recompute the stream by mmer-featurize --replace"
        )
