"""Quantizer codes: equal to the choices of Hugging Face's quantizer, alone and in a batch."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Wav2Vec2Config, Wav2Vec2ForPreTraining

from cache.rows import Rows
from featurize.encoders.base import Waveform
from featurize.encoders.speech import quantizer_codes
from featurize.extraction.parity import deviation
from tests.support.models import HARD_MIX, SPEECH_SIZE, alone, lively, speech_encoder, waveforms


@cache
def pretraining(norm: str) -> Any:
    config = Wav2Vec2Config(**SPEECH_SIZE, feat_extract_norm=norm, codevector_dim=16, num_codevectors_per_group=50)
    return lively(Wav2Vec2ForPreTraining, config)


def codes_by_hugging_face(model: Any, waveform: Waveform) -> Rows:
    """Finds the codes in the vectors that the quantizer returns in eval mode."""
    quantizer = model.quantizer
    with torch.inference_mode():
        features = alone(model.wav2vec2, waveform, normalize=True).extract_features
        vectors = quantizer(features)[0][0].unflatten(-1, (quantizer.num_groups, -1))  # (frames, groups, dim)
    tables = quantizer.codevectors[0].unflatten(0, (quantizer.num_groups, quantizer.num_vars))
    same = (vectors[:, :, None] == tables[None]).all(dim=-1)  # (frames, groups, vars)
    assert (same.sum(dim=-1) == 1).all()
    codes: Rows = same.int().argmax(dim=-1).numpy()
    return codes


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_codes_are_the_choice_of_the_quantizer_itself_alone_and_in_a_batch(norm: str) -> None:
    model, waves = pretraining(norm), waveforms(HARD_MIX)
    encoder = speech_encoder(model.wav2vec2, quantizer=model.quantizer)
    assert [spec.name for spec in encoder.specs] == ["a", "a.codes"]
    for wave, batched in zip(waves, encoder.encode(waves), strict=True):
        expected = codes_by_hugging_face(model, wave)
        np.testing.assert_array_equal(encoder.encode([wave])[0][1], expected)
        np.testing.assert_array_equal(batched[1], expected)
    assert len(np.unique(encoder.encode(waves)[-1][1])) > 10


def test_codes_of_random_scores_give_the_vectors_of_the_quantizer() -> None:
    quantizer = pretraining("group").quantizer
    normed = torch.randn(3, 40, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        vectors = quantizer(normed)[0]
        codes = quantizer_codes(quantizer, normed)
    offsets = torch.arange(quantizer.num_groups) * quantizer.num_vars
    assert torch.equal(quantizer.codevectors[0][codes + offsets].flatten(start_dim=2), vectors)


def test_codes_do_not_depend_on_the_training_mode_that_the_model_came_in() -> None:
    model, waves = pretraining("group"), waveforms([8000])
    expected = speech_encoder(model.wav2vec2, quantizer=model.quantizer).encode(waves)[0]
    model.train()
    found = speech_encoder(model.wav2vec2, quantizer=model.quantizer).encode(waves)[0]
    for actual, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(actual, other)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_keeps_the_codes_and_float32_on_demand(precision: torch.dtype) -> None:
    model, waves = pretraining("group"), waveforms(HARD_MIX)
    full = speech_encoder(model.wav2vec2, "last", "1", quantizer=model.quantizer).encode(waves)
    half = speech_encoder(model.wav2vec2, "last", "1", quantizer=model.quantizer, precision=precision)
    for rows, exact, precise in zip(half.encode(waves), full, half.encode(waves, precise=True), strict=True):
        np.testing.assert_array_equal(rows[2], exact[2])
        assert 1e-5 < deviation(rows[0], exact[0])[0] < 0.05
        assert rows[0].dtype == rows[1].dtype == np.float32
        for actual, other in zip(precise, exact, strict=True):
            np.testing.assert_array_equal(actual, other)
