"""From what was asked for on the command line to encoders ready to run.

What every encoder of a checkpoint says of its streams alike.

wav2vec 2.0 and its relatives: from a request to an encoder ready to run.

Log-mel, MFCC and ViT over log-mel: from a request to an encoder ready to run.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt
import torch
from transformers import PreTrainedTokenizerBase

from cache.errors import MmerError
from cache.stream import SPEECH, TRANSCRIPT, Scalar, StreamSpec
from featurize.encoders.base import SpeechInput, TextInput
from featurize.encoders.catalog import ENCODERS, EncoderRequest
from featurize.encoders.ctc_targets import CharacterTargets
from featurize.encoders.huggingface import (
    MEL_FAMILIES,
    TEXT_FAMILIES,
    HubCheckpoint,
    SpeechCheckpoint,
    config_digest,
    load_speech,
    load_text,
    load_vit,
    open_checkpoint,
    weights_digest,
)
from featurize.encoders.layers import parse_choices
from featurize.encoders.options import PRECISIONS, EncodingOptions, library_versions, recorded_limits
from featurize.encoders.speech import PREPROCESSING as SPEECH_PREPROCESSING
from featurize.encoders.speech import ChunkedEncoder, SpeechEncoder
from featurize.encoders.start_weights import text_start_weights, vit_start_weights
from featurize.encoders.text import TextEncoder, layers_of, tokenizer_digest
from featurize.encoders.tiny import (
    build_roberta_tiny,
    build_roberta_tiny_tokenizer,
    build_vit_mel_tiny,
    build_wav2vec2_tiny,
)
from featurize.encoders.vit_mel import PREPROCESSING as VIT_PREPROCESSING
from featurize.encoders.vit_mel import MelEncoder
from featurize.inputs.audio import MIN_SAMPLES, RATE_HZ

WITHOUT_NORMED = frozenset({"hubert"})  # models that keep the normed features of their convolutions to themselves
LOGMEL = "logmel80"
ACOUSTIC = ("logmel80", "mfcc39")


def spec_of(
    request: EncoderRequest, checkpoint: HubCheckpoint | None, options: EncodingOptions, **fields: Any
) -> StreamSpec:
    """Describes the streams of an encoder; its layers and shapes are set per stream.

    Args:
        request: as asked for.
        checkpoint: where its weights are from; None for a built-in encoder.
        options: how it runs.
        fields: of the spec, those that are its own.
    """
    return StreamSpec(
        name=request.name,
        source=request.source if checkpoint is None else checkpoint.source,
        revision="" if checkpoint is None else checkpoint.revision,
        trained_on={} if checkpoint is None else checkpoint.trained_on,
        shape=(1,),
        dtype=options.dtype,
        precision=options.precision,
        versions=library_versions(),
        **fields,
    )


def load_speech_encoder(request: EncoderRequest, options: EncodingOptions) -> tuple[SpeechInput, str]:
    """Loads a speech encoder, in pieces where the options say so, and says what was noticed about it.

    Raises:
        MmerError: if its checkpoint is not at hand or cannot give what is asked of it.
    """
    checkpoint, model = _checkpoint(request)
    quantizer, start_weights, note = _quantizer(request, model, options)
    config: Any = model.base.config
    spec = spec_of(
        request,
        checkpoint,
        options,
        role="audio",
        weights=weights_digest(model.base),
        rate_hz=50.0,
        preprocessing={**SPEECH_PREPROCESSING, "normalize": model.normalize, "config": config_digest(config)},
        limits=recorded_limits(options, chunk=options.chunk),
    )
    encoder = SpeechEncoder(
        base=model.base,
        quantizer=quantizer,
        quantizer_weights="" if quantizer is None else weights_digest(model.pretraining or quantizer),
        start_weights=start_weights,
        spec=spec,
        choices=parse_choices(
            request.layers,
            layers=int(config.num_hidden_layers),
            encoder=request.name,
            conv=config.model_type not in WITHOUT_NORMED,
        ),
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


def load_acoustic_encoder(request: EncoderRequest, options: EncodingOptions) -> SpeechInput:
    """Makes an encoder of hand-made features.

    Raises:
        MmerError: if librosa cannot be imported, or layers are asked for.
    """
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


def load_mel_encoder(request: EncoderRequest, options: EncodingOptions) -> tuple[SpeechInput, str]:
    """Loads a ViT over log-mel, and says what was noticed about it.

    Raises:
        MmerError: if its checkpoint is not at hand or cannot give what is asked of it.
    """
    mel = load_acoustic_encoder(EncoderRequest(name=LOGMEL, source=LOGMEL, layers=("last",)), options)
    checkpoint, model = _vit(request)
    start_weights, note = vit_start_weights(model, options.start_layers)
    spec = spec_of(
        request,
        checkpoint,
        options,
        role="patches",
        weights=weights_digest(model),
        rate_hz=31.25,  # five patches every 16 frames of 10 ms
        preprocessing={**mel.specs[0].preprocessing, **VIT_PREPROCESSING, "config": config_digest(model.config)},
        limits={**recorded_limits(options, chunk=False), "start_layers": options.start_layers},
    )
    encoder = MelEncoder(
        model=model,
        mel=mel,
        start_weights=start_weights,
        spec=spec,
        choices=parse_choices(request.layers, layers=int(model.config.num_hidden_layers), encoder=request.name),
        device=options.device,
        precision=PRECISIONS[options.precision],
    )
    return encoder, note


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
    return TRANSCRIPT if open_checkpoint(source).config.model_type in TEXT_FAMILIES else SPEECH


def load_encoders(requests: Sequence[EncoderRequest], options: EncodingOptions) -> Encoders:
    """Loads what was asked for.

    Raises:
        MmerError: if a checkpoint is not at hand or cannot give what is asked of it.
    """
    loaded = Encoders()
    for request in requests:
        if consumes(request.source) == SPEECH:
            encoder, note = _speech(request, options)
            loaded.speech.append(encoder)
        else:
            reader, note = _text(request, options)
            loaded.text.append(reader)
        loaded.notes.extend([f"{request.name} {note}"] if note else [])
    if options.codes and not any(spec.role == "codes" for encoder in loaded.speech for spec in encoder.specs):
        raise MmerError("--codes needs an encoder with a quantizer, such as --encoder wav2vec2-base")
    return loaded


def character_targets(options: EncodingOptions) -> TextInput:
    """Gives the encoder of CTC targets, which needs nothing but the transcripts."""
    return CharacterTargets(event_tags=options.event_tags, versions=library_versions())


def _checkpoint(request: EncoderRequest) -> tuple[HubCheckpoint | None, SpeechCheckpoint]:
    if request.source == "wav2vec2-tiny":
        model = build_wav2vec2_tiny()
        return None, SpeechCheckpoint(base=model.wav2vec2, pretraining=model, normalize=True, note="")
    checkpoint = open_checkpoint(request.location)
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


def _vit(request: EncoderRequest) -> tuple[HubCheckpoint | None, Any]:
    if request.source == "vit-mel-tiny":
        return None, build_vit_mel_tiny()
    checkpoint = open_checkpoint(request.location)
    return checkpoint, load_vit(checkpoint)


def _speech(request: EncoderRequest, options: EncodingOptions) -> tuple[SpeechInput, str]:
    if request.source in ACOUSTIC:
        return load_acoustic_encoder(request, options), ""
    return load_mel_encoder(request, options) if _sees(request) else load_speech_encoder(request, options)


def _sees(request: EncoderRequest) -> bool:
    """Tells whether a speech encoder looks at an image of log-mel."""
    if request.source in ENCODERS:
        return ENCODERS[request.source].role == "patches"
    return open_checkpoint(request.source).config.model_type in MEL_FAMILIES


def _text(request: EncoderRequest, options: EncodingOptions) -> tuple[TextInput, str]:
    checkpoint: HubCheckpoint | None = None
    if request.source == "roberta-tiny":
        model: Any = build_roberta_tiny()
        tokenizer: PreTrainedTokenizerBase = build_roberta_tiny_tokenizer()
    else:
        checkpoint = open_checkpoint(request.location)
        model, tokenizer = load_text(checkpoint)
    layers = layers_of(model)
    choices = parse_choices(request.layers, layers=len(layers), encoder=request.name)
    start_weights, note = text_start_weights(model, layers, choices, options.start_layers)
    spec = spec_of(
        request,
        checkpoint,
        options,
        role="text",
        weights=weights_digest(model),
        preprocessing={
            "config": config_digest(model.config),
            "tokenizer": tokenizer_digest(tokenizer),
            "event_tags": options.event_tags,
            "truncate": options.truncate,
            **_splicing(options),
        },
        limits={"start_layers": options.start_layers} if start_weights else {},
    )
    encoder = TextEncoder(
        model=model,
        tokenizer=tokenizer,
        spec=spec,
        choices=choices,
        start_weights=start_weights,
        event_tags=options.event_tags,
        truncate=options.truncate,
        history=options.history,
        longest=options.max_tokens,
        device=options.device,
        precision=PRECISIONS[options.precision],
    )
    return encoder, note


def _splicing(options: EncodingOptions) -> dict[str, Scalar]:
    """Gives what decides a text beside the transcript, as far as asked for: the keys of all other runs stay."""
    asked = {"history": options.history, "max_tokens": options.max_tokens}
    return {name: value for name, value in asked.items() if value}
