"""Encoders of cached streams: found by the source that a stream records, and accepted only with the same weights."""

import copy
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, Wav2Vec2FeatureExtractor
from transformers.utils import logging

from cache.errors import MmerError
from cache.stream import StreamSpec
from featurize.encoders.catalog import BUILT_IN, ENCODERS, EncoderRequest
from featurize.encoders.huggingface import (
    MEL_FAMILIES,
    SPEECH_FAMILIES,
    TEXT_FAMILIES,
    config_digest,
    open_checkpoint,
    weights_digest,
)
from featurize.encoders.load import load_speech_model, load_text_model, load_vit_model
from fusion.end_to_end.learning.lora import merge_adapters
from fusion.end_to_end.learning.tune import PATCHES
from fusion.head_config import AUDIO, TEXT

Folders = Mapping[str, Path]  # name of an encoder -> folder with its checkpoint
NO_FOLDERS: Folders = {}
KEPT = 2  # loaded encoders that stay in memory, one of speech and one of text


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedEncoder:
    """A loaded encoder and what belongs to its checkpoint.

    Attributes:
        whole: model that is saved: the base model, or the pre-training model around it, with its quantizer.
        companion: tokenizer or feature extractor that is saved with it; None for a ViT.
        adapted: the model of peft around the base model, if LoRA adapters learn.
    """

    whole: PreTrainedModel
    companion: Any
    adapted: Any = None

    @property
    def base(self) -> Any:
        """The base model, whose modules learn."""
        return self.whole.base_model

    def merged(self) -> "LoadedEncoder":
        """Returns the encoder with its LoRA adapters merged into a copy of the weights; itself without adapters."""
        if self.adapted is None:
            return self
        whole, adapted = copy.deepcopy((self.whole, self.adapted))
        merge_adapters(adapted)
        return LoadedEncoder(whole=whole, companion=self.companion)

    def copied(self) -> "LoadedEncoder":
        """Returns a copy with weights of its own."""
        return LoadedEncoder(whole=copy.deepcopy(self.whole), companion=self.companion)

    def save(self, folder: Path) -> None:
        """Writes the checkpoint, so that ``mmer-featurize --encoder FOLDER`` reads it."""
        with _without_bars():
            self.whole.save_pretrained(folder)
        if self.companion is not None:
            self.companion.save_pretrained(folder)


LEARNING: Mapping[str, Collection[str]] = {AUDIO: SPEECH_FAMILIES, PATCHES: MEL_FAMILIES, TEXT: TEXT_FAMILIES}


def encoder_request(spec: StreamSpec, folders: Folders = NO_FOLDERS) -> EncoderRequest:
    """Returns the request that loads the encoder of a stream.

    Args:
        spec: spec of one of its streams.
        folders: folders that the user names.

    Raises:
        MmerError: if the encoder came from a folder that is not named.
    """
    name = spec.encoder.partition("+")[0]
    built_in = spec.source in ENCODERS and ENCODERS[spec.source].source == BUILT_IN
    folder = folders.get(name)
    if folder is None and not built_in and not spec.revision and "/" not in spec.source:
        folder = Path(spec.source)
    if folder is None:
        return EncoderRequest(name=name, source=spec.source, layers=("last",))
    if not folder.is_dir():
        where = f"{folder} is not a folder" if name in folders else f"it came from a folder named {spec.source}"
        raise MmerError(f"the weights of encoder {name} are needed, and {where}; pass --encoder {name}=FOLDER")
    return EncoderRequest(name=name, source=str(folder), layers=("last",))


def encoder_config(role: str, spec: StreamSpec, folders: Folders = NO_FOLDERS) -> Any:
    """Returns the configuration of the encoder of a stream.

    Raises:
        MmerError: if it is not available, or differs from the one that computed the stream.
    """
    request = encoder_request(spec, folders)
    built_in = request.source in ENCODERS and ENCODERS[request.source].source == BUILT_IN
    if built_in:
        config: Any = copy.deepcopy(_digested(role, request)[0].base.config)
    else:
        checkpoint = open_checkpoint(request.location)
        config = checkpoint.config
        if checkpoint.family not in LEARNING[role]:
            raise MmerError(
                f"stream {spec.name} comes from an encoder of type {checkpoint.family}, which does not learn; train on "
                f"the frozen stream, or tune one of {', '.join(LEARNING[role])}"
            )
        if spec.revision and checkpoint.revision and checkpoint.revision != spec.revision:
            raise MmerError(
                f"stream {spec.name} was computed by revision {spec.revision} of {spec.source}, and the hub cache has "
                f"{checkpoint.revision}; run mmer-featurize again, or pass --encoder {request.name}=FOLDER with the "
                "former"
            )
    recorded = spec.preprocessing.get("config")
    if recorded and recorded != config_digest(config):
        raise MmerError(f"{_another(request, spec)} (its configuration differs)")
    return config


def load_encoder(role: str, spec: StreamSpec, weights: str, folders: Folders = NO_FOLDERS) -> LoadedEncoder:
    """Loads the encoder of a stream, with weights of its own.

    Args:
        role: role that the stream is read for.
        spec: spec of the stream.
        weights: digest of the weights that computed the streams of the encoder; empty if the cache records none.
        folders: folders that the user names.

    Raises:
        MmerError: if it is not available, or its weights are others.
    """
    request = encoder_request(spec, folders)
    encoder_config(role, spec, folders)
    loaded, digest = _digested(role, request)
    if weights and digest != weights:
        raise MmerError(f"{_another(request, spec)} (its weights differ)")
    return loaded.copied()


def open_saved(role: str, folder: Path) -> LoadedEncoder:
    """Loads a tuned encoder from the folder of its model.

    Raises:
        MmerError: if the folder holds no complete checkpoint.
    """
    return _load(role, EncoderRequest(name=role, source=str(folder), layers=("last",)))


@lru_cache(maxsize=KEPT)
def _digested(role: str, request: EncoderRequest) -> tuple[LoadedEncoder, str]:
    loaded = _load(role, request)
    return loaded, weights_digest(loaded.base)


def _load(role: str, request: EncoderRequest) -> LoadedEncoder:
    if role == AUDIO:
        _, speech = load_speech_model(request)
        whole: Any = speech.pretraining or speech.base
        extractor: Any = Wav2Vec2FeatureExtractor
        return LoadedEncoder(whole=whole, companion=extractor(do_normalize=speech.normalize))
    if role == PATCHES:
        return LoadedEncoder(whole=load_vit_model(request)[1], companion=None)
    assert role == TEXT
    _, model, tokenizer = load_text_model(request)
    return LoadedEncoder(whole=model, companion=tokenizer)


@contextmanager
def _without_bars() -> Iterator[None]:
    """Keeps transformers from drawing a progress bar for every file."""
    if not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _another(request: EncoderRequest, spec: StreamSpec) -> str:
    return (
        f"{request.location} is not the encoder that computed stream {spec.name}; pass --encoder {request.name}=FOLDER "
        "with that encoder, or run mmer-featurize again"
    )
