import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import soxr
from hypothesis import given, settings

from featurize.audio import RATE_HZ, Loaded, Recording, RecordingError, cut, load, probe, resampled_length

RATES_HZ = (8000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000)
Sound = npt.NDArray[np.float32]


def noise(samples: int, channels: int = 1, *, steps: int = 1 << 15) -> Sound:
    """Noise whose values 16-bit PCM holds exactly, ``(samples, channels)``."""
    values = np.random.default_rng(7).integers(-steps // 2, steps // 2, (samples, channels))
    return (values / steps).astype(np.float32)


def written(path: Path, sound: Sound, rate_hz: int = RATE_HZ, **how: Any) -> Path:
    soundfile.write(path, sound, rate_hz, **how)
    return path


def load_whole(path: Path) -> Loaded:
    return load(cut(probe(path), None, None))


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_any_rate_becomes_16_khz(tmp_path: Path, rate_hz: int) -> None:
    sound = noise(rate_hz // 4)
    path = written(tmp_path / "a.wav", sound, rate_hz)
    recording = probe(path)
    assert (recording.rate_hz, recording.samples, recording.duration_s) == (
        rate_hz,
        rate_hz // 4,
        (rate_hz // 4) / rate_hz,
    )
    expected = sound[:, 0] if rate_hz == RATE_HZ else soxr.resample(sound[:, 0], rate_hz, RATE_HZ, quality="HQ")
    loaded = load_whole(path)
    np.testing.assert_array_equal(loaded.waveform, expected)
    assert loaded.waveform.dtype == np.float32
    assert loaded.note == ""


def test_a_tone_keeps_its_frequency_when_resampled(tmp_path: Path) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000).astype(np.float32)[:, None]
    waveform = load_whole(written(tmp_path / "a.wav", tone, 48_000, subtype="FLOAT")).waveform
    assert int(np.abs(np.fft.rfft(waveform)).argmax()) == 440  # one second: bin k is k Hz


@pytest.mark.parametrize("channels", [2, 3, 6])
def test_channels_are_averaged(tmp_path: Path, channels: int) -> None:
    sound = noise(1000, channels)
    waveform = load_whole(written(tmp_path / "a.wav", sound)).waveform
    np.testing.assert_allclose(waveform, sound.astype(np.float64).mean(axis=1), atol=1e-7)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("a.wav", {"subtype": "PCM_24"}),
        ("a.wav", {"subtype": "PCM_32"}),
        ("a.wav", {"subtype": "FLOAT"}),
        ("a.wav", {"subtype": "DOUBLE"}),
        ("a.wav", {"format": "WAVEX"}),
        ("a.wav", {"format": "RF64"}),
        ("a.w64", {"subtype": "PCM_16"}),
        ("a.flac", {"subtype": "PCM_16"}),
        ("a.flac", {"subtype": "PCM_24"}),
        ("a.aiff", {}),
        ("a.au", {}),
        ("a.caf", {}),
    ],
    ids=str,
)
def test_lossless_formats_give_the_very_samples(tmp_path: Path, name: str, how: dict[str, Any]) -> None:
    sound = noise(3000, 2)
    path = written(tmp_path / name, sound, **how)
    assert probe(path).samples == 3000
    np.testing.assert_array_equal(load_whole(path).waveform, sound.mean(axis=1, dtype=np.float32))


def test_24_bits_are_not_cut_to_16(tmp_path: Path) -> None:
    sound = noise(1000, steps=1 << 23)
    waveform = load_whole(written(tmp_path / "a.wav", sound, subtype="PCM_24")).waveform
    np.testing.assert_array_equal(waveform, sound[:, 0])


def test_float_samples_beyond_one_are_kept(tmp_path: Path) -> None:
    sound = 4 * noise(1000)
    np.testing.assert_array_equal(load_whole(written(tmp_path / "a.wav", sound, subtype="FLOAT")).waveform, sound[:, 0])


@pytest.mark.parametrize("name", ["a.mp3", "a.flac", "a.txt", "a", "a.raw", "a.ogg"])
def test_a_wrong_extension_is_accepted(tmp_path: Path, name: str) -> None:
    sound = noise(3000)
    path = written(tmp_path / name, sound, format="WAV")
    np.testing.assert_array_equal(load_whole(path).waveform, sound[:, 0])


@pytest.mark.parametrize(
    ("name", "how"), [("a.mp3", {}), ("a.ogg", {}), ("a.opus", {"format": "OGG", "subtype": "OPUS"})]
)
def test_lossy_formats_are_counted_by_decoding(tmp_path: Path, name: str, how: dict[str, Any]) -> None:
    path = written(tmp_path / name, noise(48_000), 48_000, **how)
    with soundfile.SoundFile(path) as file:
        decoded = len(file.read())
    recording = probe(path)
    assert recording.samples == decoded
    assert not recording.seekable
    assert len(load_whole(path).waveform) == resampled_length(decoded, 48_000)


def mp3_announcing(path: Path, factor: float, more: int) -> tuple[int, int]:
    """Writes an MP3 with a wrong number of frames in its header; gives the samples announced and decoded."""
    data = bytearray(written(path, noise(22_050), 22_050).read_bytes())
    place = data.index(b"Xing") + 8  # the tag and its flags stand before the number
    frames = int(int.from_bytes(data[place : place + 4], "big") * factor) + more
    data[place : place + 4] = frames.to_bytes(4, "big")
    path.write_bytes(bytes(data))
    with soundfile.SoundFile(path) as file:
        return file.frames, len(file.read())


def test_the_header_of_an_mp3_is_not_trusted(tmp_path: Path) -> None:
    announced, decoded = mp3_announcing(tmp_path / "a.mp3", 1, more=1)
    assert announced > decoded
    assert probe(tmp_path / "a.mp3").samples == decoded
    assert len(load_whole(tmp_path / "a.mp3").waveform) == resampled_length(decoded, 22_050)


def test_an_mp3_that_announces_far_more_than_it_holds_is_truncated(tmp_path: Path) -> None:
    announced, decoded = mp3_announcing(tmp_path / "a.mp3", 2, more=0)
    with pytest.raises(RecordingError, match=f"^truncated: {decoded} of {announced} samples of sound$"):
        probe(tmp_path / "a.mp3")


def test_a_span_of_an_mp3_is_the_same_part_of_the_whole(tmp_path: Path) -> None:
    path = written(tmp_path / "a.mp3", noise(32_000))
    whole = load_whole(path).waveform
    part = load(cut(probe(path), 0.3, 1.1)).waveform
    np.testing.assert_array_equal(part, whole[4800:17_600])


def zero_bytes(path: Path) -> None:
    path.write_bytes(b"")


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_samples(path: Path) -> None:
    written(path, noise(0))


def prose(path: Path) -> None:
    path.write_text("This is a transcript, not a recording. " * 100)


def missing(path: Path) -> None:
    path.unlink()


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def header_alone(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:44])


@pytest.mark.parametrize(
    ("damage", "name", "reason"),
    [
        (missing, "a.wav", "^missing$"),
        (folder, "a.wav", "^not a file$"),
        (zero_bytes, "a.wav", "^empty: zero bytes$"),
        (zero_bytes, "a.mp3", "^empty: zero bytes$"),
        (header_alone, "a.wav", "^truncated: 0 of 64000 bytes of sound$"),
        (cut_in_half, "a.wav", r"^truncated: \d+ of 64000 bytes of sound$"),
        (cut_in_half, "a.flac", "^cannot be decoded: "),
        (cut_in_half, "a.mp3", r"^truncated: \d+ of \d+ samples of sound$"),
        (cut_in_half, "a.aiff", "truncated"),
        (cut_in_half, "a.au", "truncated"),
        (cut_in_half, "a.w64", "truncated"),
        (cut_in_half, "a.rf64", "truncated"),
        (cut_in_half, "a.caf", "^cannot be decoded: "),
        (cut_in_half, "a.ogg", "truncated|no samples|cannot be decoded"),
        (without_samples, "a.wav", "^no samples$"),
        (without_samples, "a.aiff", "^no samples$"),
        (prose, "a.wav", "^cannot be decoded: Format not recognised$"),
        (prose, "a.flac", "^cannot be decoded: "),
        (prose, "a.mp3", "^cannot be decoded: "),
        (prose, "a.raw", "^cannot be decoded: "),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_an_unusable_recording_fails_with_its_reason(
    tmp_path: Path, damage: Callable[[Path], None], name: str, reason: str
) -> None:
    how = {"a.rf64": "RF64", "a.raw": "WAV"}
    path = written(tmp_path / name, noise(32_000), format=how.get(name))
    damage(path)
    with pytest.raises(RecordingError, match=reason):
        load_whole(path)


def test_an_ogg_that_lost_its_last_page_is_truncated(tmp_path: Path) -> None:
    path = written(tmp_path / "a.opus", noise(96_000), 48_000, format="OGG", subtype="OPUS")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RecordingError, match="truncated"):
        load_whole(path)


def test_a_recording_that_shrinks_after_it_was_probed_fails_with_both_lengths(tmp_path: Path) -> None:
    path = written(tmp_path / "a.wav", noise(3000))
    span = cut(probe(path), None, None)
    written(path, noise(2000))
    with pytest.raises(RecordingError, match="2000 samples decoded, 3000 announced"):
        load(span)


def test_a_recording_that_vanishes_after_it_was_probed_fails(tmp_path: Path) -> None:
    path = written(tmp_path / "a.wav", noise(3000))
    span = cut(probe(path), None, None)
    path.unlink()
    with pytest.raises(RecordingError, match="cannot be"):
        load(span)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_recording_that_may_not_be_read_fails(tmp_path: Path) -> None:
    path = written(tmp_path / "a.wav", noise(3000))
    path.chmod(0)
    with pytest.raises(RecordingError, match="cannot be"):
        probe(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite_fail_with_their_number(tmp_path: Path, bad: float) -> None:
    sound = noise(1000, 2)
    sound[[3, 500], 1] = bad
    path = written(tmp_path / "a.wav", sound, subtype="FLOAT")
    with pytest.raises(RecordingError, match=r"^2 samples are NaN or infinite$"):
        load_whole(path)


def test_bad_samples_outside_the_span_do_no_harm(tmp_path: Path) -> None:
    sound = noise(16_000)
    sound[0] = np.nan
    path = written(tmp_path / "a.wav", sound, subtype="FLOAT")
    np.testing.assert_array_equal(load(cut(probe(path), 0.5, None)).waveform, sound[8000:, 0])


@pytest.mark.parametrize(
    ("start_s", "end_s", "told"),
    [(0.5, 1.01, "0.5 to 1.01 s"), (1.0, None, "1 s on"), (2.0, 3.0, "2 to 3 s"), (None, 1.1, "0 to 1.1 s")],
)
def test_a_span_outside_the_recording_fails(start_s: float | None, end_s: float | None, told: str) -> None:
    with pytest.raises(RecordingError, match=f"span {told} does not lie in the recording of 1.000 s"):
        cut(recording(16_000, 16_000), start_s, end_s)


def test_a_span_without_a_sample_at_16_khz_fails() -> None:
    with pytest.raises(RecordingError, match="only 1 samples at 48000 Hz"):
        cut(recording(48_000, 48_000), 0.0, 1 / 48_000)
    with pytest.raises(RecordingError, match="only 0 samples at 16000 Hz"):
        cut(recording(16_000, 16_000), 0.1, 0.100_01)


def recording(rate_hz: int, samples: int) -> Recording:
    return Recording(path=Path("a.wav"), rate_hz=rate_hz, samples=samples, seekable=True)


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


@settings(max_examples=15, deadline=None)
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


def test_silence_is_noted(tmp_path: Path) -> None:
    assert (
        load_whole(written(tmp_path / "a.wav", np.zeros((16_000, 2), np.float32))).note == "silent: every sample is 0"
    )
    faint = np.zeros((16_000, 1), np.float32)
    faint[5] = 1 / (1 << 15)
    assert load_whole(written(tmp_path / "b.wav", faint)).note == ""


def test_5_ms_are_noted_and_25_ms_are_not(tmp_path: Path) -> None:
    short = load_whole(written(tmp_path / "a.wav", noise(220), 44_000))
    assert short.note == "5 ms: zero-padded to 400 samples after normalization"
    assert len(short.waveform) == 80  # the encoder pads, since log-mel pads otherwise
    assert load_whole(written(tmp_path / "b.wav", noise(400))).note == ""
    assert "24.9375 ms" in load_whole(written(tmp_path / "c.wav", noise(399))).note


def test_both_notes_are_given(tmp_path: Path) -> None:
    note = load_whole(written(tmp_path / "a.wav", np.zeros((80, 1), np.float32))).note
    assert note == "silent: every sample is 0; 5 ms: zero-padded to 400 samples after normalization"


def test_the_digest_is_that_of_the_samples_and_not_of_the_file(tmp_path: Path) -> None:
    sound = noise(3000, 2)
    paths = [written(tmp_path / name, sound) for name in ("a.wav", "b.flac", "c.aiff")]
    paths.append(written(tmp_path / "d.wav", sound, subtype="PCM_24"))
    digests = {load_whole(path).digest for path in paths}
    assert len(digests) == 1
    assert len(digests.pop()) == 16


def test_the_digest_is_that_of_the_span(tmp_path: Path) -> None:
    sound = noise(16_000)
    whole = probe(written(tmp_path / "a.wav", sound))
    part = probe(written(tmp_path / "b.wav", sound[4000:8000]))
    assert load(cut(whole, 0.25, 0.5)).digest == load(cut(part, None, None)).digest
    assert load(cut(whole, 0.25, 0.5)).digest != load(cut(whole, 0.25, 0.6)).digest


@settings(deadline=None, max_examples=30)
@given(place=st.integers(0, 499), channel=st.integers(0, 1))
def test_the_digest_changes_with_any_sample(place: int, channel: int) -> None:
    sound = noise(500, 2)
    changed = sound.copy()
    changed[place, channel] += 1 / (1 << 15)
    with TemporaryDirectory() as folder_name:
        found = [load_whole(written(Path(folder_name) / "a.wav", one)).digest for one in (sound, changed)]
    assert found[0] != found[1]


def test_the_digest_changes_with_the_rate_and_the_channels(tmp_path: Path) -> None:
    sound = noise(3000)
    digests = [
        load_whole(written(tmp_path / "a.wav", sound, 16_000)).digest,
        load_whole(written(tmp_path / "b.wav", sound, 32_000)).digest,
        load_whole(written(tmp_path / "c.wav", np.repeat(sound, 2, axis=1))).digest,
        load_whole(written(tmp_path / "d.wav", sound.reshape(1500, 2))).digest,
    ]
    assert len(set(digests)) == 4
