"""Pauses by the real Silero VAD, on two synthetic utterances with silence between them."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from featurize.corpora.demo.corpus import VOICES
from featurize.corpora.demo.voice import speak
from featurize.inputs.audio import RATE_HZ
from fusion.end_to_end.prediction.recordings import Recording
from fusion.end_to_end.prediction.timeline import cutter_of

PAUSE_S = 1.5
TEXTS = ("today it was the pleaser and not the praised", "where have you been all the time in the garden")


def test_a_recording_is_cut_at_its_pause(tmp_path: Path) -> None:
    pytest.importorskip("silero_vad", reason="silero-vad is an extra: pip install silero-vad")
    random = np.random.default_rng(0)
    first, second = (speak(text, voice=VOICES["Ses01M"], arousal=0.5, generator=random) for text in TEXTS)
    silence = np.zeros(int(PAUSE_S * RATE_HZ))
    soundfile.write(tmp_path / "two.wav", np.concatenate([first, silence, second]), RATE_HZ)
    span = Recording(file="two", source=tmp_path / "two.wav").measured()
    assert not isinstance(span, str)
    cutter = cutter_of(None, None, vad=True)
    assert cutter is not None
    times = cutter(span)
    begin, end = len(first) / RATE_HZ, len(first) / RATE_HZ + PAUSE_S
    middle = (begin + end) / 2
    assert not any(start < middle < stop for start, stop in times)  # nothing spans the pause
    assert min(start for start, _ in times) < begin
    assert max(stop for _, stop in times) > end
    assert all(0 <= start < stop <= span.duration_s for start, stop in times)
