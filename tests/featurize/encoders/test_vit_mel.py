"""Exact batching of ViT over log-mel: the rows of any batch are those of Hugging Face's layers, one by one."""

from collections.abc import Sequence

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from featurize.encoders.acoustic import logmel80
from featurize.encoders.tiny import build_vit_mel_tiny
from featurize.extraction.parity import TOLERANCE, deviation, reference_mel
from tests.support.images import VIT_LAYERS, mel_encoder, vit_model
from tests.support.models import CHOICES, waveforms, worst

LONG = 16 * 16_000  # samples, longer than the positions
MIX = (1, 400, 2400, 2560, 16_000, 5000, 48_000)


def batch_deviation(lengths: Sequence[int], channels: int = 3, layers: str = "last") -> float:
    encoder, waves = mel_encoder(vit_model(channels), layers), waveforms(lengths)
    expected = [reference_mel(encoder, wave) for wave in waves]
    return worst([rows[0] for rows in encoder.encode(waves)], expected)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("lengths", [MIX, (8000, 8000), (1,), (LONG, 3000, LONG + 9000)])
def test_a_batch_gives_the_rows_of_one_by_one(lengths: Sequence[int], channels: int) -> None:
    assert batch_deviation(lengths, channels) <= TOLERANCE


@settings(max_examples=25)
@given(st.lists(st.integers(1, 20_000), min_size=1, max_size=5), st.sampled_from(["last", "0", "2", "all", "mean1-3"]))
def test_any_mix_of_lengths_and_any_layers_give_the_rows_of_one_by_one(lengths: list[int], layers: str) -> None:
    assert batch_deviation(lengths, layers=layers) <= TOLERANCE


def test_a_batch_without_a_mask_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featurize.encoders.vit_mel.valid_mask", lambda *_: None)
    assert batch_deviation(MIX) > 0.01


def test_the_first_row_is_cls_and_rows_follow_in_time() -> None:
    encoder = mel_encoder(vit_model(), "0")
    (wave,) = waveforms([32_000])
    mel = logmel80(wave)
    changed = wave.copy()
    changed[-1600:] *= 0.5  # the last tenth of a second; normalization moves all else by little
    before, after = (encoder.encode([waveform])[0][0] for waveform in (wave, changed))
    moved = np.abs(after - before).max(axis=1)
    assert len(before) == 1 + 5 * -(-len(mel) // 16)
    assert moved[0] == 0
    assert moved[-5:].min() > 3 * moved[1:-10].max()


def test_the_five_patches_of_a_column_are_its_bands_from_the_lowest_up() -> None:
    encoder = mel_encoder(vit_model(), "0")
    time = np.arange(16_000) / 16_000
    low, high = (np.sin(2 * np.pi * hertz * time).astype(np.float32) for hertz in (150, 5500))
    pixels = [encoder.encode([wave])[0][0][1 + 5 * 3 : 1 + 5 * 4] for wave in (low, high)]
    silent = encoder.encode([np.zeros(16_000, np.float32)])[0][0][1 + 5 * 3 : 1 + 5 * 4]
    loudest = [int(np.linalg.norm(patch - silent, axis=1).argmax()) for patch in pixels]
    assert loudest == [0, 4]


def test_one_pass_gives_every_choice_of_layers() -> None:
    encoder = mel_encoder(vit_model(), *CHOICES, "0", str(VIT_LAYERS))
    together = encoder.encode(waveforms(MIX))
    for stream, choice in enumerate([*CHOICES, "0", str(VIT_LAYERS)]):
        apart = mel_encoder(vit_model(), choice).encode(waveforms(MIX))
        for rows, single in zip(together, apart, strict=True):
            np.testing.assert_array_equal(rows[stream], single[0])
    assert [spec.name for spec in encoder.specs][:5] == ["a@1", "a@0,2", "a@all", "a@mean1-2", "a"]
    assert [spec.shape for spec in encoder.specs][:5] == [(32,), (2, 32), (VIT_LAYERS + 1, 32), (32,), (32,)]


@settings(max_examples=20)
@given(st.integers(1, 40_000) | st.sampled_from([LONG, 240_639, 240_640]))
def test_as_many_rows_as_planned(samples: int) -> None:
    encoder = mel_encoder(vit_model(), "last", "0,1")
    (planned,) = encoder.plan([samples])
    (rows,) = encoder.encode(waveforms([samples]))
    assert tuple(len(array) for array in rows) == planned.rows
    assert planned.cost == planned.rows[0]


def test_what_is_longer_than_the_positions_is_noted() -> None:
    short, fits, beyond = mel_encoder(vit_model()).plan([16_000, 15 * 16_000, 240_640])
    assert (short.note, fits.note, beyond.note) == ("", "", "longer than 15 s: positions interpolated")
    assert fits.rows == (1 + 5 * 94,)


def test_silence_gives_finite_rows() -> None:
    encoder = mel_encoder(build_vit_mel_tiny())
    waves = [np.zeros(8000, np.float32), *waveforms([12_000])]
    found = encoder.encode(waves)[0][0]
    assert np.isfinite(found).all()
    assert worst([found], [encoder.encode(waves[:1])[0][0]]) <= TOLERANCE


def test_rows_tell_what_was_said() -> None:
    encoder = mel_encoder(build_vit_mel_tiny())
    left, right = (rows[0] for rows in encoder.encode(waveforms([8000, 8000])))
    assert deviation(left[:1], right[:1])[0] > 0.01  # CLS
    assert deviation(left[1:], right[1:])[0] > 0.1


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_close_and_gives_float32_on_demand(precision: torch.dtype) -> None:
    waves = waveforms(MIX)
    full = mel_encoder(vit_model()).encode(waves)
    half = mel_encoder(vit_model(), precision=precision)
    for rows, exact, precise in zip(half.encode(waves), full, half.encode(waves, precise=True), strict=True):
        assert 1e-5 < deviation(rows[0], exact[0])[0] < 0.05
        assert rows[0].dtype == np.float32
        np.testing.assert_array_equal(precise[0], exact[0])


def test_one_pass_leaves_no_hook_behind() -> None:
    encoder = mel_encoder(build_vit_mel_tiny(), "all")
    encoder.encode(waveforms([500, 9000]))
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in encoder.model.layers)
