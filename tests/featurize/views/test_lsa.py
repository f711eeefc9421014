"""LSA: numbers of a signal whose noise is known, and the encoder around it."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.signal
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from featurize.encoders.catalog import parse_requests
from featurize.encoders.load import load_encoders
from featurize.encoders.options import EncodingOptions
from featurize.views.lsa import HOP, WINDOW, LsaView, noise_gain, suppress_noise

RATE_HZ = 16_000
Signal = npt.NDArray[np.float32]


def tone_between_silences() -> Signal:
    times = np.arange(2 * RATE_HZ) / RATE_HZ
    return np.where((times > 0.8) & (times < 1.3), 0.3 * np.sin(2 * np.pi * 440 * times), 0).astype(np.float32)


def white_noise(level: float = 0.05, seed: int = 0) -> Signal:
    return (level * np.random.default_rng(seed).standard_normal(2 * RATE_HZ)).astype(np.float32)


def decibels(ratio: float) -> float:
    return 10 * float(np.log10(ratio))


def power(x: Signal) -> float:
    return float(np.square(x, dtype=np.float64).mean())


def beside_the_tone(x: Signal) -> float:
    """Power while the tone sounds, at frequencies away from it, by scipy's own transform."""
    frequencies, _, spectrum = scipy.signal.stft(x[int(0.85 * RATE_HZ) : int(1.25 * RATE_HZ)], RATE_HZ, nperseg=1024)
    return float(np.square(np.abs(spectrum[frequencies > 1000])).mean())


@pytest.mark.parametrize("seed", range(3))
def test_white_noise_under_a_tone_loses_at_least_3_db(seed: int) -> None:
    noisy = tone_between_silences() + white_noise(seed=seed)
    cleaned = suppress_noise(noisy)
    assert decibels(power(noisy[: RATE_HZ // 2]) / power(cleaned[: RATE_HZ // 2])) > 3
    assert decibels(beside_the_tone(noisy) / beside_the_tone(cleaned)) > 3


@pytest.mark.parametrize("seed", range(3))
def test_t001_7_the_tone_stands_out_more_and_nothing_is_longer(seed: int) -> None:
    tone = tone_between_silences()
    noisy = tone + white_noise(seed=seed)
    cleaned = suppress_noise(noisy)
    assert len(cleaned) == len(noisy)
    assert decibels(power(tone) / power(cleaned - tone)) > decibels(power(tone) / power(noisy - tone)) + 3


def test_a_clean_tone_between_silences_changes_by_at_most_a_thousandth() -> None:
    tone = tone_between_silences()
    assert float(np.abs(suppress_noise(tone) - tone).max()) <= 1e-3


@given(
    arrays.arrays(
        np.float32, st.tuples(st.integers(1, 20), st.integers(1, 30)), elements=st.floats(0, 2.0**40, width=32)
    )
)
def test_the_gain_lies_between_a_tenth_and_one(values: Signal) -> None:
    gain = noise_gain(torch.from_numpy(values), (values.shape[1] - 1) * HOP)
    assert gain.shape == values.shape
    assert float(gain.min()) >= 0.1 - 1e-7
    assert float(gain.max()) <= 1


def test_the_gain_is_the_printed_formula_over_the_quietest_tenth() -> None:
    random = np.random.default_rng(3)
    values = random.exponential(size=(5, 43)).astype(np.float32)
    samples = 42 * HOP + 7
    whole = [t for t in range(43) if t * HOP >= WINDOW // 2 and t * HOP + WINDOW // 2 <= samples]
    quiet = sorted(whole, key=lambda t: float(values[:, t].sum()))[: round(len(whole) / 10)]
    noise = values[:, quiet].mean(axis=1, keepdims=True)
    expected = np.sqrt(np.maximum(0.1**2, 1 - 1.5 * noise / values))
    np.testing.assert_allclose(noise_gain(torch.from_numpy(values), samples).numpy(), expected, rtol=1e-5)


@given(st.integers(1, 2000))
def test_the_length_and_the_loudness_scale_stay(samples: int) -> None:
    noise = white_noise()[:samples]
    cleaned = suppress_noise(noise)
    assert cleaned.shape == noise.shape
    assert cleaned.dtype == np.float32
    np.testing.assert_allclose(suppress_noise(8 * noise), 8 * cleaned, atol=1e-5)


def test_silence_stays_silent() -> None:
    assert not suppress_noise(np.zeros(1000, dtype=np.float32)).any()


def test_the_phase_of_the_spectrum_stays() -> None:
    noisy = tone_between_silences() + white_noise()
    window = torch.hann_window(WINDOW)
    before = torch.stft(torch.from_numpy(noisy), WINDOW, HOP, window=window, pad_mode="constant", return_complex=True)
    gain = noise_gain(before.abs().square(), len(noisy))
    torch.testing.assert_close((before * gain).angle(), before.angle(), atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def speech() -> Any:
    options = EncodingOptions(device=torch.device("cpu"), dtype="float32")
    return load_encoders(parse_requests(["wav2vec2-tiny", "wav2vec2-tiny@2"]), options).speech[0]


def test_the_view_of_an_encoder_is_that_of_the_denoised_waveform(speech: Any) -> None:
    view, waves = LsaView(speech), [white_noise()[:9000], tone_between_silences()[:14_000]]
    found = view.encode(waves)
    for rows, wave in zip(found, waves, strict=True):
        *vectors, _ = speech.encode([suppress_noise(wave)])[0]
        assert len(rows) == len(vectors) == 2  # no codes
        for one, other in zip(rows, vectors, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)
    planned = view.plan([len(wave) for wave in waves])
    assert [plan.rows for plan in planned] == [(len(rows[0]),) * 2 for rows in found]


def test_the_key_records_the_view_with_all_its_parameters(speech: Any) -> None:
    view = LsaView(speech)
    assert [spec.name for spec in view.specs] == ["wav2vec2-tiny~lsa", "wav2vec2-tiny@2~lsa"]
    for spec, original in zip(view.specs, speech.specs, strict=False):
        assert (spec.view, spec.encoder, spec.role) == ("lsa", original.encoder, "audio")
        added = {name: spec.preprocessing[name] for name in spec.preprocessing.keys() - original.preprocessing.keys()}
        assert added == {
            "view": "lsa",
            "view.window": "hann 400",
            "view.hop": 160,
            "view.quietest": 0.1,
            "view.oversubtraction": 1.5,
            "view.floor": 0.1,
        }
        assert spec.key != original.key
