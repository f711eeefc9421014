"""Predictions of a corpus' own utterances equal those that the run stored."""

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cache.errors import MmerError
from fusion.end_to_end.prediction.listing import list_recordings
from fusion.end_to_end.prediction.predictor import load_predictor
from fusion.end_to_end.prediction.timeline import Windows
from fusion.experiment.experiment import ExperimentRequest
from fusion.run.folder import RunFolder
from fusion.run.load import load_model
from tests.support.predicted import (
    TOLERANCE,
    largest_difference,
    predicted,
    run_of,
    stored,
    utterances,
    wanted,
)

BOTH = {"audio": "wav2vec2-tiny", "text": "roberta-tiny"}
RUNS: dict[str, ExperimentRequest] = {
    "audio": wanted("audio", {"audio": "wav2vec2-tiny"}),
    "audio of a mean over mfcc": wanted("audio", {"audio": "mfcc39"}),
    "text": wanted("text", {"text": "roberta-tiny"}),
    "concat": wanted("concat"),
    "cross-attention": wanted("cross-attention"),
    "rescmfa": wanted("rescmfa"),
    "tab": wanted("tab"),
    "bimodal": wanted("bimodal", fields={"tasks": "cpc+supervised"}),
    "jfm": wanted("jfm", {"text": "roberta-tiny@4", "patches": "vit-mel-tiny"}),
    "label-guided": wanted("label-guided", fields={"min_count": 1, "words": 2, "frames": 4}),
    "stacked layers": wanted("concat", {"audio": "wav2vec2-tiny@0,2,4", "text": "roberta-tiny@all"}),
    "history": wanted("concat", {**BOTH, "text": "roberta-tiny+history3"}),
    "scaled": wanted("concat", fields={"standardize": True}),
    "tuned audio and top text layers": wanted(
        "rescmfa", tune=("audio", "text=2"), fields={"audio_lr": 1e-3, "text_lr": 1e-3}
    ),
    "tuned text of tokens": wanted("text", {"text": "roberta-tiny"}, tune=("text",), fields={"text_lr": 1e-3}),
    "tuned history": wanted("text", {"text": "roberta-tiny+history3"}, tune=("text",), fields={"text_lr": 1e-3}),
    "adapters": wanted("concat", tune=("audio=lora:2",), fields={"audio_lr": 1e-2}),
    "tuned from recordings": wanted(
        "audio", {"audio": "wav2vec2-tiny"}, tune=("audio=wave",), fields={"audio_lr": 1e-3}
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_predictions_equal_those_that_the_run_stored(spoken: Path, tmp_path: Path, name: str) -> None:
    run = run_of(spoken, tmp_path / "run", RUNS[name])
    for fold in list(run.identity["folds"])[:2]:
        predictor = load_predictor(run.path, fold=fold, device="cpu")
        found = predicted(predictor, spoken)
        assert largest_difference(found, stored(run, fold), predictor.classes) <= TOLERANCE
