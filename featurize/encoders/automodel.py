"""Checkpoints outside the families with a remedy of their own: any encoder that transformers can build by itself.

Whisper is loaded here too, since its inputs come from a feature extractor as theirs do.
"""

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from torch import nn
from transformers import (
    AutoFeatureExtractor,
    AutoModel,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    WhisperFeatureExtractor,
)

from cache.errors import MmerError
from featurize.encoders.huggingface import (
    PREPROCESSOR,
    WINDOW_FAMILIES,
    Family,
    HubCheckpoint,
    check_complete,
    check_tokenizer,
    has_file,
    hub_errors,
    load_model,
)
from featurize.inputs.audio import RATE_HZ

_AUTO: Any = AutoModel  # a factory of models, not a class of them
ANY = Family(model=_AUTO)
# Families whose own mask makes a batch, padded by their feature extractor, exact: measured by the tests.
MASKED_FAMILIES = frozenset({"wav2vec2-bert"})
IGNORED_FIELDS = frozenset({"feature_extractor_type", "processor_class", "image_processor_type"})


def load_whisper(checkpoint: HubCheckpoint) -> tuple[nn.Module, Any, str]:
    """Loads Whisper's encoder in float32 and its feature extractor; also returns a note on the checkpoint.

    Raises:
        MmerError: if weights are missing, or the extractor makes windows that the model cannot read.
    """
    model, missing = load_model(checkpoint, WINDOW_FAMILIES[checkpoint.family])
    check_complete(checkpoint, missing)
    config: Any = checkpoint.config
    note = ""
    kind: Any = WhisperFeatureExtractor  # transformers does not type it
    if has_file(checkpoint.location, PREPROCESSOR):
        with hub_errors(checkpoint.location):
            extractor = kind.from_pretrained(checkpoint.location)
    else:
        extractor = kind(feature_size=config.num_mel_bins)
        note = f"has no {PREPROCESSOR}: windows of 30 s with {config.num_mel_bins} bands, which is the default"
    window = (extractor.feature_size, extractor.nb_max_frames, extractor.sampling_rate)
    expected = (config.num_mel_bins, 2 * config.max_source_positions, RATE_HZ)
    if window != expected:
        raise MmerError(
            f"{PREPROCESSOR} of {checkpoint.location} makes windows of {window[0]} bands and {window[1]} frames at "
            f"{window[2]} Hz; the model reads {expected[0]} bands and {expected[1]} frames at {expected[2]} Hz: "
            "use the file of this checkpoint"
        )
    encoder: nn.Module = model.get_encoder()
    return encoder, extractor, note


def load_any_speech(checkpoint: HubCheckpoint) -> tuple[nn.Module, Any]:
    """Loads a speech encoder that transformers can build, in float32, and its feature extractor.

    Raises:
        MmerError: if weights or the extractor are missing, or the extractor reads another sampling rate.
    """
    if not has_file(checkpoint.location, PREPROCESSOR):
        raise MmerError(
            f"{checkpoint.location} has no {PREPROCESSOR}, which says what a model of type {checkpoint.family} reads; "
            "put the one of the checkpoint next to its weights"
        )
    auto: Any = AutoFeatureExtractor  # transformers does not type it
    with hub_errors(checkpoint.location):
        extractor = auto.from_pretrained(checkpoint.location, trust_remote_code=False)
    rate_hz = getattr(extractor, "sampling_rate", None)
    if rate_hz != RATE_HZ:
        raise MmerError(f"{checkpoint.location} expects speech at {rate_hz} Hz; mmer supports {RATE_HZ} Hz")
    return _encoder_of(checkpoint), extractor


def load_any_text(checkpoint: HubCheckpoint) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """Loads a text encoder that transformers can build, in float32, and its tokenizer.

    Raises:
        MmerError: if weights are missing, or its tokenizer gives no character spans.
    """
    with hub_errors(checkpoint.location, "its tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.location, trust_remote_code=False)
    if not getattr(tokenizer, "is_fast", False) or len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise MmerError(
            f"{checkpoint.location} has no fast tokenizer, and only that one says where a token stands in the text; "
            "put its tokenizer.json next to the weights"
        )
    model = _encoder_of(checkpoint)
    check_tokenizer(checkpoint, model, tokenizer)
    return model, tokenizer


def extractor_digest(extractor: Any) -> str:
    """Computes a digest of everything that determines the inputs that a feature extractor makes."""
    fields: Mapping[str, object] = extractor.to_dict()
    relevant = {name: value for name, value in fields.items() if name not in IGNORED_FIELDS}
    kind = type(extractor).__name__
    return blake2b(f"{kind} {json.dumps(relevant, sort_keys=True, default=str)}".encode(), digest_size=16).hexdigest()


def _encoder_of(checkpoint: HubCheckpoint) -> nn.Module:
    """Loads the model of a checkpoint; of one with a decoder, the encoder."""
    model, missing = load_model(checkpoint, ANY)
    if getattr(checkpoint.config, "is_encoder_decoder", False):
        missing = {name for name in missing if not name.startswith("decoder.")}
        model = model.get_encoder()
    check_complete(checkpoint, {name for name in missing if "pooler." not in name})  # no stream reads the pooler
    encoder: nn.Module = model
    return encoder
