"""Transcripts of recordings, against Hugging Face's own decoding."""

import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Wav2Vec2ForCTC, Wav2Vec2Processor

from cache.errors import MmerError
from featurize.asr.transcriber import Transcriber
from featurize.encoders.base import Waveform
from featurize.inputs.audio import cut, load, probe
from tests.support.recognizers import write_ctc_model
from tests.support.voices import RATE_HZ, tone

CPU = torch.device("cpu")
SHARED = Path(__file__).parents[4] / "shared"
WHISPER, RAVDESS = SHARED / "models" / "whisper-tiny.en", SHARED / "data" / "ravdess16k.tar.xz"
SENTENCES = {"01": "kids are talking by the door", "02": "dogs are sitting by the door"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ctc_model(tmp_path_factory.mktemp("asr"))


def decoded(model: Path, waveform: Waveform) -> str:
    """What Hugging Face's model and processor make of one waveform."""
    processor: Any = Wav2Vec2Processor.from_pretrained(model)
    network: Any = Wav2Vec2ForCTC.from_pretrained(model)
    inputs = processor(waveform, sampling_rate=RATE_HZ, return_tensors="pt")
    with torch.no_grad():
        logits = network.eval()(**inputs).logits
    return str(processor.batch_decode(logits.argmax(dim=-1))[0]).strip().lower()


def test_each_recording_is_transcribed_as_alone(model: Path) -> None:
    waveforms = [
        tone(seconds, pitch_hz=90 * number + 80, seed=number) for number, seconds in enumerate((0.5, 1.3, 0.9))
    ]
    expected = [decoded(model, waveform) for waveform in waveforms]
    assert any(expected)
    assert Transcriber(str(model), CPU)(waveforms) == expected
    assert Transcriber(str(model), CPU)([np.zeros(8000, np.float32), np.ones(3, np.float32)]) == ["", ""]


@pytest.mark.skipif(
    not (WHISPER.is_dir() and RAVDESS.is_file()), reason="whisper-tiny.en or RAVDESS is not on this machine"
)
def test_the_real_whisper_hears_what_is_said(tmp_path: Path) -> None:
    with tarfile.open(RAVDESS) as archive:
        member = next(member for member in archive if member.isfile())
        archive.extract(member, tmp_path, filter="data")
    waveform = load(cut(probe(tmp_path / member.name), None, None)).waveform
    (transcript,) = Transcriber(str(WHISPER), CPU)([waveform])
    sentence = Path(member.name).stem.split("-")[4]  # a field of the file's name
    assert re.sub(r"[^a-z ]", "", transcript.lower()).strip() == SENTENCES[sentence]


def test_the_settings_and_weights_tell_models_apart(model: Path, tmp_path: Path) -> None:
    first, other = Transcriber(str(model), CPU), Transcriber(str(write_ctc_model(tmp_path, seed=2)), CPU)
    again = Transcriber(str(model), CPU)
    assert (first.settings, first.weights) == (again.settings, again.weights)
    assert first.settings == other.settings
    assert first.weights != other.weights


def test_a_model_that_is_not_available_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        MmerError, match=r"--asr .*nothing: not available as an ASR model .*; name a hub id or a folder"
    ):
        Transcriber(str(tmp_path / "nothing"), CPU)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(MmerError, match=r"not available as an ASR model"):
        Transcriber(str(tmp_path), CPU)
