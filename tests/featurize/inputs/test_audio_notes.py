from pathlib import Path

import numpy as np

from tests.support.sounds import load_whole, noise, written


def test_silence_is_noted(tmp_path: Path) -> None:
    assert (
        load_whole(written(tmp_path / "a.wav", np.zeros((16_000, 2), np.float32))).note == "silent: every sample is 0"
    )
    faint = np.zeros((16_000, 1), np.float32)
    faint[5] = 1 / (1 << 15)
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
