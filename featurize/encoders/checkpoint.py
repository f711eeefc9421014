"""Loads Hugging Face checkpoints from the hub cache or a folder, and digests their weights.

safetensors are preferred; a ``.bin`` goes through torch's weights-only loader; remote code never runs.
"""

import json
import math
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
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
from transformers.utils.hub import cached_file

from cache.errors import MmerError
from featurize.audio import RATE_HZ

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
PREPROCESSOR = "preprocessor_config.json"
NOT_DECIDING = frozenset({"architectures", "transformers_version", "dtype", "torch_dtype"})
HOP = 320  # samples from one frame to the next, in every family
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
        revision="" if folder.is_dir() else _revision(source),
        config=config,
        trained_on=_trained_on(folder),
    )


def load_speech(checkpoint: Checkpoint) -> SpeechCheckpoint:
    """Loads a speech model in float32.

    Raises:
        MmerError: if weights are missing, its quantizer's included where only some of them are there.
    """
    hop = math.prod(checkpoint.config.conv_stride)
    if hop != HOP:
        raise MmerError(f"{checkpoint.location} gives a frame every {hop} samples; mmer takes one every {HOP}")
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
    # Hugging Face makes an empty tokenizer where the files of one are missing.
    if not getattr(tokenizer, "is_fast", False) or len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise MmerError(f"{checkpoint.location} has no tokenizer; put its tokenizer.json beside the weights")
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


def config_digest(config: PretrainedConfig) -> str:
    """Digests what a configuration says that decides a feature: the shape of the model, not who made it.

    Only what differs from the defaults of its family counts: a default added by a later library changes nothing.
    """
    told = config.to_diff_dict()
    decides = {name: value for name, value in told.items() if name not in NOT_DECIDING and not name.startswith("_")}
    return blake2b(json.dumps(decides, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()


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
        extractor: Any = Wav2Vec2FeatureExtractor.from_pretrained(location)
    except (OSError, ValueError) as error:
        if cached_file(location, PREPROCESSOR, _raise_exceptions_for_missing_entries=False):
            raise MmerError(f"{PREPROCESSOR} of {location} cannot be read; repair it or remove it") from error
        return True, f"has no {PREPROCESSOR}: utterances are normalized, as is the default"
    if extractor.sampling_rate != RATE_HZ:
        raise MmerError(f"{location} wants speech at {extractor.sampling_rate} Hz; mmer gives {RATE_HZ} Hz")
    return bool(extractor.do_normalize), ""


def _revision(source: str) -> str:
    """Gives the commit of a hub repository, after which its folder in the hub cache is named."""
    found = try_to_load_from_cache(source, "config.json")
    return Path(found).parent.name if isinstance(found, str) else ""


def _trained_on(folder: Path) -> Mapping[str, object]:
    path = folder / "trained_on.json"
    if not path.is_file():
        return {}
    try:
        told = json.loads(path.read_text())
    except ValueError:
        told = None
    if not isinstance(told, dict) or not told:
        raise MmerError(f"{path} must hold a JSON object that says which corpus and speakers the encoder has seen")
    return told


@contextmanager
def _told(source: str) -> Iterator[None]:
    """Turns what Hugging Face raises into one line."""
    try:
        yield
    except pickle.UnpicklingError as error:
        raise MmerError(
            f"the .bin of {source} holds more than weights and is not loaded; convert it to safetensors"
        ) from error
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        why = str(error).strip().split("\n", maxsplit=1)[0]
        if Path(source).is_dir():
            raise MmerError(f"{source} holds no checkpoint that can be loaded: {why}") from error
        raise MmerError(
            f"{source} is neither in the hub cache nor reachable; fetch it where there is a network by "
            f"`hf download {source}`, or name a folder that holds it ({why})"
        ) from error
