"""Tiny ViTs with random weights, and encoders of log-mel around them: vectors of 32 values per patch."""

from functools import cache
from typing import Any

import torch
from transformers import ViTConfig, ViTModel

from cache.stream import StreamSpec
from featurize.encoders.acoustic import AcousticEncoder
from featurize.encoders.layers import parse_layers
from featurize.encoders.vit_mel import MelEncoder
from tests.support.models import CPU, LAYER_SIZE, lively

VIT_LAYERS, VIT_SIDE = 3, 4  # patches along a side of its photographs


@cache
def vit_model(channels: int = 3) -> Any:
    size = {**LAYER_SIZE, "num_hidden_layers": VIT_LAYERS, "image_size": 16 * VIT_SIDE, "num_channels": channels}
    return lively(ViTModel, ViTConfig(**size), add_pooling_layer=False)


def mel_encoder(model: Any, *layers: str, precision: torch.dtype = torch.float32) -> MelEncoder:
    return MelEncoder(
        model=model,
        mel=AcousticEncoder(name="logmel80", source="logmel80", dtype="float32", versions={}, limits={}),
        start_weights={},
        spec=StreamSpec(name="a", role="patches", source="a", shape=(1,), dtype="float32", rate_hz=31.25),
        choices=[parse_layers(text, layers=VIT_LAYERS, encoder="a") for text in layers or ("last",)],
        device=CPU,
        precision=precision,
    )
