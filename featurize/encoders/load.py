"""From what was asked for on the command line to encoders ready to run."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase

from cache.errors import MmerError
from cache.stream import SPEECH, TRANSCRIPT, Scalar
from featurize.encoders.base import SpeechInput, TextInput
from featurize.encoders.catalog import ENCODERS, EncoderRequest
from featurize.encoders.characters import CharacterTargets
from featurize.encoders.checkpoint import Checkpoint, load_text, open_checkpoint
from featurize.encoders.digests import config_digest, weights_digest
from featurize.encoders.families import MEL_FAMILIES, TEXT_FAMILIES
from featurize.encoders.layers import parse_choices
from featurize.encoders.load_mel import load_acoustic_encoder, load_mel_encoder
from featurize.encoders.load_speech import load_speech_encoder
from featurize.encoders.options import PRECISIONS, EncodingOptions, library_versions
from featurize.encoders.specs import spec_of
from featurize.encoders.start import text_start_weights
from featurize.encoders.text import TextEncoder, layers_of, tokenizer_digest
from featurize.encoders.tiny import build_roberta_tiny, build_roberta_tiny_tokenizer

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
    checkpoint: Checkpoint | None = None
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
