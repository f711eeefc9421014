"""Whisper's encoder: rows equal to Hugging Face one by one, windows, pieces, checkpoints that cannot be used."""

import json
import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperModel

from cache.errors import MmerError
from cache.rows import Rows
from featurize.encoders.base import Waveform
from featurize.encoders.whisper import HOP, WhisperEncoder, count_frames
from featurize.extraction.parity import TOLERANCE, reference_whisper
from tests.support.checkpoints import altered, loaded, without
from tests.support.models import lively, waveforms, worst

LENGTHS = (1, 319, 320, 321, 16_000, 5000, 480_000)
REAL = Path(__file__).parents[4] / "shared" / "models" / "whisper-tiny.en"


def config_of(**how: Any) -> WhisperConfig:
    size = {"d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
    decoder = {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 32}
    tokens = {"vocab_size": 60, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1, "decoder_start_token_id": 1}
    return WhisperConfig(**{**size, **decoder, **tokens, "num_mel_bins": 8, "suppress_tokens": None, **how})


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whisper") / "whisper-mini"
    lively(WhisperForConditionalGeneration, config_of()).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=8).save_pretrained(folder)  # type: ignore[no-untyped-call]
    return folder


def encoder_of(folder: Path, layers: str = "", **options: Any) -> WhisperEncoder:
    (encoder,) = loaded(f"{folder}{layers}", **options).speech
    assert isinstance(encoder, WhisperEncoder)
    return encoder


@cache
def documented(folder: Path) -> tuple[Any, Any]:
    extractor = WhisperFeatureExtractor.from_pretrained(folder)
    model: Any = WhisperModel.from_pretrained(folder, dtype=torch.float32)
    return extractor, model.eval()


def by_hugging_face(folder: Path, wave: Waveform) -> tuple[list[Rows], Rows]:
    """Encodes one waveform as Hugging Face documents it, cut to the utterance's own frames."""
    extractor, model = documented(folder)
    features = extractor(wave, sampling_rate=16_000, return_tensors="pt").input_features
    with torch.inference_mode():
        output = model.encoder(features, output_hidden_states=True)
    count = -(-len(wave) // 320)
    return [state[0, :count].numpy() for state in output.hidden_states], output.last_hidden_state[0, :count].numpy()


def test_a_batch_gives_the_rows_of_hugging_face_one_by_one(whisper: Path) -> None:
    waves = waveforms(LENGTHS)
    encoder = encoder_of(whisper, "@all")
    last = encoder_of(whisper)
    plans = encoder.plan([len(wave) for wave in waves])
    for rows, top, wave, plan in zip(encoder.encode(waves), last.encode(waves), waves, plans, strict=True):
        hidden, expected = by_hugging_face(whisper, wave)
        assert worst([rows[0], top[0]], [np.stack(hidden, axis=1), expected]) <= TOLERANCE
        assert (plan.rows, plan.cost) == ((len(rows[0]),), 1500)  # a window, whatever the length


def test_more_than_a_window_needs_pieces(whisper: Path) -> None:
    samples = 480_001
    assert encoder_of(whisper).plan([samples])[0].failure == (
        "30.0001 s, longer than the 30 s that Whisper reads; pass --chunk"
    )
    chunked = encoder_of(whisper, chunk=True, max_seconds=60.0)
    (plan,) = chunked.plan([samples])
    assert (plan.rows, plan.note) == ((1501,), "encoded in 2 pieces")
    (wave,) = waveforms([samples])
    (rows,) = chunked.encode([wave])[0]
    assert len(rows) == 1501
    assert worst([rows[:1500]], [by_hugging_face(whisper, wave[:480_000])[1]]) <= TOLERANCE
    assert encoder_of(whisper, chunk=True, max_seconds=10.0).plan([samples])[0].note == "encoded in 4 pieces"


def test_frames_are_those_of_the_utterance() -> None:
    assert [count_frames(samples) for samples in (0, 1, 320, 321, 480_000)] == [1, 1, 1, 2, 1500]
    assert HOP == 320


def test_lower_precision_stays_close_and_can_be_exact(whisper: Path) -> None:
    waves = waveforms([8000, 3000])
    exact = [rows[0] for rows in encoder_of(whisper).encode(waves)]
    half = encoder_of(whisper, precision="bfloat16")
    assert 1e-4 < worst([rows[0] for rows in half.encode(waves)], exact) < 0.05
    assert worst([rows[0] for rows in half.encode(waves, precise=True)], exact) <= TOLERANCE


def test_a_checkpoint_without_its_extractor_reads_the_usual_windows(whisper: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(whisper, tmp_path / "whisper-mini")
    (copy / "preprocessor_config.json").unlink()
    found = loaded(copy)
    assert found.notes == [
        "whisper-mini has no preprocessor_config.json: windows of 30 s with 8 bands, which is the default"
    ]
    assert [spec.weights for spec in found.speech[0].specs] == [spec.weights for spec in encoder_of(whisper).specs]


@pytest.mark.parametrize(
    ("field", "value", "found"),
    [("feature_size", 16, "16 bands and 3000 frames"), ("chunk_length", 10, "8 bands and 1000 frames")],
)
def test_an_extractor_of_another_model_is_refused(
    whisper: Path, tmp_path: Path, field: str, value: int, found: str
) -> None:
    copy = shutil.copytree(whisper, tmp_path / "whisper-mini")
    path = copy / "preprocessor_config.json"
    fields = {**json.loads(path.read_text()), field: value}
    made: Any = WhisperFeatureExtractor
    made(**{name: fields[name] for name in ("feature_size", "chunk_length")}).save_pretrained(copy)
    message = f"makes windows of {found} at 16000 Hz; the model reads 8 bands and 3000 frames at 16000 Hz"
    with pytest.raises(MmerError, match=re.escape(message)):
        loaded(copy)


def test_weights_of_the_encoder_must_be_there_and_those_of_the_decoder_need_not(whisper: Path, tmp_path: Path) -> None:
    encoder_of(altered(whisper, tmp_path / "a", without("model.decoder")))
    with pytest.raises(MmerError, match=r"lacks 2 weights \(first: encoder\.conv1\.bias\)"):
        loaded(altered(whisper, tmp_path / "b", without("model.encoder.conv1")))


@pytest.mark.skipif(not REAL.is_dir(), reason="the weights of whisper-tiny.en are not on this machine")
def test_real_weights_give_the_rows_of_hugging_face() -> None:
    encoder = encoder_of(REAL, "@all")
    waves = waveforms([16_000, 4000])
    rows = encoder.encode(waves)[0][0]
    hidden, _ = by_hugging_face(REAL, waves[0])
    assert worst([rows, reference_whisper(encoder, waves[0])], [np.stack(hidden, axis=1)] * 2) <= TOLERANCE
