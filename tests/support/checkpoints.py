"""Small checkpoints in folders, their weights altered, and what is loaded from them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForPreTraining

from featurize.encoders.base import WaveformEncoder
from featurize.encoders.catalog import parse_requests
from featurize.encoders.huggingface import load_speech, open_checkpoint, weights_digest
from featurize.encoders.load import Encoders, load_encoders
from featurize.encoders.options import EncodingOptions
from tests.support.models import CPU, SPEECH_SIZE

QUANTIZER_SIZE = {"codevector_dim": 16, "proj_codevector_dim": 16, "num_codevectors_per_group": 20}
WEIGHTS = "model.safetensors"
Weights = dict[str, torch.Tensor]


def saved(folder: Path, model: Any = Wav2Vec2ForPreTraining, **how: Any) -> Path:
    torch.manual_seed(0)
    model(Wav2Vec2Config(**{**SPEECH_SIZE, **how})).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(folder)  # type: ignore[no-untyped-call]
    return folder


def altered(original: Path, folder: Path, change: Callable[[Weights], Weights], *, as_bin: bool = False) -> Path:
    """Copies a checkpoint with other weights."""
    shutil.copytree(original, folder, ignore=shutil.ignore_patterns(WEIGHTS))
    weights = change(load_file(original / WEIGHTS))
    if as_bin:
        torch.save(weights, folder / "pytorch_model.bin")
    else:
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


def same(weights: Weights) -> Weights:
    return weights


def without(*parts: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name: one for name, one in weights.items() if not name.startswith(parts)}


def changed(part: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name: one + 1 if part in name else one for name, one in weights.items()}


def loaded(source: Path | str, **options: Any) -> Encoders:
    return load_encoders(parse_requests([str(source)]), EncodingOptions(device=CPU, **options))


def speech_of(source: Path | str, **options: Any) -> WaveformEncoder:
    (encoder,) = loaded(source, **options).speech
    return encoder


def speech_digest_of(folder: Path) -> str:
    return weights_digest(load_speech(open_checkpoint(str(folder))).base)


def keys_of(source: Path | str) -> dict[str, str]:
    return {spec.name: spec.key for spec in speech_of(source).specs}
