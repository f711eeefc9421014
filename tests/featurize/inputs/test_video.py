import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurize.inputs.audio import RecordingError, cut, load, probe
from featurize.inputs.video import decode_video, is_video, measure_video
from tests.support.sounds import load_whole, noise, written
from tests.support.videos import write_video
from tests.support.voices import tone


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("planar.m4a", "alac"),
        ("short.mov", "pcm_s16le"),
        ("long.mov", "pcm_s24le"),
        ("float.mov", "pcm_f32le"),
        ("double.mov", "pcm_f64le"),
        ("packed.mp4", "flac"),
        ("matroska.mkv", "pcm_s16le"),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_lossless_sound_is_what_libsndfile_gives_of_the_same_wav(
    tmp_path: Path, name: str, codec: str, channels: int
) -> None:
    sound = noise(9000, channels)
    video = probe(write_video(tmp_path / name, sound, codec=codec))
    assert (video.rate_hz, video.samples, video.video) == (48_000, 9000, True)
    np.testing.assert_array_equal(decode_video(video.path, 0, 9000), sound)
    of_wav = load_whole(written(tmp_path / "a.wav", sound, 48_000))
    of_video = load(cut(video, None, None))
    np.testing.assert_array_equal(of_video.waveform, of_wav.waveform)
    assert of_video.digest == of_wav.digest


def test_eight_bits_are_unsigned(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mov", noise(3000, 2, steps=128), codec="pcm_u8")
    np.testing.assert_array_equal(decode_video(video, 0, 3000), noise(3000, 2, steps=128))


@pytest.mark.parametrize(("rate_hz", "channels"), [(48_000, 2), (48_000, 6), (44_100, 1), (16_000, 1)])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_an_aac_track_sounds_like_the_wav_it_is_made_of(tmp_path: Path, name: str, rate_hz: int, channels: int) -> None:
    sound = np.repeat(tone(0.5, rate_hz=rate_hz)[:, None], channels, axis=1)
    of_video = load_whole(write_video(tmp_path / name, sound, rate_hz)).waveform
    of_wav = load_whole(written(tmp_path / "a.wav", sound, rate_hz)).waveform
    assert 0 <= len(of_video) - len(of_wav) <= 1024  # the last block of the coder is filled up
    assert np.corrcoef(of_video[: len(of_wav)], of_wav)[0, 1] > 0.95  # in phase, so nothing is put before it


def test_the_length_is_counted_since_the_header_tells_another(tmp_path: Path) -> None:
    assert measure_video(write_video(tmp_path / "a.mp4", noise(16_008), 16_000)) == (16_000, 16_384)


def test_what_a_file_is_shows_in_its_first_bytes_not_in_its_name(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", noise(4096)).rename(tmp_path / "a.wav")
    wav = written(tmp_path / "b.wav", noise(4096)).rename(tmp_path / "b.mp4")
    assert probe(video).video
    assert not probe(wav).video
    assert not is_video(tmp_path / "none")


@given(st.integers(0, 9999), st.integers(1, 10_000))
def test_a_span_of_a_video_is_that_part_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, start: int, length: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "span.mp4"
    if not path.exists():
        write_video(path, noise(10_000, 2))
    whole = decode_video(path, 0, 1 << 20)
    np.testing.assert_array_equal(decode_video(path, start, start + length), whole[start : start + length])


def test_a_recording_is_cut_at_the_seconds_asked_for(tmp_path: Path) -> None:
    sound = noise(24_000, 2)
    video = load(cut(probe(write_video(tmp_path / "a.mov", sound, codec="pcm_s16le")), 0.1, 0.35))
    wav = load(cut(probe(written(tmp_path / "a.wav", sound, 48_000)), 0.1, 0.35))
    assert len(video.waveform) == 4000
    np.testing.assert_array_equal(video.waveform, wav.waveform)


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def last_byte(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def index_missing(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"moov") - 4])


def sound_overwritten(path: Path) -> None:
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 400
    content[start : start + 2000] = np.random.default_rng(1).bytes(2000)
    path.write_bytes(content)


def start_alone(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:12])


@pytest.mark.parametrize(
    ("damage", "video", "reason"),
    [
        (half, "a.mp4", r"^truncated: \d+ of \d+ bytes$"),
        (half, "a.mp4 faststart", r"^truncated: \d+ of \d+ bytes$"),
        (half, "a.mkv", r"^truncated: \d+ of \d+ bytes$"),
        (last_byte, "a.mp4 faststart", r"^truncated: \d+ of \d+ bytes$"),
        (last_byte, "a.mkv", r"^truncated: \d+ of \d+ bytes$"),
        (index_missing, "a.mp4", r"^cannot be decoded: no index \(moov\) found; the file was not written to its end$"),
        (start_alone, "a.mp4", r"^truncated: 12 of \d+ bytes$"),
        (start_alone, "a.mkv", "^cannot be decoded: "),
        (sound_overwritten, "a.mp4", "^cannot be decoded: Invalid data found when processing input$"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_broken_video_fails_in_one_line_and_in_silence(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    video: str,
    reason: str,
) -> None:
    name, _, index = video.partition(" ")
    path = write_video(tmp_path / name, noise(20_000, 2), index=index)
    damage(path)
    with pytest.raises(RecordingError, match=reason):
        probe(path)
    assert capfd.readouterr() == ("", "")


def test_a_silent_film_has_no_sound(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"^no sound in this video$"):
        probe(write_video(tmp_path / "a.mp4", None))


def test_what_is_appended_to_a_video_is_no_concern(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", noise(5000), codec="flac")
    path.write_bytes(path.read_bytes() + b"appended by somebody")
    np.testing.assert_array_equal(decode_video(path, 0, 5000), noise(5000))


def test_a_video_that_shrinks_after_it_was_probed_fails_with_both_lengths(tmp_path: Path) -> None:
    span = cut(probe(write_video(tmp_path / "a.mp4", noise(5000), codec="flac")), None, None)
    write_video(tmp_path / "a.mp4", noise(3000), codec="flac")
    with pytest.raises(RecordingError, match="3000 samples decoded, 5000 announced"):
        load(span)


def test_pyav_is_not_loaded_before_there_is_a_video() -> None:
    script = "import sys, featurize.inputs.audio; sys.exit('av' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
