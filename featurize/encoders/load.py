"""Loading of encoders: turns requests of the command line into encoders that are ready to run.

Encoders of speech are wav2vec 2.0 and its relatives, log-mel, MFCC, and ViT over log-mel; encoders of transcripts are
language models and the CTC targets. All encoders of checkpoints share the fields of one stream spec.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from cache.errors import MmerError
from cache.stream import SPEECH, TRANSCRIPT, StreamSpec
from featurize.encoders.any_text import AnyTextEncoder, count_layers
from featurize.encoders.automodel import (
    MASKED_FAMILIES,
    extractor_digest,
    load_any_speech,
    load_any_text,
    load_whisper,
)
from featurize.encoders.base import Encoder, TranscriptEncoder, WaveformEncoder
from featurize.encoders.catalog import BUILT_IN, ENCODERS, EncoderRequest
from featurize.encoders.ctc_targets import CharacterTargets
from featurize.encoders.huggingface import (
    MEL_FAMILIES,
    SPEECH_FAMILIES,
    SQUEEZED_FAMILIES,
    TEXT_FAMILIES,
    WINDOW_FAMILIES,
    HubCheckpoint,
    SpeechCheckpoint,
    config_digest,
    hub_errors,
    load_speech,
    load_text,
    load_vit,
    open_checkpoint,
    weights_digest,
)
from featurize.encoders.layers import parse_choices
from featurize.encoders.one_by_one import OneByOneEncoder, RowCounter
from featurize.encoders.options import PRECISIONS, EncodingOptions, recorded_limits
from featurize.encoders.speech import PREPROCESSING as SPEECH_PREPROCESSING
from featurize.encoders.speech import ChunkedEncoder, SpeechEncoder
from featurize.encoders.squeezed import SqueezedEncoder
from featurize.encoders.start_weights import text_start_weights, vit_start_weights
from featurize.encoders.text import TextEncoder, text_layers, tokenizer_digest
from featurize.encoders.tiny import (
    build_roberta_tiny,
    build_roberta_tiny_tokenizer,
    build_vit_mel_tiny,
    build_wav2vec2_tiny,
)
from featurize.encoders.vit_mel import PREPROCESSING as VIT_PREPROCESSING
from featurize.encoders.vit_mel import MelEncoder
from featurize.encoders.whisper import PREPROCESSING as WHISPER_PREPROCESSING
from featurize.encoders.whisper import WhisperEncoder
from featurize.inputs.audio import MIN_SAMPLES, RATE_HZ
from featurize.inputs.transcript import Turn
from featurize.runtime.versions import library_versions

LOGMEL = "logmel80"
ACOUSTIC = ("logmel80", "mfcc39")
TRIED_SAMPLES = 2000  # a few frames of every family


@dataclass(kw_only=True)
class Encoders:
    """Encoders ready to run, by the input that they consume.

    Attributes:
        speech: encoders of waveforms.
        text: encoders of transcripts.
        notes: remarks about them, one line each.
    """

    speech: list[WaveformEncoder] = field(default_factory=list)
    text: list[TranscriptEncoder] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def consumes(source: str) -> str:
    """Returns the input that a source encodes, ``speech`` or ``transcript``.

    Raises:
        MmerError: if it is neither a catalog name nor an available checkpoint.
    """
    if source in ENCODERS:
        return SPEECH if ENCODERS[source].modality == "speech" else TRANSCRIPT
    return SPEECH if open_checkpoint(source).reads_speech else TRANSCRIPT


def load_encoders(requests: Sequence[EncoderRequest], options: EncodingOptions) -> Encoders:
    """Loads the requested encoders.

    Raises:
        MmerError: if a checkpoint is not available or cannot satisfy its request.
    """
    loaded = Encoders()
    for request in requests:
        with hub_errors(request.location):
            if consumes(request.source) == SPEECH:
                speech_encoder, note = _load_waveform_encoder(request, options)
                _try(speech_encoder, TRIED_SAMPLES, np.zeros(TRIED_SAMPLES, dtype=np.float32), request)
                loaded.speech.append(speech_encoder)
            else:
                text_encoder, note = load_text_encoder(request, options)
                _try(text_encoder, Turn("a"), Turn("a"), request)
                loaded.text.append(text_encoder)
        loaded.notes.extend([f"{request.name} {note}"] if note else [])
    if options.codes and not any(spec.role == "codes" for encoder in loaded.speech for spec in encoder.specs):
        raise MmerError("--codes needs an encoder with a quantizer, such as --encoder wav2vec2-base")
    return loaded


def character_targets(options: EncodingOptions) -> TranscriptEncoder:
    """Builds the encoder of CTC targets, which needs only the transcripts."""
    return CharacterTargets(
        event_tags=options.event_tags,
        versions=library_versions(),
        transcripts=options.transcripts,
        vocabulary=options.ctc_vocabulary,
    )


def load_speech_encoder(request: EncoderRequest, options: EncodingOptions) -> tuple[WaveformEncoder, str]:
    """Loads wav2vec 2.0 or a relative, chunked if the options require it; also returns a note on it.

    Raises:
        MmerError: if its checkpoint is not available or cannot satisfy the request.
    """
    checkpoint, model = load_speech_model(request)
    quantizer, start_weights, note = _select_quantizer(request, model, options)
    config: Any = model.base.config
    spec = _template_spec(
        request,
        checkpoint,
        options,
        role="audio",
        weights=weights_digest(model.base),
        rate_hz=50.0,
        preprocessing={**SPEECH_PREPROCESSING, "normalize": model.normalize, "config": config_digest(config)},
        limits=recorded_limits(options, chunk=options.chunk),
    )
    kind = SqueezedEncoder if config.model_type in SQUEEZED_FAMILIES else SpeechEncoder
    encoder = kind(
        base=model.base,
        quantizer=quantizer,
        quantizer_weights="" if quantizer is None else weights_digest(model.pretraining or quantizer),
        start_weights=start_weights,
        spec=spec,
        choices=parse_choices(
            request.layers,
            layers=int(config.num_hidden_layers),
            encoder=request.name,
            conv=True,
        ),
        normalize=model.normalize,
        device=options.device,
        precision=PRECISIONS[options.precision],
    )
    notes = "; ".join(filter(None, (model.note, note)))
    chunk_samples = _chunk_samples(options)
    return encoder if chunk_samples is None else ChunkedEncoder(encoder, max_samples=chunk_samples), notes


def load_whisper_encoder(request: EncoderRequest, options: EncodingOptions) -> tuple[WaveformEncoder, str]:
    """Loads Whisper's encoder; also returns a note on it.

    Raises:
        MmerError: if its checkpoint is not available or cannot satisfy the request.
    """
    checkpoint = open_checkpoint(request.location)
    model, extractor, note = load_whisper(checkpoint)
    config: Any = checkpoint.config
    steps = {"extractor": extractor_digest(extractor), "config": config_digest(config)}
    encoder = WhisperEncoder(
        model=model,
        extractor=extractor,
        spec=_template_spec(
            request,
            checkpoint,
            options,
            role="audio",
            weights=weights_digest(model),
            rate_hz=50.0,
            preprocessing={**WHISPER_PREPROCESSING, **steps},
            limits=recorded_limits(options, chunk=options.chunk),
        ),
        choices=parse_choices(request.layers, layers=int(config.encoder_layers), encoder=request.name),
        chunk_samples=_chunk_samples(options),
        device=options.device,
        precision=PRECISIONS[options.precision],
    )
    return encoder, note


def load_any_speech_encoder(request: EncoderRequest, options: EncodingOptions) -> tuple[WaveformEncoder, str]:
    """Loads any speech encoder that transformers can build; also returns a note on it.

    Raises:
        MmerError: if its checkpoint is not available or cannot satisfy the request.
    """
    checkpoint = open_checkpoint(request.location)
    model, extractor = load_any_speech(checkpoint)
    batched = checkpoint.family in MASKED_FAMILIES
    counter = RowCounter(model, extractor)
    encoder = OneByOneEncoder(
        model=model,
        counter=counter,
        batched=batched,
        spec=_template_spec(
            request,
            checkpoint,
            options,
            role="audio",
            weights=weights_digest(model),
            preprocessing={
                **SPEECH_PREPROCESSING,
                "extractor": extractor_digest(extractor),
                "config": config_digest(checkpoint.config),
            },
            limits=recorded_limits(options, chunk=options.chunk),
        ),
        choices=parse_choices(request.layers, layers=counter.layers, encoder=request.name),
        chunk_samples=_chunk_samples(options),
        device=options.device,
        precision=PRECISIONS[options.precision],
    )
    if batched:
        return encoder, ""
    rate = f"{encoder.specs[0].rate_hz:g} rows a second as measured"
    return encoder, f"is of type {checkpoint.family}: utterances are encoded one by one, {rate}"


def load_mel_encoder(request: EncoderRequest, options: EncodingOptions) -> tuple[WaveformEncoder, str]:
    """Loads a ViT over log-mel; also returns a note on it.

    Raises:
        MmerError: if its checkpoint is not available or cannot satisfy the request.
    """
    mel = load_acoustic_encoder(EncoderRequest(name=LOGMEL, source=LOGMEL, layers=("last",)), options)
    checkpoint, model = load_vit_model(request)
    start_weights, note = vit_start_weights(model, options.start_layers)
    spec = _template_spec(
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


def load_acoustic_encoder(request: EncoderRequest, options: EncodingOptions) -> WaveformEncoder:
    """Builds an encoder of log-mel or MFCC.

    Raises:
        MmerError: if librosa cannot be imported, or the request names layers.
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


def load_text_encoder(request: EncoderRequest, options: EncodingOptions) -> tuple[TranscriptEncoder, str]:
    """Loads a language model over transcripts; also returns a note on it.

    Raises:
        MmerError: if its checkpoint is not available or cannot satisfy the request.
    """
    checkpoint, model, tokenizer = load_text_model(request)
    known = checkpoint is None or checkpoint.family in TEXT_FAMILIES
    layers = text_layers(model) if known else nn.ModuleList()
    count = len(layers) if known else count_layers(model)
    choices = parse_choices(request.layers, layers=count, encoder=request.name)
    start_weights, note = text_start_weights(model, layers, choices, options.start_layers) if known else ({}, "")
    spec = _template_spec(
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
            # only if requested, so that the keys of runs without them stay what they were
            **({"history": options.history} if options.history else {}),
            **({"max_tokens": options.max_tokens} if options.max_tokens else {}),
            **(options.transcripts.marks if options.transcripts else {}),
        },
        limits={"start_layers": options.start_layers} if start_weights else {},
    )
    encoder = (TextEncoder if known else AnyTextEncoder)(
        model=model,
        tokenizer=tokenizer,
        spec=spec,
        choices=choices,
        start_weights=start_weights,
        event_tags=options.event_tags,
        truncate=options.truncate,
        history=options.history,
        max_tokens=options.max_tokens,
        device=options.device,
        precision=PRECISIONS[options.precision],
    )
    return encoder, note


def load_speech_model(request: EncoderRequest) -> tuple[HubCheckpoint | None, SpeechCheckpoint]:
    """Loads the model of a speech encoder, in eval mode and float32; the checkpoint is None for a built-in one.

    Raises:
        MmerError: if its checkpoint is not available or incomplete.
    """
    if request.source == "wav2vec2-tiny":
        model = build_wav2vec2_tiny()
        return None, SpeechCheckpoint(base=model.wav2vec2, pretraining=model, normalize=True, note="")
    checkpoint = open_checkpoint(request.location)
    if checkpoint.family not in SPEECH_FAMILIES and checkpoint.family not in SQUEEZED_FAMILIES:
        raise MmerError(f"{request.location} is of type {checkpoint.family}, not wav2vec 2.0 or a relative")
    return checkpoint, load_speech(checkpoint)


def load_text_model(request: EncoderRequest) -> tuple[HubCheckpoint | None, Any, PreTrainedTokenizerBase]:
    """Loads the model of a text encoder and its tokenizer; the checkpoint is None for a built-in one.

    Raises:
        MmerError: if its checkpoint is not available or incomplete.
    """
    if request.source == "roberta-tiny":
        return None, build_roberta_tiny(), build_roberta_tiny_tokenizer()
    checkpoint = open_checkpoint(request.location)
    return (checkpoint, *(load_text if checkpoint.family in TEXT_FAMILIES else load_any_text)(checkpoint))


def load_vit_model(request: EncoderRequest) -> tuple[HubCheckpoint | None, Any]:
    """Loads the model of an encoder of log-mel; the checkpoint is None for a built-in one.

    Raises:
        MmerError: if its checkpoint is not available or incomplete.
    """
    if request.source == "vit-mel-tiny":
        return None, build_vit_mel_tiny()
    checkpoint = open_checkpoint(request.location)
    return checkpoint, load_vit(checkpoint)


def _template_spec(
    request: EncoderRequest, checkpoint: HubCheckpoint | None, options: EncodingOptions, **fields: Any
) -> StreamSpec:
    """Builds the spec that the streams of an encoder share; layers and shape are set for each stream.

    Args:
        request: the requested encoder.
        checkpoint: source of its weights; None for a built-in encoder.
        options: options of the run.
        fields: fields of the spec that depend on the kind of encoder.
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


def _load_waveform_encoder(request: EncoderRequest, options: EncodingOptions) -> tuple[WaveformEncoder, str]:
    if request.source in ACOUSTIC:
        return load_acoustic_encoder(request, options), ""
    if request.source in ENCODERS and ENCODERS[request.source].source == BUILT_IN:
        images = ENCODERS[request.source].role == "patches"
        return load_mel_encoder(request, options) if images else load_speech_encoder(request, options)
    family = open_checkpoint(request.location).family
    if family in MEL_FAMILIES:
        return load_mel_encoder(request, options)
    if family in WINDOW_FAMILIES:
        return load_whisper_encoder(request, options)
    if family in SPEECH_FAMILIES or family in SQUEEZED_FAMILIES:
        return load_speech_encoder(request, options)
    return load_any_speech_encoder(request, options)


def _try(encoder: Encoder[Any, Any], size: object, shortest: object, request: EncoderRequest) -> None:
    """Encodes a short input by a checkpoint, so that a model that cannot run is found before any work."""
    built_in = request.source in ENCODERS and ENCODERS[request.source].source == BUILT_IN
    if not built_in and any(encoder.plan([size])[0].rows):
        encoder.encode([shortest])


def _chunk_samples(options: EncodingOptions) -> int | None:
    """Returns the length of the pieces of a long recording, None if such recordings are not encoded."""
    if not options.chunk:
        return None
    if options.max_seconds * RATE_HZ < MIN_SAMPLES:
        raise MmerError(f"--chunk needs --max-seconds of at least {MIN_SAMPLES / RATE_HZ}, got {options.max_seconds:g}")
    return int(options.max_seconds * RATE_HZ)


def _select_quantizer(
    request: EncoderRequest, model: SpeechCheckpoint, options: EncodingOptions
) -> tuple[torch.nn.Module | None, dict[str, npt.NDArray[Any]], str]:
    """Selects the quantizer if available and wanted, with the weights that LE-MER starts from and a note."""
    if options.codes is False:
        return None, {}, ""
    if model.pretraining is None:
        if options.codes:
            raise MmerError(
                f"{request.source} has no quantizer, so no codes; use a pre-training checkpoint or pass --no-codes"
            )
        return None, {}, "has no quantizer: no codes"
    pretraining: Any = model.pretraining
    weights = {
        "codevectors": pretraining.quantizer.codevectors[0],
        "project_q.weight": pretraining.project_q.weight,
        "project_q.bias": pretraining.project_q.bias,
        "project_hid.weight": pretraining.project_hid.weight,
        "project_hid.bias": pretraining.project_hid.bias,
    }
    return pretraining.quantizer, {name: tensor.detach().cpu().numpy() for name, tensor in weights.items()}, ""
