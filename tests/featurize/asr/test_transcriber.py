"""Transcripts by ASR for recordings without a text, against Hugging Face's own decoding."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Processor,
)

from cache.errors import MmerError
from featurize.encoders.base import Waveform
from fusion.end_to_end.prediction.predictor import load_predictor
from fusion.end_to_end.prediction.recordings import Recording, load_waveform
from fusion.end_to_end.prediction.transcriber import Transcriber
from fusion.run.folder import RunFolder
from tests.support.predicted import utterances
from tests.support.voices import RATE_HZ, tone

CPU = torch.device("cpu")
SYMBOLS = ("<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGH")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CTC model with random weights, as a folder."""
    folder = tmp_path_factory.mktemp("asr")
    (folder / "vocab.json").write_text(json.dumps({symbol: index for index, symbol in enumerate(SYMBOLS)}))
    torch.manual_seed(1)
    config = Wav2Vec2Config(
        vocab_size=len(SYMBOLS),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )
    network = Wav2Vec2ForCTC(config)
    torch.nn.init.normal_(network.lm_head.weight, std=3.0)
    with torch.no_grad():
        network.lm_head.bias[1:4] = -1e4  # no special symbol but the blank
    network.save_pretrained(folder)
    parts: tuple[Any, Any, Any] = (Wav2Vec2FeatureExtractor, Wav2Vec2CTCTokenizer, Wav2Vec2Processor)  # untyped
    extractor, tokenizer, whole = parts
    processor = whole(extractor(do_normalize=True), tokenizer(str(folder / "vocab.json")))
    processor.save_pretrained(folder)
    return folder


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


def test_a_recording_without_a_text_is_predicted_with_its_transcript(
    spoken: Path, concat: RunFolder, model: Path
) -> None:
    predictor = load_predictor(concat.path, device="cpu", asr=str(model))
    path = spoken.parent / utterances(spoken)[0].audio
    span = Recording(file="", source=path).measured()
    assert not isinstance(span, str)
    found = predictor.predict(path)
    assert found.text == decoded(model, load_waveform(span))
    with_text = load_predictor(concat.path, device="cpu").predict(path, text=found.text)
    assert found.probabilities == pytest.approx(with_text.probabilities, abs=1e-6)
    assert predictor.predict(path, text="i hate this").text == "i hate this"


def test_a_model_that_is_not_available_is_one_line(tmp_path: Path, model: Path) -> None:
    with pytest.raises(
        MmerError, match=r"--asr .*nothing: not available as an ASR model .*; name a hub id or a folder"
    ):
        Transcriber(str(tmp_path / "nothing"), CPU)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(MmerError, match=r"not available as an ASR model"):
        Transcriber(str(tmp_path), CPU)
