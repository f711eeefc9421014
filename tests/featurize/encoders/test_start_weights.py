"""What JFM starts from: torch's own layers, loaded with it, go on where Hugging Face's hidden states are."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel, ViTConfig, ViTModel

from cache.rows import Rows
from featurize.encoders.base import TranscriptEncoder, WaveformEncoder
from featurize.encoders.layers import parse_layers
from featurize.encoders.start_weights import Weights, text_start_weights, vit_start_weights
from featurize.encoders.text import text_layers
from featurize.encoders.vit_mel import patch_pixels
from tests.support.checkpoints import loaded
from tests.support.images import VIT_SIDE
from tests.support.models import LAYER_SIZE, lively, text_model, turns, waveforms

DEPTH = 5
IDS = torch.tensor([[0, 7, 8, 5, 9, 2]])
LAYER = {"self_attn.in_proj_weight", "self_attn.in_proj_bias"} | {
    f"{part}.{name}"
    for part in ("self_attn.out_proj", "linear1", "linear2", "norm1", "norm2")
    for name in ("weight", "bias")
}
BEFORE = {"cls", "patch.weight", "patch.bias", "positions", "position_grid", "norm.weight", "norm.bias"}
SHAPE = {"heads", "norm_eps", "norm_first"}


def of_layer(weights: Any, index: int) -> dict[str, Tensor]:
    mine = f"layers.{index}."
    return {name.removeprefix(mine): torch.from_numpy(one) for name, one in weights.items() if name.startswith(mine)}


def torch_layer(weights: Any, index: int) -> nn.TransformerEncoderLayer:
    """Builds torch's layer from nothing but what is stored."""
    state = of_layer(weights, index)
    hidden, dim = state["linear1.weight"].shape
    layer = nn.TransformerEncoderLayer(
        dim,
        int(weights["heads"]),
        hidden,
        activation="gelu",
        batch_first=True,
        norm_first=bool(weights["norm_first"]),
        layer_norm_eps=float(weights["norm_eps"]),
    )
    layer.load_state_dict(state)
    return layer.eval()


def indices_of(weights: Any) -> list[int]:
    return sorted({int(name.split(".")[1]) for name in weights if name.startswith("layers.")})


def lively_text(model: Any, configuration: Any, **more: Any) -> Any:
    config = configuration(**LAYER_SIZE, num_hidden_layers=DEPTH, vocab_size=12, **more)
    return lively(model, config, add_pooling_layer=False)


def started(model: Any, *layers: str, count: int = 2) -> tuple[Weights, str]:
    choices = [parse_layers(text, layers=DEPTH, encoder="a") for text in layers]
    return text_start_weights(model, text_layers(model), choices, count)


def text_of(source: str, **options: Any) -> TranscriptEncoder:
    (encoder,) = loaded(source, **options).text
    return encoder


def mel_of(source: str, **options: Any) -> WaveformEncoder:
    (encoder,) = loaded(source, **options).speech
    return encoder


@pytest.mark.parametrize(
    ("model", "configuration", "eps"), [(BertModel, BertConfig, 1e-12), (RobertaModel, RobertaConfig, 1e-5)]
)
def test_language_layers_go_on_from_the_hidden_state(model: Any, configuration: Any, eps: float) -> None:
    bert = lively_text(model, configuration, layer_norm_eps=eps)
    weights, note = started(bert, "1", count=3)
    with torch.inference_mode():
        states = bert(input_ids=IDS, output_hidden_states=True).hidden_states
        for index in (1, 2, 3):
            torch.testing.assert_close(torch_layer(weights, index)(states[index]), states[index + 1], atol=1e-5, rtol=0)
    assert (indices_of(weights), note) == ([1, 2, 3], "")
    assert (int(weights["heads"]), float(weights["norm_eps"]), int(weights["norm_first"])) == (2, eps, 0)
    assert set(of_layer(weights, 2)) == LAYER


def test_language_layers_with_a_padding_mask_go_on_too() -> None:
    model = lively_text(RobertaModel, RobertaConfig, pad_token_id=1)
    ids = torch.tensor([[0, 7, 8, 5, 9, 2], [0, 7, 2, 1, 1, 1]])
    weights, _ = started(model, "1", count=1)
    with torch.inference_mode():
        states = model(input_ids=ids, attention_mask=ids != 1, output_hidden_states=True).hidden_states
        found = torch_layer(weights, 1)(states[1], src_key_padding_mask=ids == 1)
    torch.testing.assert_close(found[0], states[2][0], atol=1e-5, rtol=0)
    torch.testing.assert_close(found[1, :3], states[2][1, :3], atol=1e-5, rtol=0)


@pytest.mark.parametrize("qkv_bias", [True, False])
def test_vision_layers_go_on_from_the_hidden_state(qkv_bias: bool) -> None:
    config = ViTConfig(**LAYER_SIZE, num_hidden_layers=DEPTH, image_size=16 * VIT_SIDE, qkv_bias=qkv_bias)
    model = lively(ViTModel, config, add_pooling_layer=False)
    weights, note = vit_start_weights(model, 3)
    with torch.inference_mode():
        output = model(torch.randn(1, 3, 64, 64), output_hidden_states=True)
        for index in range(3):
            found = torch_layer(weights, index)(output.hidden_states[index])
            torch.testing.assert_close(found, output.hidden_states[index + 1], atol=1e-5, rtol=0)
    assert (indices_of(weights), note) == ([0, 1, 2], "")
    assert (float(weights["norm_eps"]), int(weights["norm_first"])) == (1e-12, 1)
    assert set(weights) == BEFORE | SHAPE | {f"layers.{index}.{name}" for index in range(3) for name in LAYER}
    assert weights["position_grid"].shape == (VIT_SIDE, VIT_SIDE, 32)


def rebuilt(weights: Any, mel: Rows, layers: int) -> Tensor:
    """Embeds log-mel and runs the first layers, from what is in a cache alone."""
    plain = {name: torch.from_numpy(weights[name]) for name in BEFORE}
    patches = nn.functional.linear(
        patch_pixels(torch.from_numpy(mel)), plain["patch.weight"].flatten(start_dim=1), plain["patch.bias"]
    )
    rows = torch.cat([plain["cls"][None], patches])
    states = (rows + plain["positions"][: len(rows)])[None]
    for index in range(layers):
        states = torch_layer(weights, index)(states)
    return states[0]


def test_a_cache_holds_all_that_embeds_log_mel_and_runs_on() -> None:
    (wave,) = waveforms([30_000])
    encoder = mel_of("vit-mel-tiny", start_layers=6)
    (mel,) = mel_of("logmel80").encode([wave])[0]
    with torch.inference_mode():
        for layers in (0, 1, 6):
            (expected,) = mel_of(f"vit-mel-tiny@{layers}").encode([wave])[0]
            torch.testing.assert_close(
                rebuilt(encoder.start_weights, mel, layers), torch.from_numpy(expected), atol=1e-5, rtol=0
            )
        normed = nn.functional.layer_norm(
            rebuilt(encoder.start_weights, mel, 6),
            (64,),
            torch.from_numpy(encoder.start_weights["norm.weight"]),
            torch.from_numpy(encoder.start_weights["norm.bias"]),
            float(encoder.start_weights["norm_eps"]),
        )
    np.testing.assert_allclose(normed, encoder.encode([wave])[0][0], atol=1e-5)
    assert encoder.start_weights["positions"].shape == (1 + 5 * 94, 64)
    assert encoder.start_weights["position_grid"].shape == (14, 14, 64)
    assert encoder.start_weights["patch.weight"].shape == (64, 16, 16)


def test_the_language_layers_of_a_cache_go_on_from_its_rows() -> None:
    text = turns("today it was the garden")
    start = text_of("roberta-tiny@4", start_layers=5)
    assert indices_of(start.start_weights) == [4, 5, 6, 7, 8]
    states = torch.from_numpy(start.encode(text)[0][0])[None]
    with torch.inference_mode():
        for index in range(4, 9):
            states = torch_layer(start.start_weights, index)(states)
    np.testing.assert_allclose(states[0], text_of("roberta-tiny").encode(text)[0][0], atol=1e-5)


def test_weights_are_float32_and_the_model_may_run_in_less() -> None:
    half = text_of("roberta-tiny@4", precision="bfloat16").start_weights
    for name, exact in text_of("roberta-tiny@4").start_weights.items():
        assert name in SHAPE or exact.dtype == np.float32
        np.testing.assert_array_equal(half[name], exact)


@pytest.mark.parametrize("layers", [["last"], ["2,3"], ["all"], ["mean1-2"], ["mean2-2"]])
def test_nothing_follows_the_output_a_stack_or_a_mean(layers: list[str]) -> None:
    assert started(lively_text(BertModel, BertConfig), *layers) == ({}, "")


@pytest.mark.parametrize("family", ["distilbert", "deberta-v2"])
def test_families_that_are_laid_out_otherwise_have_none(family: str) -> None:
    assert started(text_model(family), "1") == ({}, "")


def test_layers_after_two_hidden_states_stand_side_by_side() -> None:
    weights, note = started(lively_text(BertModel, BertConfig), "0", "last", "1", "4", "2,3")
    assert indices_of(weights) == [0, 1, 2, 4]
    assert note == "has 1 layer after hidden state 4: fewer start layers than 2"


def test_the_last_hidden_state_has_no_layer_after_it() -> None:
    weights, note = started(lively_text(BertModel, BertConfig), str(DEPTH), count=3)
    assert weights == {}
    assert note == f"has no layers after hidden state {DEPTH}: fewer start layers than 3"


@pytest.mark.parametrize(
    ("source", "count", "told"), [("vit-mel-tiny", 7, "6 layers in all"), ("roberta-tiny@8", 2, "1")]
)
def test_fewer_layers_than_asked_for_are_noted(source: str, count: int, told: str) -> None:
    found = loaded(source, start_layers=count)
    (note,) = found.notes
    assert note.startswith(f"{source.split('@', maxsplit=1)[0]} has {told}")
    assert note.endswith(f"fewer start layers than {count}")


def test_another_activation_than_torchs_gives_no_layers_and_a_note() -> None:
    bert = lively_text(BertModel, BertConfig, hidden_act="relu")
    assert started(bert, "1") == ({}, "uses the activation relu, not gelu: no start layers")
    config = ViTConfig(**LAYER_SIZE, num_hidden_layers=1, image_size=64, hidden_act="gelu_new")
    weights, note = vit_start_weights(ViTModel(config), 1)
    assert set(weights) == BEFORE
    assert note == "uses the activation gelu_new, not gelu: no start layers"


def test_how_many_were_asked_for_is_recorded_and_in_no_key() -> None:
    for source in ("vit-mel-tiny", "roberta-tiny@4"):
        of = text_of if source.startswith("roberta") else mel_of
        first, second = (of(source, start_layers=count).specs[0] for count in (2, 5))
        assert (first.limits["start_layers"], second.limits["start_layers"]) == (2, 5)
        assert first.key == second.key
    assert "start_layers" not in text_of("roberta-tiny").specs[0].limits
