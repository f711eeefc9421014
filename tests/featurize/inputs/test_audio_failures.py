import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from featurize.inputs.audio import RecordingError, cut, load, probe
from tests.support.sounds import load_whole, noise, written


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
        (missing, "a.wav", r"^missing: not found \(tried .*a.wav\)$"),
        (folder, "a.wav", "^not a file: a folder$"),
        (zero_bytes, "a.wav", "^empty: zero bytes$"),
        (zero_bytes, "a.mp3", "^empty: zero bytes$"),
        (header_alone, "a.wav", "^truncated: 0 of 64000 bytes of sound$"),
        (cut_in_half, "a.wav", r"^truncated: \d+ of 64000 bytes of sound$"),
        (cut_in_half, "a.flac", r"^truncated: \d+ of 32000 samples of sound$"),
        (cut_in_half, "a.mp3", r"^truncated: \d+ of \d+ bytes of sound$"),
        (cut_in_half, "a.aiff", "truncated"),
        (cut_in_half, "a.au", "truncated"),
        (cut_in_half, "a.w64", "truncated"),
        (cut_in_half, "a.rf64", "truncated"),
        (cut_in_half, "a.caf", "^truncated: "),
        (cut_in_half, "a.ogg", "truncated|no samples|cannot be decoded"),
        (without_samples, "a.wav", "^no samples$"),
        (without_samples, "a.aiff", "^no samples$"),
        (prose, "a.wav", "^cannot be decoded: it is a text, not a recording$"),
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
