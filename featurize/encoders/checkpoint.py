"""Loads Hugging Face checkpoints from the hub cache or a folder, and digests their weights.

safetensors are preferred; a ``.bin`` goes through torch's weights-only loader; remote code never runs.
"""

import json
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    HubertModel,
    PretrainedConfig,
    PreTrainedTokenizerBase,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForPreTraining,
    WavLMModel,
)

from cache.errors import MmerError

# Model type -> class to load. WavLM has no SDPA: it is loaded eager.
SPEECH_FAMILIES: Mapping[str, tuple[Any, str]] = {
    "wav2vec2": (Wav2Vec2ForPreTraining, "sdpa"),
    "hubert": (HubertModel, "sdpa"),
    "wavlm": (WavLMModel, "eager"),
}
# Model type -> arguments that leave out what no stream reads.
TEXT_FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "roberta": {"add_pooling_layer": False},
    "bert": {"add_pooling_layer": False},
    "distilbert": {},
}
QUANTIZER_PARTS = ("quantizer.", "project_q.", "project_hid.")
UNUSED = "masked_spec_embed"  # SpecAugment's, never read in eval mode; random where a checkpoint lacks it


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint that is at hand.

    Attributes:
        location: hub id or folder, as Hugging Face takes it.
        source: the same as it enters a stream's key: of a folder only its name.
        revision: commit of the hub repository, empty for a folder.
        config: Hugging Face's.
        trained_on: what fine-tuning left in its folder, empty elsewhere.
    """

    location: str
    source: str
    revision: str
    config: PretrainedConfig
    trained_on: Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class SpeechCheckpoint:
    """A loaded speech model; `pretraining` is the model with its quantizer where the checkpoint has one."""

    base: nn.Module
    pretraining: nn.Module | None
    normalize: bool
    note: str


def open_checkpoint(source: str) -> Checkpoint:
    """Finds a checkpoint and reads its configuration.

    Args:
        source: hub id or folder.

    Raises:
        MmerError: if it is not at hand, or of a family that mmer does not know.
    """
    with _told(source):
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    if config.model_type not in {**SPEECH_FAMILIES, **TEXT_FAMILIES}:
        known = ", ".join([*SPEECH_FAMILIES, *TEXT_FAMILIES])
        raise MmerError(f"{source} is of the family {config.model_type}; mmer takes {known}")
    if getattr(config, "add_adapter", False):
        raise MmerError(f"{source} ends in an adapter, which changes the frame rate; take a checkpoint without")
    folder = Path(source)
    return Checkpoint(
        location=source,
        source=folder.resolve().name if folder.is_dir() else source,
        revision="" if folder.is_dir() else str(getattr(config, "_commit_hash", "") or ""),
        config=config,
        trained_on=_trained_on(folder),
    )


def load_speech(checkpoint: Checkpoint) -> SpeechCheckpoint:
    """Loads a speech model in float32.

    Raises:
        MmerError: if weights are missing, its quantizer's included where only some of them are there.
    """
    family, attention = SPEECH_FAMILIES[checkpoint.config.model_type]
    model, missing = _load(family, checkpoint, attn_implementation=attention)
    quantizer_lost = {name for name in missing if name.startswith(QUANTIZER_PARTS)}
    _refuse_missing(checkpoint, missing - quantizer_lost)
    base = getattr(model, "wav2vec2", model)
    whole = {name for name in model.state_dict() if name.startswith(QUANTIZER_PARTS)}
    if quantizer_lost and quantizer_lost != whole:
        _refuse_missing(checkpoint, quantizer_lost)
    normalize, note = _normalizes(checkpoint.location)
    pretraining = model if whole and not quantizer_lost else None
    return SpeechCheckpoint(base=base, pretraining=pretraining, normalize=normalize, note=note)


def load_text(checkpoint: Checkpoint) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """Loads a text model in float32 and its tokenizer.

    Raises:
        MmerError: if weights or the tokenizer are missing.
    """
    model, missing = _load(AutoModel, checkpoint, **TEXT_FAMILIES[checkpoint.config.model_type])
    _refuse_missing(checkpoint, missing)
    with _told(checkpoint.location):
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.location, trust_remote_code=False)
    if not getattr(tokenizer, "is_fast", False):
        raise MmerError(f"{checkpoint.location} has no tokenizer.json, so tokens have no character spans")
    return model, tokenizer


def weights_digest(*modules: nn.Module) -> str:
    """Digests names, types, shapes and values of weights, whatever file they came from."""
    digest = blake2b(digest_size=16)
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            if name.endswith(UNUSED):
                continue
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _load(family: Any, checkpoint: Checkpoint, **arguments: Any) -> tuple[Any, set[str]]:
    with _told(checkpoint.location):
        model, info = family.from_pretrained(
            checkpoint.location,
            output_loading_info=True,
            dtype=torch.float32,
            weights_only=True,
            trust_remote_code=False,
            **arguments,
        )
    return model.eval(), {name for name in info["missing_keys"] if not name.endswith(UNUSED)}


def _refuse_missing(checkpoint: Checkpoint, missing: set[str]) -> None:
    if missing:
        raise MmerError(
            f"{checkpoint.location} lacks {len(missing)} weights (first: {min(missing)}); "
            "features of random weights mean nothing: take a complete checkpoint"
        )


def _normalizes(location: str) -> tuple[bool, str]:
    try:
        return bool(Wav2Vec2FeatureExtractor.from_pretrained(location).do_normalize), ""
    except OSError:
        return True, "has no preprocessor_config.json: utterances are normalized, as is the default"


def _trained_on(folder: Path) -> Mapping[str, object]:
    path = folder / "trained_on.json"
    if not path.is_file():
        return {}
    try:
        told = json.loads(path.read_text())
    except ValueError as error:
        raise MmerError(f"{path} is no JSON ({error}); it says which speakers the encoder has seen") from error
    return dict(told)


@contextmanager
def _told(source: str) -> Iterator[None]:
    """Turns what Hugging Face raises into one line."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, pickle.UnpicklingError, SafetensorError) as error:
        why = str(error).strip().split("\n", maxsplit=1)[0]
        if Path(source).is_dir():
            raise MmerError(f"{source} holds no checkpoint that can be loaded: {why}") from error
        raise MmerError(
            f"{source} is neither in the hub cache nor reachable; fetch it where there is a network by "
            f"`hf download {source}`, or name a folder that holds it ({why})"
        ) from error
