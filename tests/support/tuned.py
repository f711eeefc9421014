"""A cache from which encoders learn: real recordings through the built-in encoders, stored as float32."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from fusion.data.features import CachedFeatures
from fusion.experiment.plan import RunPlan, plan_run
from fusion.experiment.request import ExperimentRequest
from fusion.head import Head
from fusion.protocols.own_folds import OwnFolds
from fusion.run.cross_validation import build_and_prepare_head
from tests.support.runs import reader_of
from tests.support.voices import RATE_HZ, featurized, tone, write_corpus

SESSIONS, TURNS = 3, 6
CLASSES = {"angry": (0.3, "i hate this"), "happy": (0.3, "we love this garden"), "sad": (0.0, "i hate this house")}
ENCODERS = (
    *(f"wav2vec2-tiny{layers}" for layers in ("", "@conv", "@0", "@1", "@3")),
    *(f"roberta-tiny{layers}" for layers in ("", "@2", "@4", "@7")),
    *(f"vit-mel-tiny{layers}" for layers in ("", "@0", "@4")),
)
CPU = torch.device("cpu")
_SUBSETS = {"train": range(TURNS), "dev": range(TURNS, TURNS + 3), "test": range(2 * TURNS, 2 * TURNS + 4)}
# Of each session some; every class is in every subset.
ONE_FOLD = OwnFolds(
    source="one fold",
    folds={"1": {f"v{place:02}": subset for subset, places in _SUBSETS.items() for place in places}},
)

# Head -> the streams that it reads and what of it can learn.
STREAMS: Mapping[str, Mapping[str, str]] = {"jfm": {"text": "roberta-tiny@4"}}
SMALL: Mapping[str, Mapping[str, object]] = {
    "rescmfa": {"layers": 1, "text_slots": 40, "audio_slots": 60},
    "tab": {"layers": 1},
    "jfm": {"joint_length": 2, "extractor_layers": 1},
}


def write_learning_corpus(folder: Path) -> Path:
    """Writes recordings of three sessions with two speakers each, and their manifest."""
    rows = []
    for place in range(SESSIONS * TURNS):
        session, turn = divmod(place, TURNS)
        label = list(CLASSES)[turn % len(CLASSES)]
        noise, text = CLASSES[label]
        sound = tone(0.25 + 0.03 * (place % 5), pitch_hz=120 + 5 * session, seed=place)
        sound += noise * np.random.default_rng(place).standard_normal(len(sound)).astype(np.float32)
        soundfile.write(folder / f"v{place:02}.wav", sound, RATE_HZ)
        told = {"speaker": f"s{session}{turn % 2}", "session": str(session), "dialogue": f"d{session}{turn // 3}"}
        told["valence"] = str(1.5 + turn % len(CLASSES) + 0.1 * session)
        rows.append({"id": f"v{place:02}", "text": text, "label": label, **told})
    return write_corpus(folder, rows)


def write_learning_cache(folder: Path, **changes: Any) -> Path:
    """Writes those recordings and their features."""
    cache = folder / "voices.h5"
    options = {"dtype": "float32", "start_layers": 5, "encoders": ENCODERS, **changes}
    featurized(write_learning_corpus(folder), cache, **options)
    return cache


def request(fusion: str, *tune: str, **fields: object) -> ExperimentRequest:
    """A run of a small head without dropout of its own, so that only what learns differs."""
    given = {"dropout": 0.0, "epochs": 2, "batch_size": 4, "lr": 0.01, **SMALL.get(fusion, {}), **fields}
    streams = dict(STREAMS.get(fusion, {"audio": "wav2vec2-tiny", "text": "roberta-tiny"}))
    if fusion in {"audio", "text"}:
        streams = {fusion: streams[fusion]}
    return ExperimentRequest(fusion=fusion, fields=given, streams=streams, tune=tune)


def planned(cache: Path, wanted: ExperimentRequest) -> RunPlan:
    opened = reader_of(cache)
    return plan_run(wanted.experiment(opened), opened)


def source_of(plan: RunPlan) -> CachedFeatures:
    return CachedFeatures(plan.cache, plan.selection.streams, plan.split.classes)


def built(plan: RunPlan, seed: int = 0) -> Head:
    """Builds and prepares the model of the first fold."""
    return build_and_prepare_head(plan, source_of(plan), plan.split.folds[0].train, seed=seed)[0]
