"""From what was asked for on the command line to encoders ready to run."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt
import torch
from transformers import PreTrainedTokenizerBase

from cache.errors import MmerError
from cache.stream import SPEECH, TRANSCRIPT, Scalar, StreamSpec
from featurize.audio import MIN_SAMPLES, RATE_HZ
from featurize.encoders.base import SpeechInput, TextInput
from featurize.encoders.catalog import BUILT_IN, ENCODERS, EncoderRequest
from featurize.encoders.characters import CharacterTargets
from featurize.encoders.checkpoint import (
    SPEECH_FAMILIES,
    Checkpoint,
    SpeechCheckpoint,
    config_digest,
    load_speech,
    load_text,
    open_checkpoint,
    weights_digest,
)
from featurize.encoders.chunk import ChunkedEncoder
from featurize.encoders.layers import LayerChoice, parse_layers
from featurize.encoders.options import PRECISIONS, EncodingOptions, library_versions, recorded_limits
from featurize.encoders.speech import PREPROCESSING, SpeechEncoder
from featurize.encoders.text import TextEncoder, count_layers, tokenizer_digest
from featurize.encoders.tiny import build_roberta_tiny, build_roberta_tiny_tokenizer, build_wav2vec2_tiny

ACOUSTIC = ("logmel80", "mfcc39")


@dataclass(kw_only=True)
class Encoders:
    """Encoders ready to run, by what they consume, and what was noticed while loading them."""

    speech: list[SpeechInput] = field(default_factory=list)
    text: list[TextInput] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def consumes(source: str) -> str:
    """Says whether a source encodes speech or transcripts.

    Raises:
        MmerError: if it is no catalog name and no checkpoint at hand.
    """
    if source in ENCODERS:
        return SPEECH if ENCODERS[source].modality == "speech" else TRANSCRIPT
    return SPEECH if open_checkpoint(source).config.model_type in SPEECH_FAMILIES else TRANSCRIPT


def load_encoders(requests: Sequence[EncoderRequest], options: EncodingOptions) -> Encoders:
    """Loads what was asked for.

    Raises:
        MmerError: if a checkpoint is not at hand or cannot give what is asked of it.
    """
    loaded = Encoders()
    for request in requests:
        if request.source in ACOUSTIC:
            loaded.speech.append(_acoustic(request, options))
        elif consumes(request.source) == SPEECH:
            encoder, note = _speech(request, options)
            loaded.speech.append(encoder)
            loaded.notes.extend([f"{request.name} {note}"] if note else [])
        else:
            loaded.text.append(_text(request, options))
    if options.codes and not any(spec.role == "codes" for encoder in loaded.speech for spec in encoder.specs):
        raise MmerError("--codes needs an encoder with a quantizer, such as --encoder wav2vec2-base")
    return loaded


def character_targets(options: EncodingOptions) -> TextInput:
    """Gives the encoder of CTC targets, which needs nothing but the transcripts."""
    return CharacterTargets(event_tags=options.event_tags, versions=library_versions())


def _acoustic(request: EncoderRequest, options: EncodingOptions) -> SpeechInput:
    try:
        from featurize.encoders.acoustic import AcousticEncoder
    except ImportError as error:
        raise MmerError(
            f"{request.source} needs librosa ({error}); install it or leave {request.source} out"
        ) from error
    if request.layers != ("last",):
        raise MmerError(f"{request.source} has no layers; got @{request.layers[-1]}")
    limits = recorded_limits(options, chunk=False)
    return AcousticEncoder(
        name=request.name, source=request.source, dtype=options.dtype, versions=library_versions(), limits=limits
    )


def _speech(request: EncoderRequest, options: EncodingOptions) -> tuple[SpeechInput, str]:
    checkpoint, model = _speech_checkpoint(request.source)
    quantizer, start_weights, note = _quantizer(request, model, options)
    config: Any = model.base.config
    spec = StreamSpec(
        name=request.name,
        role="audio",
        source=request.source if checkpoint is None else checkpoint.source,
        revision="" if checkpoint is None else checkpoint.revision,
        weights=weights_digest(model.base),
        shape=(1,),
        dtype=options.dtype,
        precision=options.precision,
        rate_hz=50.0,
        preprocessing={**PREPROCESSING, "normalize": model.normalize, "config": config_digest(config)},
        versions=library_versions(),
        limits=recorded_limits(options, chunk=options.chunk),
        trained_on={} if checkpoint is None else checkpoint.trained_on,
    )
    encoder = SpeechEncoder(
        base=model.base,
        quantizer=quantizer,
        quantizer_weights="" if quantizer is None else weights_digest(model.pretraining or quantizer),
        start_weights=start_weights,
        spec=spec,
        choices=_choices(request, int(config.num_hidden_layers)),
        normalize=model.normalize,
        device=options.device,
        precision=PRECISIONS[options.precision],
    )
    notes = "; ".join(one for one in (model.note, note) if one)
    if not options.chunk:
        return encoder, notes
    if options.max_seconds * RATE_HZ < MIN_SAMPLES:
        raise MmerError(f"--chunk needs --max-seconds of at least {MIN_SAMPLES / RATE_HZ}, got {options.max_seconds:g}")
    return ChunkedEncoder(encoder, max_samples=int(options.max_seconds * RATE_HZ)), notes


def _speech_checkpoint(source: str) -> tuple[Checkpoint | None, SpeechCheckpoint]:
    if source == "wav2vec2-tiny":
        model = build_wav2vec2_tiny()
        return None, SpeechCheckpoint(base=model.wav2vec2, pretraining=model, normalize=True, note="")
    checkpoint = open_checkpoint(_location(source))
    return checkpoint, load_speech(checkpoint)


def _quantizer(
    request: EncoderRequest, model: SpeechCheckpoint, options: EncodingOptions
) -> tuple[torch.nn.Module | None, dict[str, npt.NDArray[Any]], str]:
    """Gives the quantizer where there is one and it is wanted, and the weights that LE-MER starts from."""
    if options.codes is False:
        return None, {}, ""
    if model.pretraining is None:
        if options.codes:
            raise MmerError(
                f"{request.source} has no quantizer, so no codes; take a pre-training checkpoint or --no-codes"
            )
        return None, {}, "has no quantizer: no codes"
    whole: Any = model.pretraining
    parts = {
        "codevectors": whole.quantizer.codevectors[0],
        "project_q.weight": whole.project_q.weight,
        "project_q.bias": whole.project_q.bias,
        "project_hid.weight": whole.project_hid.weight,
        "project_hid.bias": whole.project_hid.bias,
    }
    return whole.quantizer, {name: part.detach().cpu().numpy() for name, part in parts.items()}, ""


def _text(request: EncoderRequest, options: EncodingOptions) -> TextInput:
    checkpoint: Checkpoint | None = None
    if request.source == "roberta-tiny":
        model: Any = build_roberta_tiny()
        tokenizer: PreTrainedTokenizerBase = build_roberta_tiny_tokenizer()
    else:
        checkpoint = open_checkpoint(_location(request.source))
        model, tokenizer = load_text(checkpoint)
    spec = StreamSpec(
        name=request.name,
        role="text",
        source=request.source if checkpoint is None else checkpoint.source,
        revision="" if checkpoint is None else checkpoint.revision,
        weights=weights_digest(model),
        shape=(1,),
        dtype=options.dtype,
        precision=options.precision,
        preprocessing={
            "config": config_digest(model.config),
            "tokenizer": tokenizer_digest(tokenizer),
            "event_tags": options.event_tags,
            "truncate": options.truncate,
            **_splicing(options),
        },
        versions=library_versions(),
        trained_on={} if checkpoint is None else checkpoint.trained_on,
    )
    return TextEncoder(
        model=model,
        tokenizer=tokenizer,
        spec=spec,
        choices=_choices(request, count_layers(model)),
        event_tags=options.event_tags,
        truncate=options.truncate,
        history=options.history,
        longest=options.max_tokens,
        device=options.device,
        precision=PRECISIONS[options.precision],
    )


def _splicing(options: EncodingOptions) -> dict[str, Scalar]:
    """Gives what decides a text beside the transcript, as far as asked for: the keys of all other runs stay."""
    asked = {"history": options.history, "max_tokens": options.max_tokens}
    return {name: value for name, value in asked.items() if value}


def _choices(request: EncoderRequest, layers: int) -> list[LayerChoice]:
    return [parse_layers(text, layers=layers, encoder=request.name) for text in request.layers]


def _location(source: str) -> str:
    return ENCODERS[source].source if source in ENCODERS and ENCODERS[source].source != BUILT_IN else source
