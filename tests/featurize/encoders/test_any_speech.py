"""Speech encoders outside the known families: the rows of Hugging Face, counts measured, w2v-BERT 2.0 in batches."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoFeatureExtractor,
    AutoModel,
    SeamlessM4TFeatureExtractor,
    SEWDConfig,
    SEWDModel,
    Speech2TextConfig,
    Speech2TextFeatureExtractor,
    Speech2TextModel,
    Wav2Vec2BertConfig,
    Wav2Vec2BertModel,
    Wav2Vec2FeatureExtractor,
)

from cache.errors import MmerError
from cache.rows import Rows
from featurize.encoders.base import Waveform
from featurize.encoders.one_by_one import OneByOneEncoder
from featurize.extraction.parity import TOLERANCE, reference_any
from tests.support.checkpoints import loaded
from tests.support.models import LAYER_SIZE, SPEECH_SIZE, lively, waveforms, worst

LENGTHS = (1200, 16_000, 9999, 16_080, 31_000, 5160)
SPEECH2TEXT: dict[str, Any] = {"d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
DECODER: dict[str, Any] = {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 32, "vocab_size": 50}
SEWD: dict[str, Any] = {
    "conv_dim": (16,) * 13,
    "squeeze_factor": 2,
    "max_position_embeddings": 64,
    "position_buckets": 16,
}


def model_of(family: str) -> tuple[Any, Any]:
    """Builds a small model of a family, and the feature extractor that its checkpoints come with."""
    extractor: Any
    if family == "wav2vec2-bert":
        extractor = SeamlessM4TFeatureExtractor
        return lively(Wav2Vec2BertModel, Wav2Vec2BertConfig(**LAYER_SIZE, num_hidden_layers=3)), extractor()
    if family == "speech_to_text":
        extractor = Speech2TextFeatureExtractor
        return lively(Speech2TextModel, Speech2TextConfig(**SPEECH2TEXT, **DECODER)), extractor()
    extractor = Wav2Vec2FeatureExtractor
    return lively(SEWDModel, SEWDConfig(**{**SPEECH_SIZE, **SEWD})), extractor(do_normalize=True)


FAMILIES = ("wav2vec2-bert", "speech_to_text", "sew-d")


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("any") / "mini"
    model, extractor = model_of(request.param)
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return folder


def encoder_of(folder: Path, layers: str = "", **options: Any) -> OneByOneEncoder:
    (encoder,) = loaded(f"{folder}{layers}", **options).speech
    assert isinstance(encoder, OneByOneEncoder)
    return encoder


@cache
def documented(folder: Path) -> tuple[Any, Any]:
    auto: Any = AutoFeatureExtractor
    model = AutoModel.from_pretrained(folder).eval()
    return auto.from_pretrained(folder), model.get_encoder() if model.config.is_encoder_decoder else model


def by_hugging_face(folder: Path, wave: Waveform) -> Rows:
    """Encodes one waveform as the checkpoint documents it, ``(frames, dim)``; frames that its mask excludes are cut."""
    extractor, model = documented(folder)
    values = extractor(wave, sampling_rate=16_000, return_tensors="pt")
    with torch.inference_mode():
        rows = model(**values).last_hidden_state[0].numpy()
    mask = values.get("attention_mask")
    reads_frames = mask is not None and mask.shape[1] == len(rows)
    kept: Rows = rows[: int(mask.sum())] if reads_frames else rows
    return kept


def test_rows_are_those_of_hugging_face_one_by_one(checkpoint: Path) -> None:
    waves = waveforms(LENGTHS)
    encoder = encoder_of(checkpoint)
    plans = encoder.plan([len(wave) for wave in waves])
    for (rows,), wave, plan in zip(encoder.encode(waves), waves, plans, strict=True):
        assert worst([rows, reference_any(encoder, wave)], [by_hugging_face(checkpoint, wave)] * 2) <= TOLERANCE
        assert plan.rows == (len(rows),)


def test_hidden_layers_come_with_their_own_rate(checkpoint: Path) -> None:
    (wave,) = waveforms([32_000])
    for layers in ("@1", "@all"):
        encoder = encoder_of(checkpoint, layers)
        ((rows,),) = encoder.encode([wave])
        (spec,) = encoder.specs
        assert rows.shape[1:] == spec.shape
        assert encoder.plan([len(wave)])[0].rows == (len(rows),)
        assert abs(len(rows) - 2 * spec.rate_hz) <= 2


def test_pieces_have_the_rows_of_their_lengths(checkpoint: Path) -> None:
    encoder = encoder_of(checkpoint, chunk=True, max_seconds=0.5)
    (wave,) = waveforms([20_000])
    (plan,) = encoder.plan([len(wave)])
    assert plan.note == "encoded in 3 pieces"
    ((rows,),) = encoder.encode([wave])
    pieces = [by_hugging_face(checkpoint, wave[start : start + 8000]) for start in (0, 8000, 16_000)]
    assert plan.rows == (len(rows),)
    assert worst([rows], [np.concatenate(pieces)]) <= TOLERANCE


def test_a_note_says_how_it_is_encoded(checkpoint: Path) -> None:
    family = json.loads((checkpoint / "config.json").read_text())["model_type"]
    rate = {"speech_to_text": "25", "sew-d": "49.9"}.get(family, "")
    expected = f"mini is of type {family}: utterances are encoded one by one, {rate} rows a second as measured"
    assert loaded(checkpoint).notes == ([] if family == "wav2vec2-bert" else [expected])


def test_too_short_for_a_frame_is_a_failure(tmp_path: Path) -> None:
    model, extractor = model_of("wav2vec2-bert")
    model.save_pretrained(tmp_path / "mini")
    extractor.save_pretrained(tmp_path / "mini")
    with np.errstate(all="ignore"):
        (plan,) = encoder_of(tmp_path / "mini").plan([410])
    assert plan.failure == "too short for one frame"


def test_an_extractor_is_needed_and_must_read_16_khz(checkpoint: Path, tmp_path: Path) -> None:
    model, extractor = model_of("sew-d")
    model.save_pretrained(tmp_path / "mini")
    with pytest.raises(
        MmerError, match=r"has no preprocessor_config\.json, which says what a model of type sew-d reads"
    ):
        loaded(tmp_path / "mini")
    extractor.sampling_rate = 8000
    extractor.save_pretrained(tmp_path / "mini")
    with pytest.raises(MmerError, match="expects speech at 8000 Hz; mmer supports 16000 Hz"):
        loaded(tmp_path / "mini")
