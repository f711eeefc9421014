from pathlib import Path

import numpy as np
import pytest

from featurize.inputs.hearing import Hearing
from tests.support.sounds import load_whole, noise, written


def test_silence_is_noted(tmp_path: Path) -> None:
    assert (
        load_whole(written(tmp_path / "a.wav", np.zeros((16_000, 2), np.float32))).note == "silent: every sample is 0"
    )
    faint = np.zeros((16_000, 1), np.float32)
    faint[5:7, 0] = 0.01, 0.02
    assert load_whole(written(tmp_path / "b.wav", faint)).note == ""


def test_5_ms_are_noted_and_25_ms_are_not(tmp_path: Path) -> None:
    short = load_whole(written(tmp_path / "a.wav", noise(220), 44_000))
    assert short.note == "5 ms: shorter than one frame of 25 ms, zero-padded"
    assert len(short.waveform) == 80  # the encoder pads, since log-mel pads otherwise
    assert load_whole(written(tmp_path / "b.wav", noise(400))).note == ""
    assert "24.9375 ms" in load_whole(written(tmp_path / "c.wav", noise(399))).note


def test_both_notes_are_given(tmp_path: Path) -> None:
    note = load_whole(written(tmp_path / "a.wav", np.zeros((80, 1), np.float32))).note
    assert note == "silent: every sample is 0; 5 ms: shorter than one frame of 25 ms, zero-padded"


def test_a_signal_of_one_step_is_noted(tmp_path: Path) -> None:
    steps = noise(16_000, steps=2) / np.float32(1 << 14)
    note = load_whole(written(tmp_path / "a.wav", steps, subtype="PCM_24")).note
    assert note == "nearly silent: no sample is above 3.1e-05 of full scale"


@pytest.mark.parametrize("offset", [0.0, 1 / (1 << 15)])
def test_channels_that_cancel_each_other_are_noted(tmp_path: Path, offset: float) -> None:
    sound = np.concatenate([noise(16_000) / 2, offset - noise(16_000) / 2], axis=1)
    note = load_whole(written(tmp_path / "a.wav", sound, subtype="FLOAT")).note
    assert note == "silent after mixing down: its channels cancel each other"
    assert load_whole(written(tmp_path / "b.wav", sound[:, :1])).note == ""


@pytest.mark.parametrize(
    ("sound", "note"),
    [
        (np.full(16_000, 0.5), "constant: every sample is 0.5"),
        (np.sign(noise(16_000)) * 0.5 + 0.25, "one bit: its samples have only two values"),
        (np.clip(noise(16_000) * 2.2, -0.9999, 0.9999), "clipped: 9% of its samples are at the largest value"),
        (np.clip(noise(16_000) * 2.2, -0.4, 0.4), "clipped: 64% of its samples are at the largest value"),
        (np.clip(noise(16_000) * 2.02, -1.0, 0.9999), ""),
        (np.sin(np.arange(16_000) / 7), ""),
    ],
    ids=["constant", "one bit", "clipped", "clipped below full scale", "hardly clipped", "sine"],
)
def test_signals_that_carry_no_speech_or_a_distorted_one_are_noted(
    tmp_path: Path, sound: np.ndarray[tuple[int, ...], np.dtype[np.float32]], note: str
) -> None:
    assert load_whole(written(tmp_path / "a.wav", np.asarray(sound, np.float32))).note == note


def test_silent_channels_are_named(tmp_path: Path) -> None:
    sound = noise(16_000, 4)
    sound[:, 1] = 0
    assert load_whole(written(tmp_path / "a.wav", sound)).note == "channel 2 is silent, of 4"
    sound[:, 3] = 1 / (1 << 15)
    assert load_whole(written(tmp_path / "b.wav", sound)).note == "channels 2, 4 are silent, of 4"
    assert load_whole(written(tmp_path / "c.wav", noise(16_000, 4))).note == ""


def test_remarks_do_not_depend_on_the_blocks() -> None:
    sound = np.clip(noise(50_000, 2) * 2.4, -0.5, 0.5)
    sound[30_000:] *= 2
    whole, parts = Hearing(2), Hearing(2)
    whole.add(sound, sound.mean(axis=1))
    for start in range(0, len(sound), 777):
        parts.add(sound[start : start + 777], sound[start : start + 777].mean(axis=1))
    assert whole.remarks() == parts.remarks() != []
