"""Length is what decodes: headers that are wrong, silent about it, or of the first of several joined files."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr

from featurize.inputs.audio import RecordingError, cut, load, probe, resampled_length
from featurize.inputs.mpeg import parse_header
from tests.support.sounds import Sound, load_whole, noise, written
from tests.support.videos import write_sound

RATE_HZ = 22_050
SAMPLES = 33_000


def mp3(sound: Sound, *, header: bool, mode: str = "VARIABLE") -> bytes:
    """Encodes an MP3; without its first frame, which states the length, as streaming encoders leave it out."""
    file = io.BytesIO()
    with soundfile.SoundFile(
        file, "w", RATE_HZ, sound.shape[1], format="MP3", bitrate_mode=mode, compression_level=0.5
    ) as out:
        out.write(sound)
    data = file.getvalue()
    first = parse_header(int.from_bytes(data[:4], "big"))
    assert first is not None
    return data if header else data[first.size :]


def quiet_then_loud(*, loud_first: bool = False) -> Sound:
    halves = [np.zeros((SAMPLES // 2, 1), np.float32), noise(SAMPLES // 2)]
    return np.concatenate(halves[::-1] if loud_first else halves)


def frames_of(data: bytes) -> int:
    """Counts the frames of an MP3 without tags, one after the other."""
    position = count = 0
    while position < len(data):
        header = parse_header(int.from_bytes(data[position : position + 4], "big"))
        assert header is not None
        position += header.size
        count += 1
    return count


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("loud_first", [True, False])
@pytest.mark.parametrize("mode", ["VARIABLE", "CONSTANT"])
def test_an_mp3_without_a_header_has_as_many_samples_as_its_frames(
    tmp_path: Path, mode: str, loud_first: bool, channels: int
) -> None:
    data = mp3(np.repeat(quiet_then_loud(loud_first=loud_first), channels, 1), header=False, mode=mode)
    (tmp_path / "a.mp3").write_bytes(data)
    assert probe(tmp_path / "a.mp3").samples == frames_of(data) * 576
    assert len(load_whole(tmp_path / "a.mp3").waveform) == resampled_length(frames_of(data) * 576, RATE_HZ)
    assert load_whole(tmp_path / "a.mp3").note == ""


def test_the_samples_of_an_mp3_without_a_header_are_those_that_libsndfile_reads_of_it(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    path.write_bytes(mp3(noise(SAMPLES), header=False, mode="CONSTANT"))
    with soundfile.SoundFile(path) as file:
        expected = file.read(dtype="float32", always_2d=True)
    resampled = soxr.resample(expected[:, 0], RATE_HZ, 16_000, quality="HQ")
    np.testing.assert_array_equal(load_whole(path).waveform, resampled)


def tagged(data: bytes) -> bytes:
    """Puts 200 kB of cover art before an MP3, and a title behind it."""
    size = 200_000
    lengths = bytes([size >> 21 & 127, size >> 14 & 127, size >> 7 & 127, size & 127])
    return b"ID3\x03\0\0" + lengths + bytes(size) + data + b"TAG".ljust(128, b"x")


@pytest.mark.parametrize("header", [True, False])
def test_cover_art_is_no_sound(tmp_path: Path, header: bool) -> None:
    data = mp3(quiet_then_loud(), header=header)
    (tmp_path / "plain.mp3").write_bytes(data)
    (tmp_path / "art.mp3").write_bytes(tagged(data))
    assert probe(tmp_path / "art.mp3").samples == probe(tmp_path / "plain.mp3").samples
    assert load_whole(tmp_path / "art.mp3").digest == load_whole(tmp_path / "plain.mp3").digest


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("change", [bytes, tagged], ids=["joined", "joined with tags"])
def test_joined_mp3s_are_read_to_the_end(tmp_path: Path, header: bool, change: Callable[[bytes], bytes]) -> None:
    data = mp3(noise(SAMPLES), header=header)
    frames = frames_of(data) - header
    (tmp_path / "a.mp3").write_bytes(change(data) + change(data))
    assert probe(tmp_path / "a.mp3").samples == 2 * frames * 576
    note = f"{frames} frames of sound behind the {frames} that its header states are read as well" if header else ""
    assert load_whole(tmp_path / "a.mp3").note == note


def xing(data: bytes, *, frames: float = 1, size: float = 1) -> bytes:
    """Multiplies the frames and the bytes that an MP3 states."""
    changed = bytearray(data)
    for offset, factor in ((8, frames), (12, size)):
        place = slice(data.index(b"Xing") + offset, data.index(b"Xing") + offset + 4)
        changed[place] = int(int.from_bytes(changed[place], "big") * factor).to_bytes(4, "big")
    return bytes(changed)


def test_an_mp3_whose_header_states_fewer_frames_is_read_to_the_end_with_a_note(tmp_path: Path) -> None:
    data = mp3(noise(SAMPLES), header=True)
    (tmp_path / "a.mp3").write_bytes(xing(data, frames=0.5))
    assert probe(tmp_path / "a.mp3").samples == (frames_of(data) - 1) * 576
    assert "behind the" in load_whole(tmp_path / "a.mp3").note


def test_an_mp3_that_is_whole_by_its_bytes_is_not_called_truncated(tmp_path: Path) -> None:
    data = mp3(noise(SAMPLES), header=True)
    (tmp_path / "a.mp3").write_bytes(xing(data, frames=2))
    frames = frames_of(data) - 1
    assert probe(tmp_path / "a.mp3").samples == frames * 576
    assert load_whole(tmp_path / "a.mp3").note == f"its header states {2 * frames} frames, {frames} are there"


def test_a_vbri_header_is_read(tmp_path: Path) -> None:
    data = mp3(noise(SAMPLES), header=False, mode="CONSTANT")
    frames = frames_of(data)
    first = parse_header(int.from_bytes(data[:4], "big"))
    assert first is not None
    vbri = b"VBRI" + bytes(6) + len(data).to_bytes(4, "big") + (2 * frames).to_bytes(4, "big")
    head = (data[:4] + bytes(32) + vbri).ljust(first.size, b"\0")
    (tmp_path / "a.mp3").write_bytes(head + data)
    assert abs(probe(tmp_path / "a.mp3").samples - frames * 576) <= 576
    (tmp_path / "cut.mp3").write_bytes((head + data)[: len(data) // 2])
    with pytest.raises(RecordingError, match=r"^truncated: \d+ of \d+ bytes of sound$"):
        probe(tmp_path / "cut.mp3")


def flac(path: Path, sound: Sound, *, total: int | None = None, rate_hz: int = 16_000) -> Path:
    """Writes a FLAC that states another number of samples; 0 for none."""
    data = bytearray(written(path, sound, rate_hz).read_bytes())
    if total is not None:
        data[21:26] = ((data[21] & 0xF0) << 32 | total).to_bytes(5, "big")
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("total", [0, 8000, 15_999])
def test_a_flac_is_read_to_its_last_frame_whatever_its_header_states(tmp_path: Path, total: int) -> None:
    sound = noise(16_000, 2)
    loaded = load_whole(flac(tmp_path / "a.flac", sound, total=total))
    np.testing.assert_array_equal(loaded.waveform, sound.mean(axis=1, dtype=np.float32))
    more = f"{16_000 - total} samples of sound behind the {total} that its header states are read as well"
    assert loaded.note == (more if total else "")
    assert probe(tmp_path / "a.flac").seekable


@pytest.mark.parametrize("total", [16_001, 64_000, (1 << 36) - 1])
def test_a_flac_that_states_more_is_truncated(tmp_path: Path, total: int) -> None:
    with pytest.raises(RecordingError, match=f"^truncated: 16000 of {total} samples of sound$"):
        probe(flac(tmp_path / "a.flac", noise(16_000), total=total))


def test_a_flac_of_unknown_length_that_is_cut_gives_its_whole_frames_with_a_note(tmp_path: Path) -> None:
    path = flac(tmp_path / "a.flac", noise(16_000), total=0)
    path.write_bytes(path.read_bytes()[:-100])
    loaded = load_whole(path)
    assert 0 < len(loaded.waveform) < 16_000
    np.testing.assert_array_equal(loaded.waveform, noise(16_000)[: len(loaded.waveform), 0])
    assert loaded.note == "its header states no length, and its last frame is cut"


def joined(folder: Path, name: str, first: Sound, second: Sound, **how: Any) -> Path:
    parts = [written(folder / f"{number}{name}", sound, **how) for number, sound in enumerate((first, second))]
    path = folder / name
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


@pytest.mark.parametrize("lengths", [(9000, 5000), (5000, 9000), (9000, 9000)])
@pytest.mark.parametrize(
    ("name", "how"),
    [("a.flac", {}), ("a.ogg", {}), ("a.opus", {"format": "OGG", "subtype": "OPUS"})],
    ids=["flac", "vorbis", "opus"],
)
def test_joined_streams_are_all_read(tmp_path: Path, name: str, how: dict[str, str], lengths: tuple[int, int]) -> None:
    first, second = (noise(length, 2) for length in lengths)
    path = joined(tmp_path, name, first, second, **how)
    loaded = load_whole(path)
    parts = [load_whole(tmp_path / f"{number}{name}").waveform for number in range(2)]
    np.testing.assert_array_equal(loaded.waveform, np.concatenate(parts))
    assert "2 " in loaded.note
    assert "streams joined: all are read" in loaded.note
    middle = load(cut(probe(path), 0.2, 0.7)).waveform
    np.testing.assert_array_equal(middle, loaded.waveform[3200:11_200])


def test_joined_streams_of_other_rates_fail(tmp_path: Path) -> None:
    first = written(tmp_path / "a.ogg", noise(9000)).read_bytes()
    second = written(tmp_path / "b.ogg", noise(9000), 22_050).read_bytes()
    (tmp_path / "c.ogg").write_bytes(first + second)
    with pytest.raises(RecordingError, match=r"^changes from 1 channels at 16000 Hz to 1 at 22050 Hz$"):
        probe(tmp_path / "c.ogg")


def test_a_lost_page_of_an_ogg_is_noted(tmp_path: Path) -> None:
    data = written(tmp_path / "a.ogg", noise(160_000)).read_bytes()
    pages = data.split(b"OggS")[1:]
    assert len(pages) > 6
    (tmp_path / "a.ogg").write_bytes(b"".join(b"OggS" + page for page in [*pages[:4], *pages[5:]]))
    assert "1 pages of its sound are missing" in load_whole(tmp_path / "a.ogg").note


def wav(path: Path, *, data_size: int, riff_size: int | None = None, kind: str = "WAV") -> Path:
    content = bytearray(written(path, noise(4000), format=kind).read_bytes())
    place = content.index(b"data") + 4
    content[place : place + 4] = data_size.to_bytes(4, "little")
    if riff_size is not None:
        content[4:8] = riff_size.to_bytes(4, "little")
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("riff_size", [None, 0, 36, 0xFFFFFFFF])
@pytest.mark.parametrize("data_size", [0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 8000])
def test_a_wav_of_a_pipe_is_read_to_the_end(tmp_path: Path, data_size: int, riff_size: int | None) -> None:
    loaded = load_whole(wav(tmp_path / "a.wav", data_size=data_size, riff_size=riff_size))
    np.testing.assert_array_equal(loaded.waveform, noise(4000)[:, 0])
    assert loaded.note == ("" if data_size else "its header states no length: read to the end")


def test_an_empty_wav_with_chunks_behind_is_empty(tmp_path: Path) -> None:
    path = written(tmp_path / "a.wav", noise(0))
    path.write_bytes(path.read_bytes() + b"LIST\x04\0\0\0INFO")
    with pytest.raises(RecordingError, match=r"^no samples$"):
        probe(path)


@pytest.mark.parametrize(("name", "place"), [("a.aiff", b"SSND"), ("a.au", b".snd")])
def test_a_size_of_zero_with_sound_behind_is_read_to_the_end(tmp_path: Path, name: str, place: bytes) -> None:
    data = bytearray(written(tmp_path / name, noise(4000)).read_bytes())
    offset = data.index(place) + (4 if name == "a.aiff" else 8)
    data[offset : offset + 4] = bytes(4)
    (tmp_path / name).write_bytes(data)
    np.testing.assert_array_equal(load_whole(tmp_path / name).waveform, noise(4000)[:, 0])


@pytest.mark.parametrize("behind", [b"LIST\x04\0\0\0INFO", b"TAG".ljust(128, b"x"), bytes(700), b"\0"])
def test_what_is_no_sound_behind_a_wav_is_not_noted(tmp_path: Path, behind: bytes) -> None:
    path = written(tmp_path / "a.wav", noise(4000))
    path.write_bytes(path.read_bytes() + behind)
    assert load_whole(path).note == ""


def test_more_sound_behind_a_wav_is_noted(tmp_path: Path) -> None:
    shorter = wav(tmp_path / "a.wav", data_size=3000)
    assert load_whole(shorter).note == "5000 bytes behind the sound that its header states are not read"
    twice = written(tmp_path / "b.wav", noise(4000))
    twice.write_bytes(twice.read_bytes() * 2)
    assert load_whole(twice).note == "8044 bytes behind the sound that its header states are not read"


FORMATS = {
    "a.wav": {},
    "wavex.wav": {"format": "WAVEX"},
    "a.rf64": {"format": "RF64"},
    "a.w64": {},
    "a.aiff": {},
    "a.au": {},
    "a.caf": {},
    "a.nist": {"format": "NIST"},
    "a.voc": {"format": "VOC", "subtype": "PCM_U8"},
    "a.avr": {},
    "a.svx": {},
    "a.wve": {"subtype": "ALAW"},
    "a.mpc": {"format": "MPC2K"},
    "a.mat4": {"format": "MAT4", "subtype": "PCM_16"},
    "a.flac": {},
    "a.ogg": {},
    "a.opus": {"format": "OGG", "subtype": "OPUS"},
    "a.mp3": {},
}


@pytest.mark.parametrize("lost", [2, 40, 0.1, 0.5])
@pytest.mark.parametrize("name", FORMATS)
def test_a_cut_is_noticed_in_every_format_that_states_a_size(tmp_path: Path, name: str, lost: float) -> None:
    rate_hz = 8000 if name == "a.wve" else 16_000
    path = written(tmp_path / name, noise(8000), rate_hz, **FORMATS[name])
    whole = path.read_bytes()
    assert load_whole(path).note == ""
    path.write_bytes(whole[: -int(lost if lost >= 1 else lost * len(whole))])
    with pytest.raises(RecordingError, match=r"^truncated: "):
        probe(path)


OTHERS = [("a.wma", "wmav2"), ("a.wv", "wavpack"), ("a.tta", "tta"), ("a.aac", "aac"), ("a.avi", "pcm_s16le")]


@pytest.mark.parametrize(("name", "codec"), OTHERS)
def test_pyav_decodes_what_libsndfile_cannot(tmp_path: Path, name: str, codec: str) -> None:
    sound = noise(16_000)
    loaded = load_whole(write_sound(tmp_path / name, sound, 16_000, codec=codec))
    assert abs(len(loaded.waveform) - 16_000) <= 4096  # blocks of lossy coders
    if codec in {"wavpack", "tta", "pcm_s16le"}:
        np.testing.assert_array_equal(loaded.waveform, sound[:, 0])


@pytest.mark.parametrize(("name", "codec"), [row for row in OTHERS if row[0] != "a.aac"])
def test_a_cut_is_noticed_in_other_formats(tmp_path: Path, name: str, codec: str) -> None:
    path = write_sound(tmp_path / name, noise(16_000), 16_000, codec=codec)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(RecordingError, match=r"truncated|cannot be decoded"):
        probe(path)


def test_amr_is_decoded(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.amr", noise(8000), 8000, codec="libopencore_amrnb")
    assert len(load_whole(path).waveform) == pytest.approx(16_000, abs=640)
