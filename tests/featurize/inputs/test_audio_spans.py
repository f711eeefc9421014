from pathlib import Path
from tempfile import TemporaryDirectory

import hypothesis.strategies as st
import numpy as np
import pytest
import soxr
from hypothesis import given, settings

from featurize.inputs.audio import RATE_HZ, Recording, RecordingError, cut, load, probe, resampled_length
from tests.support.sounds import RATES_HZ, load_whole, noise, written


def recording(rate_hz: int, samples: int) -> Recording:
    return Recording(path=Path("a.wav"), rate_hz=rate_hz, samples=samples, seekable=True)


def test_bad_samples_outside_the_span_do_no_harm(tmp_path: Path) -> None:
    sound = noise(16_000)
    sound[0] = np.nan
    path = written(tmp_path / "a.wav", sound, subtype="FLOAT")
    np.testing.assert_array_equal(load(cut(probe(path), 0.5, None)).waveform, sound[8000:, 0])


@pytest.mark.parametrize(
    ("start_s", "end_s", "seconds"),
    [(0.5, 1.01, "0.5 to 1.01 s"), (1.0, None, "1 s on"), (2.0, 3.0, "2 to 3 s"), (None, 1.1, "0 to 1.1 s")],
)
def test_a_span_outside_the_recording_fails(start_s: float | None, end_s: float | None, seconds: str) -> None:
    with pytest.raises(RecordingError, match=f"span {seconds} does not lie in the recording of 1.000 s"):
        cut(recording(16_000, 16_000), start_s, end_s)


@pytest.mark.parametrize(("rate_hz", "over"), [(16_000, 1), (16_000, 80), (44_100, 220)])
def test_a_span_that_ends_a_few_samples_behind_the_recording_is_clipped_with_a_note(rate_hz: int, over: int) -> None:
    span = cut(recording(rate_hz, rate_hz), 0.5, 1 + over / rate_hz)
    assert (span.start, span.stop) == (rate_hz // 2, rate_hz)
    assert span.note == f"span ends {over} samples behind the recording: clipped"
    assert cut(recording(rate_hz, rate_hz), 0.5, 1).note == ""
    with pytest.raises(RecordingError, match="does not lie in the recording"):
        cut(recording(rate_hz, rate_hz), 0.5, 1.0055)


def test_the_note_of_a_clipped_span_stays_with_its_sound(tmp_path: Path) -> None:
    loaded = load(cut(probe(written(tmp_path / "a.wav", noise(16_000))), 0.5, 1.002))
    np.testing.assert_array_equal(loaded.waveform, noise(16_000)[8000:, 0])
    assert loaded.note == "span ends 32 samples behind the recording: clipped"


def test_an_utterance_of_days_fails_and_its_spans_do_not() -> None:
    endless = recording(16_000, 1 << 36)
    with pytest.raises(RecordingError, match=r"^1193 hours in one utterance; cut it into spans of at most 24$"):
        cut(endless, None, None)
    assert cut(endless, 1e6, 1e6 + 2).samples == 32_000


def test_a_span_without_a_sample_at_16_khz_fails() -> None:
    with pytest.raises(RecordingError, match="only 1 samples at 48000 Hz"):
        cut(recording(48_000, 48_000), 0.0, 1 / 48_000)
    with pytest.raises(RecordingError, match="only 0 samples at 16000 Hz"):
        cut(recording(16_000, 16_000), 0.1, 0.100_01)


@given(
    rate_hz=st.sampled_from(RATES_HZ) | st.integers(4000, 200_000),
    samples=st.integers(1, 300) | st.integers(1, 30_000),
)
def test_the_resampled_length_is_that_of_soxr(rate_hz: int, samples: int) -> None:
    found = soxr.resample(np.zeros(samples, np.float32), rate_hz, RATE_HZ, quality="HQ")
    assert resampled_length(samples, rate_hz) == (samples if rate_hz == RATE_HZ else len(found))


@given(start=st.integers(0, 999_999), samples=st.integers(10, 1_000_000), rate_hz=st.sampled_from(RATES_HZ))
def test_a_span_given_in_whole_samples_is_cut_at_those_samples(start: int, samples: int, rate_hz: int) -> None:
    span = cut(recording(rate_hz, 2_000_000), start / rate_hz, (start + samples) / rate_hz)
    assert (span.start, span.stop) == (start, start + samples)
    assert span.samples == resampled_length(samples, rate_hz)
    assert span.duration_s == samples / rate_hz


@given(st.integers(0, 10_000), st.integers(1, 10_000))
def test_half_a_sample_is_rounded_up(start: int, samples: int) -> None:
    rate_hz = 1 << 14  # makes halves of a sample exact in binary
    span = cut(recording(rate_hz, 100_000), (start + 0.5) / rate_hz, (start + 0.5 + samples) / rate_hz)
    assert (span.start, span.stop) == (start + 1, start + 1 + samples)


def test_a_span_is_cut_before_it_is_resampled(tmp_path: Path) -> None:
    sound = noise(44_100)
    path = written(tmp_path / "a.flac", sound, 44_100)
    loaded = load(cut(probe(path), 0.25, 0.75))
    expected = soxr.resample(sound[11_025:33_075, 0], 44_100, RATE_HZ, quality="HQ")
    np.testing.assert_array_equal(loaded.waveform, expected)


@settings(max_examples=15)
@given(
    rate_hz=st.sampled_from(RATES_HZ),
    samples=st.integers(10, 4000),
    channels=st.integers(1, 2),
    extension=st.sampled_from(["wav", "flac"]),
    data=st.data(),
)
def test_a_loaded_span_has_the_planned_length(
    rate_hz: int, samples: int, channels: int, extension: str, data: st.DataObject
) -> None:
    with TemporaryDirectory() as folder_name:
        path = written(Path(folder_name) / f"a.{extension}", noise(samples, channels), rate_hz)
        start = data.draw(st.integers(0, samples - 10))
        stop = data.draw(st.integers(start + 10, samples))
        span = cut(probe(path), start / rate_hz, stop / rate_hz)
        if span.samples:
            assert load(span).waveform.shape == (span.samples,)


def test_a_span_of_an_mp3_is_the_same_part_of_the_whole(tmp_path: Path) -> None:
    path = written(tmp_path / "a.mp3", noise(32_000))
    whole = load_whole(path).waveform
    part = load(cut(probe(path), 0.3, 1.1)).waveform
    np.testing.assert_array_equal(part, whole[4800:17_600])
