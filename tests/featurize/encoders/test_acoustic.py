from collections.abc import Mapping
from typing import Any

import hypothesis.strategies as st
import librosa
import numpy as np
import pytest
from hypothesis import given, settings

from featurize.encoders.acoustic import AcousticEncoder, logmel80, mfcc39
from featurize.encoders.base import Waveform

WINDOWS: Mapping[str, Any] = {"sr": 16_000, "n_fft": 512, "win_length": 400, "hop_length": 160}  # 25 ms every 10 ms
DIMS = {"logmel80": 80, "mfcc39": 39}


def encoder_of(source: str) -> AcousticEncoder:
    return AcousticEncoder(name="a", source=source, dtype="float16", versions={}, limits={})


def speech(samples: int, seed: int = 0) -> Waveform:
    random = np.random.default_rng(seed)
    tone = np.sin(2 * np.pi * 300 * np.arange(samples) / 16_000)
    return (0.1 * tone + 0.01 * random.standard_normal(samples)).astype(np.float32)


def test_logmel_is_that_of_librosa_normalized_over_the_utterance() -> None:
    wave = speech(12_345)
    decibels = librosa.power_to_db(librosa.feature.melspectrogram(y=wave, n_mels=80, **WINDOWS), top_db=None).T
    expected = (decibels - decibels.mean()) / decibels.std()
    found = logmel80(wave)
    assert found.dtype == np.float32
    assert found.shape == (1 + 12_345 // 160, 80)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_mfcc_are_those_of_librosa_with_two_differences() -> None:
    wave = speech(12_345)
    static = librosa.feature.mfcc(y=wave, n_mfcc=13, **WINDOWS)
    first, second = (librosa.feature.delta(static, order=order, mode="nearest") for order in (1, 2))
    found = mfcc39(wave)
    assert found.dtype == np.float32
    assert found.shape == (1 + 12_345 // 160, 39)
    np.testing.assert_allclose(found, np.concatenate([static, first, second]).T, atol=1e-4)


def test_the_differences_of_a_ramp_are_its_slope() -> None:
    loud = speech(16_000) * np.linspace(0.1, 1, 16_000, dtype=np.float32)
    found = mfcc39(loud)
    assert found[20:80, 13].mean() == pytest.approx((found[80, 0] - found[20, 0]) / 60, rel=0.2)


@settings(max_examples=20)
@given(samples=st.integers(400, 20_000), seed=st.integers(0, 9))  # a few samples may all lie below the floor
def test_logmel_of_an_utterance_has_zero_mean_and_unit_variance(samples: int, seed: int) -> None:
    found = logmel80_of(speech(samples, seed))
    assert found.mean(dtype=np.float64) == pytest.approx(0, abs=1e-4)
    assert found.std(dtype=np.float64) == pytest.approx(1, abs=1e-3)


def logmel80_of(wave: Waveform) -> Waveform:
    rows: Waveform = encoder_of("logmel80").encode([wave])[0][0]
    return rows


def test_logmel_drops_the_level_and_mfcc_keeps_it() -> None:
    wave = speech(8000)
    np.testing.assert_allclose(logmel80(4 * wave), logmel80(wave), atol=1e-3)
    assert np.abs(mfcc39(4 * wave)[:, 0] - mfcc39(wave)[:, 0]).min() > 10


@pytest.mark.parametrize("source", DIMS)
@settings(max_examples=25)
@given(samples=st.integers(1, 2000) | st.integers(1, 60_000))
def test_any_length_gives_as_many_rows_as_planned(source: str, samples: int) -> None:
    check_rows(source, samples)


@pytest.mark.parametrize("source", DIMS)
@pytest.mark.parametrize("samples", [1, 80, 159, 160, 399, 400, 511, 512, 513, 640, 16_000])
def test_short_utterances_give_as_many_rows_as_planned(source: str, samples: int) -> None:
    check_rows(source, samples)


def check_rows(source: str, samples: int) -> None:
    encoder = encoder_of(source)
    (planned,) = encoder.plan([samples])
    ((rows,),) = encoder.encode([speech(samples)])
    assert rows.shape == (*planned.rows, DIMS[source])
    assert planned.cost == len(rows)
    assert np.isfinite(rows).all()
    assert len(rows) == 1 + max(samples, 512) // 160


@pytest.mark.parametrize("source", DIMS)
@pytest.mark.parametrize("samples", [1, 80, 8000])
def test_silence_gives_finite_rows(source: str, samples: int) -> None:
    ((rows,),) = encoder_of(source).encode([np.zeros(samples, np.float32)])
    assert np.isfinite(rows).all()


@pytest.mark.parametrize("source", DIMS)
def test_a_batch_gives_what_each_utterance_gives_alone(source: str) -> None:
    waves = [speech(samples) for samples in (80, 16_000, 700)]
    encoder = encoder_of(source)
    for wave, (rows,) in zip(waves, encoder.encode(waves), strict=True):
        np.testing.assert_array_equal(rows, encoder.encode([wave])[0][0])


@pytest.mark.parametrize(("source", "role"), [("logmel80", "mel"), ("mfcc39", "audio")])
def test_the_spec_says_what_is_stored(source: str, role: str) -> None:
    (spec,) = encoder_of(source).specs
    assert (spec.role, spec.shape, spec.rate_hz, spec.dtype) == (role, (DIMS[source],), 100.0, "float16")
