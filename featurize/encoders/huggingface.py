"""Loads Hugging Face checkpoints from the hub cache or a folder.

safetensors are preferred; a ``.bin`` goes through torch's weights-only loader; remote code never runs.

The families of Hugging Face models that encoders are made of, and what is particular about each.

What of a model decides its features, as digests: its weights and its configuration.
"""

import json
import math
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BertModel,
    Data2VecAudioModel,
    DebertaV2Model,
    DistilBertModel,
    HubertModel,
    PretrainedConfig,
    PreTrainedTokenizerBase,
    RobertaModel,
    ViTModel,
    Wav2Vec2ConformerForPreTraining,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForPreTraining,
    WavLMModel,
)
from transformers.utils.hub import cached_file
from transformers.utils.import_utils import is_protobuf_available, is_sentencepiece_available

from cache.errors import MmerError
from featurize.inputs.audio import RATE_HZ

UNUSED = "masked_spec_embed"  # SpecAugment's, never read in eval mode; random where a checkpoint lacks it
_SDPA: Mapping[str, Any] = {"attn_implementation": "sdpa"}
_NO_POOLER: Mapping[str, Any] = {"add_pooling_layer": False}
NOT_DECIDING = frozenset({"architectures", "transformers_version", "dtype", "torch_dtype"})
QUANTIZER_PARTS = ("quantizer.", "project_q.", "project_hid.")
PREPROCESSOR = "preprocessor_config.json"
HOP = 320  # samples from one frame to the next, in every family of speech
PATCH = 16  # pixels along a side of a ViT patch


@dataclass(frozen=True, kw_only=True)
class Family:
    """How the models of one ``model_type`` are loaded.

    Attributes:
        model: class to load.
        arguments: of its ``from_pretrained``, to leave out what no stream reads.
        unread: a part of its base model that no forward pass reads, empty where there is none.
    """

    model: Any
    arguments: Mapping[str, Any] = field(default_factory=dict)
    unread: str = ""


SPEECH_FAMILIES: Mapping[str, Family] = {
    "wav2vec2": Family(model=Wav2Vec2ForPreTraining, arguments=_SDPA),
    "hubert": Family(model=HubertModel, arguments=_SDPA),
    "wavlm": Family(model=WavLMModel, arguments={"attn_implementation": "eager"}),  # it has no SDPA
    # It has a convolution for positions, too, but takes them from its own embedding.
    "wav2vec2-conformer": Family(
        model=Wav2Vec2ConformerForPreTraining, arguments=_SDPA, unread="encoder.pos_conv_embed"
    ),
    "data2vec-audio": Family(model=Data2VecAudioModel, arguments=_SDPA),
}
TEXT_FAMILIES: Mapping[str, Family] = {
    "roberta": Family(model=RobertaModel, arguments=_NO_POOLER),
    "bert": Family(model=BertModel, arguments=_NO_POOLER),
    "distilbert": Family(model=DistilBertModel),
    "deberta-v2": Family(model=DebertaV2Model),
}
MEL_FAMILIES: Mapping[str, Family] = {
    "vit": Family(model=ViTModel, arguments={**_NO_POOLER, **_SDPA}),
}
FAMILIES: Mapping[str, Family] = {**SPEECH_FAMILIES, **MEL_FAMILIES, **TEXT_FAMILIES}


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


@dataclass(frozen=True, kw_only=True)
class HubCheckpoint:
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


def open_checkpoint(source: str) -> HubCheckpoint:
    """Finds a checkpoint and reads its configuration.

    Args:
        source: hub id or folder.

    Raises:
        MmerError: if it is not at hand, or of a family that mmer does not know.
    """
    with _told(source):
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    if config.model_type not in FAMILIES:
        raise MmerError(f"{source} is of the family {config.model_type}; mmer takes {', '.join(FAMILIES)}")
    if getattr(config, "add_adapter", False):
        raise MmerError(f"{source} ends in an adapter, which changes the frame rate; take a checkpoint without")
    folder = Path(source)
    return HubCheckpoint(
        location=source,
        source=folder.resolve().name if folder.is_dir() else source,
        revision="" if folder.is_dir() else _revision(source),
        config=config,
        trained_on=_trained_on(folder),
    )


def load_speech(checkpoint: HubCheckpoint) -> SpeechCheckpoint:
    """Loads a speech model in float32.

    Raises:
        MmerError: if weights are missing, its quantizer's included where only some of them are there.
    """
    hop = math.prod(checkpoint.config.conv_stride)
    if hop != HOP:
        raise MmerError(f"{checkpoint.location} gives a frame every {hop} samples; mmer takes one every {HOP}")
    model, missing = _load(checkpoint)
    quantizer_lost = {name for name in missing if name.startswith(QUANTIZER_PARTS)}
    _refuse_missing(checkpoint, missing - quantizer_lost)
    whole = {name for name in model.state_dict() if name.startswith(QUANTIZER_PARTS)}
    if quantizer_lost and quantizer_lost != whole:
        _refuse_missing(checkpoint, quantizer_lost)
    normalize, note = _normalizes(checkpoint.location)
    pretraining = model if whole and not quantizer_lost else None
    return SpeechCheckpoint(base=model.base_model, pretraining=pretraining, normalize=normalize, note=note)


def load_text(checkpoint: HubCheckpoint) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """Loads a text model in float32 and its tokenizer.

    Raises:
        MmerError: if weights or the tokenizer are missing.
    """
    if getattr(checkpoint.config, "conv_kernel_size", 0):
        raise MmerError(
            f"{checkpoint.location} has a convolution after its first layer, as in DeBERTa v2; mmer takes those "
            "without, such as microsoft/deberta-v3-base"
        )
    _check_sentencepiece(checkpoint.location)
    model, missing = _load(checkpoint)
    _refuse_missing(checkpoint, missing)
    with _told(checkpoint.location):
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.location, trust_remote_code=False)
    # Hugging Face makes an empty tokenizer where the files of one are missing.
    if not getattr(tokenizer, "is_fast", False) or len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise MmerError(f"{checkpoint.location} has no tokenizer; put its tokenizer.json beside the weights")
    return model, tokenizer


def load_vit(checkpoint: HubCheckpoint) -> nn.Module:
    """Loads a ViT in float32.

    Raises:
        MmerError: if weights are missing, or its patches are not those of 16 by 16 pixels on a square image.
    """
    config: Any = checkpoint.config
    height, width = _pair(config.image_size)
    if _pair(config.patch_size) != (PATCH, PATCH) or height != width or height % PATCH:
        patch = " x ".join(str(side) for side in _pair(config.patch_size))
        raise MmerError(
            f"{checkpoint.location} cuts images of {height} x {width} into patches of {patch}; "
            f"mmer takes square images and patches of {PATCH} x {PATCH}"
        )
    if config.num_channels not in {1, 3}:
        raise MmerError(f"{checkpoint.location} reads {config.num_channels} channels; mmer takes 1, or 3 for RGB")
    model, missing = _load(checkpoint)
    _refuse_missing(checkpoint, missing)
    vit: nn.Module = model
    return vit


def _load(checkpoint: HubCheckpoint) -> tuple[Any, set[str]]:
    family = FAMILIES[checkpoint.config.model_type]
    with _told(checkpoint.location):
        model, info = family.model.from_pretrained(
            checkpoint.location,
            output_loading_info=True,
            dtype=torch.float32,
            weights_only=True,
            trust_remote_code=False,
            **family.arguments,
        )
    missing = {name for name in info["missing_keys"] if not name.endswith(UNUSED)}
    if family.unread:
        model.base_model.set_submodule(family.unread, nn.Identity())
        missing = {name for name in missing if family.unread not in name}
    return model.eval(), missing


def _refuse_missing(checkpoint: HubCheckpoint, missing: set[str]) -> None:
    if missing:
        raise MmerError(
            f"{checkpoint.location} lacks {len(missing)} weights (first: {min(missing)}); "
            "features of random weights mean nothing: take a complete checkpoint"
        )


def _normalizes(location: str) -> tuple[bool, str]:
    try:
        extractor: Any = Wav2Vec2FeatureExtractor.from_pretrained(location)
    except (OSError, ValueError) as error:
        if _has_file(location, PREPROCESSOR):
            raise MmerError(f"{PREPROCESSOR} of {location} cannot be read; repair it or remove it") from error
        return True, f"has no {PREPROCESSOR}: utterances are normalized, as is the default"
    if extractor.sampling_rate != RATE_HZ:
        raise MmerError(f"{location} wants speech at {extractor.sampling_rate} Hz; mmer gives {RATE_HZ} Hz")
    return bool(extractor.do_normalize), ""


def _check_sentencepiece(location: str) -> None:
    """Refuses a tokenizer that Hugging Face cannot convert here: DeBERTa's is published as a SentencePiece model."""
    available = {"sentencepiece": is_sentencepiece_available(), "protobuf": is_protobuf_available()}
    lacking = [name for name, there in available.items() if not there]
    if lacking and _has_file(location, "spm.model") and not _has_file(location, "tokenizer.json"):
        raise MmerError(
            f"the tokenizer of {location} is a SentencePiece model, which needs {' and '.join(lacking)}; "
            "pip install sentencepiece protobuf brings what is missing"
        )


def _has_file(location: str, name: str) -> bool:
    with _told(location):
        return cached_file(location, name, _raise_exceptions_for_missing_entries=False) is not None


def _pair(size: Any) -> tuple[int, int]:
    """Gives height and width of what a configuration says as one number or as two."""
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


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
