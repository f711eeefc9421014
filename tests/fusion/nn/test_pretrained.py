"""Layers loaded from a cache go on where the hidden states of the encoder are (T003-5)."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from cache.errors import MmerError
from fusion.head import Batch
from fusion.head_config import HeadInputs
from fusion.heads.configs.jfm import JFMConfig
from fusion.heads.jfm import JFM
from fusion.nn.pretrained import layer_width, layers_from, select_layers, start_layer
from tests.support.checkpoints import loaded
from tests.support.heads import layer_weights
from tests.support.models import turns, waveforms

TEXTS = turns("today it was the garden", "so")


@cache
def text_states(layer: int) -> tuple[list[Any], Any]:
    """Returns hidden states of two texts and the weights of the layers after them."""
    (encoder,) = loaded(f"roberta-tiny@{layer}", start_layers=3).text
    return [rows[0] for rows in encoder.encode(TEXTS)], encoder.start_weights


@cache
def mel_states(layer: int) -> tuple[Any, Any]:
    (encoder,) = loaded(f"vit-mel-tiny@{layer}", start_layers=3).speech
    return encoder.encode(waveforms([30_000]))[0][0], encoder.start_weights


def batch_of(mel: Any, text: Any) -> Batch:
    features = {"mel": torch.from_numpy(mel)[None], "text": torch.from_numpy(text)[None]}
    masks = {role: torch.ones(1, rows.shape[1], dtype=torch.bool) for role, rows in features.items()}
    return Batch(features=features, masks=masks, labels=torch.zeros(1, dtype=torch.int64), indices=torch.zeros(1))


def test_language_layers_give_the_next_hidden_states_of_a_padded_batch() -> None:
    states, weights = text_states(4)
    rows = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(one) for one in states], batch_first=True)
    mask = torch.arange(rows.shape[1]) < torch.tensor([len(one) for one in states])[:, None]
    for layer in (5, 6, 7):
        rows = start_layer(weights, layer - 1, dropout=0.1).eval()(rows, mask)
        for place, expected in enumerate(text_states(layer)[0]):
            np.testing.assert_allclose(rows[place, mask[place]].detach(), expected, atol=1e-4)


def test_vision_layers_give_the_next_hidden_states() -> None:
    rows, weights = torch.from_numpy(mel_states(0)[0])[None], mel_states(0)[1]
    mask = torch.ones(1, rows.shape[1], dtype=torch.bool)
    for layer in (1, 2, 3):
        rows = start_layer(weights, layer - 1, dropout=0).eval()(rows, mask)
        np.testing.assert_allclose(rows[0].detach(), mel_states(layer)[0], atol=1e-4)


def test_jfm_without_joints_and_extractor_is_both_encoders() -> None:
    (text, *_), text_start = text_states(4)
    (mel,) = loaded("logmel80").speech[0].encode(waveforms([30_000]))[0]
    inputs = HeadInputs(
        classes=("a", "b"),
        shapes={"mel": (80,), "text": (64,)},
        weights={"patches": mel_states(0)[1], "text": text_start},
        layers={"text": "4"},
    )
    head = JFM(JFMConfig(joint=False, extractor_layers=0), inputs).eval()
    after: list[Any] = []
    for block in head.blocks:
        block.register_forward_hook(lambda _, __, streams: after.append(streams))
    with torch.inference_mode():
        head(batch_of(mel, text))
    for index, streams in enumerate(after, start=1):
        np.testing.assert_allclose(streams["audio"].rows[0], mel_states(index)[0], atol=1e-4)
        np.testing.assert_allclose(streams["text"].rows[0], text_states(4 + index)[0][0], atol=1e-4)
    assert len(after) == 2


def test_layers_are_counted_from_where_they_go_on_up_to_a_gap() -> None:
    weights = layer_weights(8, [4, 5, 6, 12, 13], heads=2, norm_first=False)
    assert [layers_from(weights, first) for first in (4, 6, 7, 12)] == [[4, 5, 6], [6], [], [12, 13]]
    assert select_layers(weights, "language", first=4, count=2, last=False) == [4, 5]
    assert select_layers(weights, "language", first=4, count=2, last=True) == [5, 6]
    assert layer_width(weights, 12) == 8


@pytest.mark.parametrize(("last", "asked"), [(False, 3), (True, 12)])
def test_too_few_layers_are_an_error_that_names_the_command(last: bool, asked: int) -> None:
    weights = layer_weights(8, [12, 13], heads=2, norm_first=False)
    command = (
        f"mmer-featurize for this cache with --encoder roberta-large@12 --encoder vit-mel-base --start-layers {asked}"
    )
    with pytest.raises(
        MmerError, match=f"^3 language layers .* from layer 12 on, the cache holds 2; add them by running {command}$"
    ):
        select_layers(weights, "language", first=12, count=3, last=last)


def test_the_last_layers_are_refused_where_the_first_are_all_that_there_are() -> None:
    weights = layer_weights(8, [0, 1], heads=2, norm_first=True)
    with pytest.raises(
        MmerError,
        match=r"^the last 2 ViT layers are needed, the cache holds only the first 2; add them by running mmer-",
    ):
        select_layers(weights, "ViT", first=0, count=2, last=True)


def test_all_layers_of_a_base_encoder_are_its_last_too() -> None:
    weights = layer_weights(8, range(12), heads=2, norm_first=True)
    assert select_layers(weights, "ViT", first=0, count=12, last=True) == list(range(12))


def test_a_layer_keeps_its_order_of_norms_and_their_epsilon() -> None:
    for norm_first in (False, True):
        weights = layer_weights(8, [0], heads=2, norm_first=norm_first)
        layer = start_layer(weights, 0, dropout=0)
        assert layer.norm_first == norm_first
        assert layer.norm1.eps == layer.norm2.eps == 1e-12
        assert all(one.requires_grad for one in layer.parameters())


def test_a_layer_does_not_share_its_weights_with_the_cache() -> None:
    weights = layer_weights(8, [0], heads=2, norm_first=True)
    before = {name: one.copy() for name, one in weights.items()}
    with torch.no_grad():
        for parameter in start_layer(weights, 0, dropout=0).parameters():
            parameter.add_(1)
    for name, one in weights.items():
        np.testing.assert_array_equal(one, before[name])
