from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr

from featurize.inputs.audio import RATE_HZ, probe, resampled_length
from tests.support.sounds import RATES_HZ, load_whole, noise, written


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
    offset = data.index(b"Xing") + 8  # the tag and its flags stand before the number
    frames = int(int.from_bytes(data[offset : offset + 4], "big") * factor) + more
    data[offset : offset + 4] = frames.to_bytes(4, "big")
    path.write_bytes(bytes(data))
    with soundfile.SoundFile(path) as file:
        return file.frames, len(file.read())


def test_the_header_of_an_mp3_is_not_trusted(tmp_path: Path) -> None:
    announced, decoded = mp3_announcing(tmp_path / "a.mp3", 1, more=1)
    assert announced > decoded
    assert probe(tmp_path / "a.mp3").samples == decoded
    assert len(load_whole(tmp_path / "a.mp3").waveform) == resampled_length(decoded, 22_050)
