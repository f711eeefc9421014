"""Exact batching of speech encoders: the rows of any batch are those of plain Hugging Face, utterance by utterance."""

from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2Model

from cache.rows import Rows
from featurize.encoders.base import Waveform
from featurize.encoders.speech import SpeechEncoder
from featurize.extraction.parity import TOLERANCE
from tests.support.models import (
    ALIKE,
    CHOICES,
    CONVOLVING,
    HARD_MIX,
    SPEECH_FAMILIES,
    SPEECH_LAYERS,
    SPEECH_SIZE,
    alone,
    chosen_of,
    last_of,
    lively,
    speech_encoder,
    speech_model,
    waveforms,
    worst,
)


class Variant(NamedTuple):
    """One architecture: its family, the norm of its convolutions, where its layer norms stand, its input."""

    family: str
    norm: str
    stable: bool
    normalize: bool

    def __str__(self) -> str:
        return f"{self.family}-{self.norm}{'-stable' * self.stable}{'-normalized' * self.normalize}"


VARIANTS = [
    Variant(*fields)
    for fields in product(SPEECH_FAMILIES, ("group", "layer"), (False, True), (False, True))
    if fields[0] not in CONVOLVING or fields[1:3] == ("layer", False)  # all that was published of them
    if fields[0] not in ALIKE or fields[1:] in {("group", False, True), ("layer", True, True)}  # base and large
]


def batch_deviation(variant: Variant, lengths: Sequence[int]) -> float:
    model, waves = speech_model(*variant[:3]), waveforms(lengths)
    found = speech_encoder(model, normalize=variant.normalize).encode(waves)
    expected = [last_of(alone(model, wave, normalize=variant.normalize)) for wave in waves]
    return worst([rows[0] for rows in found], expected)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_hard_mix_of_lengths_gives_the_rows_of_one_by_one(variant: Variant) -> None:
    assert batch_deviation(variant, HARD_MIX) <= TOLERANCE


@settings(max_examples=20)
@given(st.sampled_from(VARIANTS), st.lists(st.integers(400, 20_000), min_size=1, max_size=5))
@example(VARIANTS[0], [400])
@example(VARIANTS[0], [8000, 8000])
@example(VARIANTS[0], [400, 719])  # as many frames, not as many samples
def test_any_mix_of_lengths_gives_the_rows_of_one_by_one(variant: Variant, lengths: list[int]) -> None:
    assert batch_deviation(variant, lengths) <= TOLERANCE


def padded_batch(encoder: SpeechEncoder, waves: Sequence[Waveform], *, masked: bool) -> list[Rows]:
    """Encodes a batch with zeros up to the longest waveform, with or without the attention mask."""
    longest = max(len(wave) for wave in waves)
    values = np.stack([np.pad(encoder.prepare(wave), (0, longest - len(wave))) for wave in waves])
    mask = torch.arange(longest) < torch.tensor([len(wave) for wave in waves])[:, None]
    model: Any = encoder.base
    with torch.inference_mode():
        batch = model(torch.from_numpy(values), attention_mask=mask.long() if masked else None).last_hidden_state
    return [rows[: (len(wave) - 400) // 320 + 1].numpy() for rows, wave in zip(batch, waves, strict=True)]


@pytest.mark.parametrize("variant", [variant for variant in VARIANTS if not variant.stable], ids=str)
def test_a_batch_padded_the_usual_way_does_not(variant: Variant) -> None:
    model, waves = speech_model(*variant[:3]), waveforms(HARD_MIX)
    encoder = speech_encoder(model, normalize=variant.normalize)
    expected = [last_of(alone(model, wave, normalize=variant.normalize)) for wave in waves]
    assert worst(padded_batch(encoder, waves, masked=False), expected) > 0.01
    lets_padding_in = variant.norm == "group" or variant.family in CONVOLVING
    if lets_padding_in and variant.family != "wavlm":  # torch warns of WavLM's mask
        assert worst(padded_batch(encoder, waves, masked=True), expected) > 0.01


def test_the_batch_norm_of_a_positional_convolution_does_not_let_padding_in() -> None:
    config = HubertConfig(**SPEECH_SIZE, conv_pos_batch_norm=True)  # as in utter-project/mHuBERT-147
    model = lively(HubertModel, config)
    model.encoder.pos_conv_embed.batch_norm.running_mean.normal_()
    waves = waveforms(HARD_MIX)
    found = [rows[0] for rows in speech_encoder(model).encode(waves)]
    assert worst(found, [last_of(alone(model, wave, normalize=True)) for wave in waves]) <= TOLERANCE


def test_features_without_a_norm_before_their_projection_are_exact_too() -> None:
    model = lively(HubertModel, HubertConfig(**SPEECH_SIZE, feat_proj_layer_norm=False))
    waves = waveforms(HARD_MIX)
    found = [rows[0] for rows in speech_encoder(model).encode(waves)]
    assert worst(found, [last_of(alone(model, wave, normalize=True)) for wave in waves]) <= TOLERANCE


@pytest.mark.parametrize("stable", [False, True])
@pytest.mark.parametrize("family", SPEECH_FAMILIES)
def test_hidden_layers_are_those_of_hugging_face(family: str, stable: bool) -> None:
    model, waves = speech_model(family, "group", stable), waveforms(HARD_MIX)
    found = speech_encoder(model, *CHOICES, "0", str(SPEECH_LAYERS)).encode(waves)
    for rows, wave in zip(found, waves, strict=True):
        output = alone(model, wave, normalize=True)
        ends = [output.hidden_states[layer][0].numpy() for layer in (0, SPEECH_LAYERS)]
        expected = [*chosen_of(output), *ends]
        assert worst(rows, expected) <= TOLERANCE


@pytest.mark.parametrize("family", sorted(SPEECH_FAMILIES.keys() - {"hubert"}))
def test_the_features_of_the_convolutions_are_those_of_hugging_face(family: str) -> None:
    model, waves = speech_model(family), waveforms(HARD_MIX)
    encoder = speech_encoder(model, "conv", "last")
    assert [(spec.name, spec.layers, spec.shape) for spec in encoder.specs] == [
        ("a@conv", "conv", (16,)),
        ("a", "last", (32,)),
    ]
    for rows, wave in zip(encoder.encode(waves), waves, strict=True):
        output = alone(model, wave, normalize=True)
        assert worst(rows, [output.extract_features[0].numpy(), last_of(output)]) <= TOLERANCE


def test_one_pass_leaves_no_hook_behind() -> None:
    model = lively(Wav2Vec2Model, Wav2Vec2Config(**SPEECH_SIZE))
    speech_encoder(model, "all").encode(waveforms([500, 900]))
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.encoder.layers)


@pytest.mark.parametrize("family", SPEECH_FAMILIES)
@pytest.mark.parametrize("samples", [1, 80, 399])
def test_less_than_400_samples_are_normalized_and_then_padded(family: str, samples: int) -> None:
    model = speech_model(family, "group", False)
    waves = waveforms([samples, 3000, 400])
    found = speech_encoder(model).encode(waves)[0][0]
    normed = (waves[0] - waves[0].mean()) / np.sqrt(waves[0].var() + 1e-7)
    expected = last_of(alone(model, np.pad(normed, (0, 400 - samples)), normalize=False))
    assert worst([found], [expected]) <= TOLERANCE


@pytest.mark.parametrize("family", SPEECH_FAMILIES)
def test_silence_in_a_batch_gives_finite_rows_and_those_of_silence_alone(family: str) -> None:
    encoder = speech_encoder(speech_model(family, "group", False))
    waves = [np.zeros(8000, np.float32), *waveforms([12_000])]
    found = encoder.encode(waves)[0][0]
    assert np.isfinite(found).all()
    assert worst([found], [encoder.encode(waves[:1])[0][0]]) <= TOLERANCE


def test_rotary_positions_stay_exact_in_bfloat16_where_it_cannot_count_the_frames() -> None:
    configuration, base, particular = SPEECH_FAMILIES["conformer-rope"]
    model = lively(base, configuration(**SPEECH_SIZE, **particular, feat_extract_norm="layer"))
    for layer in model.encoder.layers:
        for name in ("linear_q", "linear_k", "linear_v", "linear_out"):
            getattr(layer.self_attn, name).weight.data *= 30  # attention that depends on positions
    waves = waveforms([320 * 700, 4000])
    full = speech_encoder(model).encode(waves)
    half = speech_encoder(model, precision=torch.bfloat16)
    assert worst([rows[0] for rows in half.encode(waves)], [rows[0] for rows in full]) < 0.1  # 0.3 without
    for rows, exact in zip(half.encode(waves, precise=True), full, strict=True):
        np.testing.assert_array_equal(rows[0], exact[0])


@pytest.mark.parametrize("family", SPEECH_FAMILIES)
def test_every_family_runs_in_bfloat16(family: str) -> None:
    model, waves = speech_model(family, "layer", True), waveforms([400, 5000, 9000])
    half = speech_encoder(model, precision=torch.bfloat16).encode(waves)
    full = speech_encoder(model).encode(waves)
    assert worst([rows[0] for rows in half], [rows[0] for rows in full]) < 0.05
