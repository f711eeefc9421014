"""Encoders and heads as ONNX files: padded batches against Hugging Face's encoders, one utterance at a time."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from cache.errors import MmerError
from featurize.encoders.layers import parse_layers
from fusion.end_to_end.learning.source import NO_FOLDERS
from fusion.end_to_end.prediction.models import load_models
from fusion.end_to_end.prediction.predictor import load_predictor
from fusion.end_to_end.sharing.bundle import CPU
from fusion.end_to_end.sharing.onnx_full import SpeechFront, TextFront, export_full
from fusion.end_to_end.sharing.onnx_head import TOLERANCE
from fusion.run.folder import RunFolder
from tests.support.models import (
    CHOICES,
    SPEECH_LAYERS,
    TEXT_LAYERS,
    alone,
    chosen_of,
    speech_model,
    text_model,
    waveforms,
    worst,
)

LENGTHS = (400, 5000, 16_000, 720)
IDS = ((0, 7, 9, 2), (0, 8, 2), (0, 2), (0, 10, 11, 12, 13, 2))
EXACT = 1e-4  # relative


def padded(rows: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Pads rows with ones, which must not be read."""
    values = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=1)
    return values, torch.arange(values.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]


@pytest.mark.parametrize(("norm", "stable"), [("group", False), ("layer", True), ("layer", False)])
@pytest.mark.parametrize("number", range(len(CHOICES)))
def test_speech_of_a_padded_batch_is_that_of_each_alone(norm: str, *, stable: bool, number: int) -> None:
    model = speech_model("wav2vec2", norm, stable)
    choice = parse_layers(CHOICES[number], layers=SPEECH_LAYERS, encoder="enc")
    waves = waveforms(LENGTHS)
    with torch.no_grad():
        rows, mask = SpeechFront(model, choice, normalize=True)(*padded([torch.from_numpy(wave) for wave in waves]))
    expected = [chosen_of(alone(model, wave, normalize=True))[number] for wave in waves]
    found = [row[valid].numpy() for row, valid in zip(rows, mask, strict=True)]
    assert worst(found, expected) <= EXACT


@pytest.mark.parametrize("number", range(len(CHOICES)))
def test_text_of_a_padded_batch_is_that_of_each_alone(number: int) -> None:
    model = text_model("roberta")
    choice = parse_layers(CHOICES[number], layers=TEXT_LAYERS, encoder="enc")
    with torch.no_grad():
        rows, mask = TextFront(model, choice)(*padded([torch.tensor(ids) for ids in IDS]))
        outputs = [model(torch.tensor([ids]), output_hidden_states=True) for ids in IDS]
    found = [row[valid].numpy() for row, valid in zip(rows, mask, strict=True)]
    assert worst(found, [chosen_of(output)[number] for output in outputs]) <= EXACT


@pytest.mark.slow
@pytest.mark.parametrize("name", ["audio", "tuned", "concat"])
def test_the_file_predicts_waveforms_as_the_run_does(tmp_path: Path, name: str, request: pytest.FixtureRequest) -> None:
    run: RunFolder = request.getfixturevalue(name)
    (model, *_) = load_models(run.path, device=CPU).models
    path = tmp_path / "full.onnx"
    assert export_full(model, path, NO_FOLDERS).difference <= TOLERANCE
    session = onnxruntime.InferenceSession(str(path))
    classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
    predictor = load_predictor(run.path, fold="" if model.fold == "final" else model.fold, device="cpu")
    waves = waveforms(LENGTHS[:3], seed=5)
    texts = ["i hate this", "we love this garden", "garden"]
    inputs: dict[str, Any] = {}
    inputs["waveform"], inputs["waveform_mask"] = map(Tensor.numpy, padded([torch.from_numpy(wave) for wave in waves]))
    if name == "concat":
        encoder: Any = next(held.encoder for held in predictor._encoders if not held.speech)
        tokenizer = encoder.tokenizer
        ids = [torch.tensor(tokenizer(text)["input_ids"]) for text in texts]
        inputs["tokens"], inputs["tokens_mask"] = map(Tensor.numpy, padded(ids))
    (found,) = session.run(None, inputs)
    rows = [predictor.predict((wave, 16_000), text=text) for wave, text in zip(waves, texts, strict=True)]
    expected = np.array([[row.probabilities[label] for label in classes] for row in rows])
    np.testing.assert_allclose(found, expected, atol=2e-3)  # the run rounds features to float16


def test_an_encoder_of_another_family_is_one_line(audio: RunFolder, tmp_path: Path) -> None:
    (model, *_) = load_models(audio.path, device=CPU).models
    spec = replace(model.specs["audio"], layers="conv")
    with pytest.raises(MmerError, match="--onnx full: audio of wav2vec2-tiny is not among audio, text; pass --onnx"):
        export_full(replace(model, specs={"audio": spec}), tmp_path / "full.onnx", NO_FOLDERS)
    assert not list(tmp_path.iterdir())
