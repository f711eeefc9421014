"""Hugging Face checkpoints: the supported model families, loading from the hub cache or a folder, and digests.

safetensors are preferred, a ``.bin`` is read by torch's weights-only loader, and remote code never runs. The digests
cover what determines the features of a model: its weights and its configuration.
"""

import json
import math
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from shlex import quote
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from torch import nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BertForMaskedLM,
    BertModel,
    Data2VecAudioModel,
    DebertaV2ForMaskedLM,
    DebertaV2Model,
    DistilBertForMaskedLM,
    DistilBertModel,
    HubertModel,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    RobertaForMaskedLM,
    RobertaModel,
    SEWModel,
    UniSpeechModel,
    UniSpeechSatModel,
    ViTModel,
    Wav2Vec2ConformerForPreTraining,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForPreTraining,
    WavLMModel,
    WhisperModel,
    XLMRobertaForMaskedLM,
    XLMRobertaModel,
)
from transformers.models.auto import feature_extraction_auto
from transformers.utils.hub import cached_file
from transformers.utils.import_utils import is_protobuf_available, is_sentencepiece_available

from cache.errors import MmerError
from featurize.inputs.audio import RATE_HZ

UNUSED_WEIGHT = "masked_spec_embed"  # of SpecAugment, not read in eval mode; random if a checkpoint lacks it
_SDPA: Mapping[str, Any] = {"attn_implementation": "sdpa"}
_NO_POOLER: Mapping[str, Any] = {"add_pooling_layer": False}
IGNORED_CONFIG_FIELDS = frozenset({"architectures", "transformers_version", "dtype", "torch_dtype"})
QUANTIZER_PREFIXES = ("quantizer.", "project_q.", "project_hid.")
PREPROCESSOR = "preprocessor_config.json"
ADAPTER = "adapter_config.json"  # transformers would load another base model than the weights next to it
REASON_CHARACTERS = 300  # of a library's report, which may have many lines
HOP = 320  # samples between frames, the same in every family of speech models
PATCH = 16  # height and width of a ViT patch, in pixels


@dataclass(frozen=True, kw_only=True)
class Family:
    """The models of one Hugging Face ``model_type``: their class and how to load it.

    Attributes:
        model: class to load.
        arguments: arguments of its ``from_pretrained``, among them those that omit modules no stream reads.
        unused_module: submodule of the base model that no forward pass reads, empty if there is none.
        masked_lm: class of the masked language model, None if the family has none.
    """

    model: type[PreTrainedModel]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    unused_module: str = ""
    masked_lm: type[PreTrainedModel] | None = None


SPEECH_FAMILIES: Mapping[str, Family] = {
    "wav2vec2": Family(model=Wav2Vec2ForPreTraining, arguments=_SDPA),
    "hubert": Family(model=HubertModel, arguments=_SDPA),
    "wavlm": Family(model=WavLMModel, arguments={"attn_implementation": "eager"}),  # WavLM has no SDPA attention
    # The conformer has a positional convolution as well, but reads positions from its own embedding.
    "wav2vec2-conformer": Family(
        model=Wav2Vec2ConformerForPreTraining, arguments=_SDPA, unused_module="encoder.pos_conv_embed"
    ),
    "data2vec-audio": Family(model=Data2VecAudioModel, arguments=_SDPA),
    "unispeech": Family(model=UniSpeechModel, arguments=_SDPA),
    "unispeech-sat": Family(model=UniSpeechSatModel, arguments=_SDPA),
}
SQUEEZED_FAMILIES: Mapping[str, Family] = {  # its Transformer runs at half the frame rate
    "sew": Family(model=SEWModel, arguments=_SDPA),
}
WINDOW_FAMILIES: Mapping[str, Family] = {
    "whisper": Family(model=WhisperModel, arguments=_SDPA, unused_module="decoder"),
}
TEXT_FAMILIES: Mapping[str, Family] = {
    "roberta": Family(model=RobertaModel, arguments=_NO_POOLER, masked_lm=RobertaForMaskedLM),
    "xlm-roberta": Family(model=XLMRobertaModel, arguments=_NO_POOLER, masked_lm=XLMRobertaForMaskedLM),
    "bert": Family(model=BertModel, arguments=_NO_POOLER, masked_lm=BertForMaskedLM),
    "distilbert": Family(model=DistilBertModel, masked_lm=DistilBertForMaskedLM),
    "deberta-v2": Family(model=DebertaV2Model, masked_lm=DebertaV2ForMaskedLM),
}
MEL_FAMILIES: Mapping[str, Family] = {
    "vit": Family(model=ViTModel, arguments={**_NO_POOLER, **_SDPA}),
}
FAMILIES: Mapping[str, Family] = {
    **SPEECH_FAMILIES,
    **SQUEEZED_FAMILIES,
    **WINDOW_FAMILIES,
    **MEL_FAMILIES,
    **TEXT_FAMILIES,
}


def weights_digest(*modules: nn.Module) -> str:
    """Computes a digest of the names, types, shapes and values of weights, independent of their file format."""
    digest = blake2b(digest_size=16)
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            if name.endswith(UNUSED_WEIGHT):
                continue
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def config_digest(config: PretrainedConfig) -> str:
    """Computes a digest of the configuration fields that determine features, such as the shape of the model.

    Only fields that differ from the defaults of the family count: a default that a later library adds changes nothing.
    """
    fields = config.to_diff_dict()
    names = [name for name in fields if name not in IGNORED_CONFIG_FIELDS and not name.startswith("_")]
    relevant = {name: fields[name] for name in names}
    return blake2b(json.dumps(relevant, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, kw_only=True)
class HubCheckpoint:
    """A checkpoint that is available on this machine.

    Attributes:
        location: hub id or folder, as Hugging Face accepts it.
        source: the same for the key of a stream: a folder is reduced to its name.
        revision: commit of the hub repository, empty for a folder.
        config: configuration of the model.
        trained_on: record of the fine-tuning in its folder (``trained_on.json``), otherwise empty.
    """

    location: str
    source: str
    revision: str
    config: PretrainedConfig
    trained_on: Mapping[str, object]

    @property
    def family(self) -> str:
        """The ``model_type`` of its configuration."""
        return str(self.config.model_type)

    @property
    def reads_speech(self) -> bool:
        """True if its input is speech, or an image of it; otherwise it is text."""
        if self.family in FAMILIES:
            return self.family not in TEXT_FAMILIES
        table: Any = feature_extraction_auto
        return self.family in table.FEATURE_EXTRACTOR_MAPPING_NAMES or has_file(self.location, PREPROCESSOR)


@dataclass(frozen=True, kw_only=True)
class SpeechCheckpoint:
    """A loaded speech model.

    Attributes:
        base: the base model.
        pretraining: the model with its quantizer, None if the checkpoint has none.
        normalize: each utterance must have zero mean and unit variance.
        note: remark about the checkpoint, empty if there is none.
    """

    base: nn.Module
    pretraining: nn.Module | None
    normalize: bool
    note: str


def open_checkpoint(source: str) -> HubCheckpoint:
    """Locates a checkpoint and reads its configuration.

    Args:
        source: hub id or folder.

    Raises:
        MmerError: if it is not available, or needs code of its own.
    """
    with hub_errors(source, "config.json"):
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    if getattr(config, "add_adapter", False):
        raise MmerError(f"{source} ends in an adapter, which changes the frame rate; use a checkpoint without one")
    if has_file(source, ADAPTER):
        raise MmerError(
            f"{source} has a peft adapter ({ADAPTER}) next to its configuration, which is not applied; merge it by "
            "PeftModel.from_pretrained(model, FOLDER).merge_and_unload().save_pretrained(NEW) and name that folder"
        )
    folder = Path(source)
    return HubCheckpoint(
        location=source,
        source=folder.resolve().name if folder.is_dir() else source,
        revision="" if folder.is_dir() else cached_revision(source),
        config=config,
        trained_on=_read_trained_on(folder),
    )


def load_speech(checkpoint: HubCheckpoint) -> SpeechCheckpoint:
    """Loads a speech model in float32.

    Raises:
        MmerError: if weights are missing, or only some of the quantizer's weights are present.
    """
    hop = math.prod(checkpoint.config.conv_stride)
    if hop != HOP:
        raise MmerError(f"{checkpoint.location} has a frame every {hop} samples; mmer supports one every {HOP}")
    model, missing = load_model(checkpoint)
    missing_quantizer = {name for name in missing if name.startswith(QUANTIZER_PREFIXES)}
    check_complete(checkpoint, missing - missing_quantizer)
    quantizer = {name for name in model.state_dict() if name.startswith(QUANTIZER_PREFIXES)}
    if missing_quantizer != quantizer:  # a checkpoint without any of them is complete, but has no codes
        check_complete(checkpoint, missing_quantizer)
    normalize, note = _read_normalization(checkpoint.location)
    pretraining = model if quantizer and not missing_quantizer else None
    return SpeechCheckpoint(base=model.base_model, pretraining=pretraining, normalize=normalize, note=note)


def load_text(checkpoint: HubCheckpoint) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """Loads a text model in float32 and its tokenizer.

    Raises:
        MmerError: if weights or the tokenizer are missing.
    """
    if getattr(checkpoint.config, "conv_kernel_size", 0):
        raise MmerError(
            f"{checkpoint.location} has a convolution after its first layer, as DeBERTa v2 has; "
            "use a checkpoint without it, such as microsoft/deberta-v3-base"
        )
    _check_sentencepiece(checkpoint.location)
    model, missing = load_model(checkpoint)
    check_complete(checkpoint, missing)
    with hub_errors(checkpoint.location, "its tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.location, trust_remote_code=False)
    # Hugging Face builds an empty tokenizer if the files of the tokenizer are missing.
    if not getattr(tokenizer, "is_fast", False) or len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise MmerError(f"{checkpoint.location} has no tokenizer; put its tokenizer.json next to the weights")
    check_tokenizer(checkpoint, model, tokenizer)
    return model, tokenizer


def load_masked_lm(checkpoint: HubCheckpoint) -> nn.Module:
    """Loads the masked language model of a text checkpoint in float32.

    Raises:
        MmerError: if the checkpoint has no complete language-model head.
    """
    family = TEXT_FAMILIES.get(checkpoint.family)
    if family is None or family.masked_lm is None:
        raise MmerError(
            f"{checkpoint.location} is of type {checkpoint.family}; --view cbca supports "
            f"{', '.join(TEXT_FAMILIES)}: use a checkpoint of one of them, or leave the view out"
        )
    model, missing = load_model(checkpoint, replace(family, model=family.masked_lm, arguments={}))
    if missing:
        raise MmerError(
            f"{checkpoint.location} has no language-model head ({len(missing)} weights are missing, first: "
            f"{min(missing)}), which --view cbca needs; use the checkpoint that was pre-trained with it, or leave the "
            "view out"
        )
    filler: nn.Module = model
    return filler


def load_vit(checkpoint: HubCheckpoint) -> nn.Module:
    """Loads a ViT in float32.

    Raises:
        MmerError: if weights are missing, its image is not square, or its patches are not 16 by 16 pixels.
    """
    config: Any = checkpoint.config  # its fields depend on the family
    height, width = _height_and_width(config.image_size)
    if _height_and_width(config.patch_size) != (PATCH, PATCH) or height != width or height % PATCH:
        patch = " x ".join(str(side) for side in _height_and_width(config.patch_size))
        raise MmerError(
            f"{checkpoint.location} cuts images of {height} x {width} into patches of {patch}; "
            f"mmer supports square images and patches of {PATCH} x {PATCH}"
        )
    if config.num_channels not in {1, 3}:
        raise MmerError(f"{checkpoint.location} reads {config.num_channels} channels; mmer supports 1, or 3 for RGB")
    model, missing = load_model(checkpoint)
    check_complete(checkpoint, missing)
    vit: nn.Module = model
    return vit


def load_model(checkpoint: HubCheckpoint, family: Family | None = None) -> tuple[Any, set[str]]:
    """Loads the model of a checkpoint, by default of its family; also returns the names of missing weights."""
    family = family or FAMILIES[checkpoint.config.model_type]
    with hub_errors(checkpoint.location, "its weights"):
        loaded: Any = family.model.from_pretrained(
            checkpoint.location,
            output_loading_info=True,
            dtype=torch.float32,
            weights_only=True,
            trust_remote_code=False,
            **family.arguments,
        )
    model, info = loaded
    missing = {name for name in info["missing_keys"] if not name.endswith(UNUSED_WEIGHT)}
    if family.unused_module:
        model.base_model.set_submodule(family.unused_module, nn.Identity())
        missing = {name for name in missing if family.unused_module not in name}
    return model.eval(), missing


def check_tokenizer(checkpoint: HubCheckpoint, model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Checks that the model has a vector for every token, and that its limits are numbers.

    Raises:
        MmerError: if the tokenizer and the weights do not fit, or a limit is invalid.
    """
    vocabulary: Mapping[str, int] = tokenizer.get_vocab()
    last = max(vocabulary, key=vocabulary.__getitem__)
    embedding = None
    with suppress(NotImplementedError):  # models without a table of tokens
        embedding = model.get_input_embeddings()
    rows = embedding.num_embeddings if isinstance(embedding, nn.Embedding) else vocabulary[last] + 1
    if vocabulary[last] >= rows:
        raise MmerError(
            f"the tokenizer of {checkpoint.location} has the token {last!r} with the id {vocabulary[last]}, and the "
            f"embedding of its weights has only the ids 0 to {rows - 1}; use the tokenizer that the model was trained "
            "with, or resize the embedding and train it"
        )
    config: Any = checkpoint.config
    pad = getattr(config, "pad_token_id", None)
    if config.model_type == "roberta" and (type(pad) is not int or not 0 <= pad < rows):
        raise MmerError(
            f"config.json of {checkpoint.location} has the pad_token_id {pad}; expected an id from 0 to {rows - 1}, "
            "after which the positions of RoBERTa start"
        )
    limit = tokenizer.model_max_length
    if not isinstance(limit, int | float) or isinstance(limit, bool) or not limit > 0:
        raise MmerError(
            f"tokenizer_config.json of {checkpoint.location} has the model_max_length {limit!r}; expected a number of "
            "tokens above 0"
        )


def check_complete(checkpoint: HubCheckpoint, missing: set[str]) -> None:
    """Checks that a checkpoint has all weights.

    Raises:
        MmerError: if some are missing.
    """
    if missing:
        raise MmerError(
            f"{checkpoint.location} lacks {len(missing)} weights (first: {min(missing)}); "
            "features of random weights are meaningless: use a complete checkpoint"
        )


def _read_normalization(location: str) -> tuple[bool, str]:
    """Reads whether waveforms are normalized; also returns a note, empty if there is none."""
    try:
        extractor: Any = Wav2Vec2FeatureExtractor.from_pretrained(location)
    except Exception as error:
        if has_file(location, PREPROCESSOR):
            raise MmerError(
                f"{PREPROCESSOR} of {location} cannot be read ({_reason(error)}); repair it or remove it"
            ) from error
        if not isinstance(error, OSError | ValueError):
            raise
        return True, f"has no {PREPROCESSOR}: utterances are normalized, which is the default"
    if extractor.sampling_rate != RATE_HZ:
        raise MmerError(f"{location} expects speech at {extractor.sampling_rate} Hz; mmer supports {RATE_HZ} Hz")
    return bool(extractor.do_normalize), ""


def _check_sentencepiece(location: str) -> None:
    """Checks the packages that convert a SentencePiece model, the form in which DeBERTa's tokenizer is published."""
    available = {"sentencepiece": is_sentencepiece_available(), "protobuf": is_protobuf_available()}
    missing = [name for name, installed in available.items() if not installed]
    if missing and has_file(location, "spm.model") and not has_file(location, "tokenizer.json"):
        raise MmerError(
            f"the tokenizer of {location} is a SentencePiece model, which needs {' and '.join(missing)}; "
            "run `pip install sentencepiece protobuf`"
        )


def has_file(location: str, name: str) -> bool:
    """Returns whether a checkpoint has a file, in its folder, in the hub cache or on the hub."""
    with hub_errors(location):
        return cached_file(location, name, _raise_exceptions_for_missing_entries=False) is not None


def _height_and_width(size: int | Sequence[int]) -> tuple[int, int]:
    """Returns the height and width that a configuration gives as one number or as two."""
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


def cached_revision(source: str) -> str:
    """Returns the commit of a hub repository, which is the name of its folder in the hub cache."""
    found = try_to_load_from_cache(source, "config.json")
    return Path(found).parent.name if isinstance(found, str) else ""


def _read_trained_on(folder: Path) -> Mapping[str, object]:
    path = folder / "trained_on.json"
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text())
    except ValueError:
        record = None
    if not isinstance(record, dict) or not record:
        raise MmerError(f"{path} must hold a JSON object with the corpus and the speakers of the fine-tuning")
    return record


@contextmanager
def hub_errors(source: str, part: str = "") -> Iterator[None]:
    """Raises whatever a library raises while it reads or tries a checkpoint as an `MmerError` of one line.

    Args:
        source: hub id or folder.
        part: file or part of the checkpoint that is read.
    """
    try:
        yield
    except (MmerError, MemoryError):
        raise
    except pickle.UnpicklingError as error:
        raise MmerError(
            f"the .bin of {source} holds more than weights and is not loaded; convert it to safetensors"
        ) from error
    except Exception as error:  # the tokenizers library raises bare exceptions, checks of configurations TypeErrors
        if "trust_remote_code" in str(error):
            raise MmerError(
                f"{source} needs code that lies next to its weights, which mmer never runs; use an encoder whose model "
                "is part of transformers"
            ) from error
        where = f" ({part})" if part else ""
        if Path(source).is_dir():
            raise MmerError(f"{source} holds no checkpoint that can be loaded: {_reason(error)}{where}") from error
        first = str(error).strip().split("\n", maxsplit=1)[0] or type(error).__name__
        if not isinstance(error, OSError):
            raise MmerError(f"{source} cannot be loaded: {_reason(error)}{where}") from error
        raise MmerError(
            f"{source} is neither in the hub cache nor reachable; run `hf download {quote(source)}` where there is a "
            f"network, or pass a folder that holds it ({first})"
        ) from error


def _reason(error: Exception) -> str:
    """Returns the report of a library as one line of limited length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= REASON_CHARACTERS else f"{text[:REASON_CHARACTERS]}..."
