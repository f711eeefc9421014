"""Runs over real recordings, and the predictions that they stored."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from cache.utterance import Utterance
from fusion.end_to_end.prediction.listing import list_recordings
from fusion.end_to_end.prediction.predictor import Prediction, Predictor
from fusion.experiment.request import ExperimentRequest
from fusion.run.artifacts import read_probabilities
from fusion.run.folder import RunFolder
from fusion.run.train import train_run
from tests.support.runs import reader_of
from tests.support.tuned import SMALL, write_learning_cache
from tests.support.voices import featurized

ENCODERS = (
    *(f"wav2vec2-tiny{layers}" for layers in ("", "@conv", "@0,2,4", "@3")),
    *(f"roberta-tiny{layers}" for layers in ("", "@all", "@4", "@7")),
    *(f"vit-mel-tiny{layers}" for layers in ("", "@0", "@2")),
    "mfcc39",
)
STREAMS = {"audio": "wav2vec2-tiny", "text": "roberta-tiny"}
TOLERANCE = 1e-4


def write_predictable_cache(folder: Path) -> Path:
    """Writes recordings with dialogues and their features, as float16 and with a history."""
    cache = write_learning_cache(folder, dtype="float16", encoders=ENCODERS)
    featurized(folder / "corpus.csv", cache, encoders=("roberta-tiny",), history=3, max_tokens=40, mel=False)
    return cache


def wanted(fusion: str, streams: dict[str, str] | None = None, **options: Any) -> ExperimentRequest:
    """A short training of a small head."""
    fields = {"epochs": 1, "batch_size": 8, "lr": 0.01, **SMALL.get(fusion, {}), **options.pop("fields", {})}
    return ExperimentRequest(fusion=fusion, fields=fields, streams=STREAMS if streams is None else streams, **options)


def run_of(cache: Path, out: Path, request: ExperimentRequest, **options: Any) -> RunFolder:
    opened = reader_of(cache)
    return RunFolder(train_run(request.experiment(opened), opened, out=out, **options).folder)


def stored(run: RunFolder, fold: str, seed: int = 0) -> dict[str, Any]:
    """The probabilities that a run stored for the test subset of a fold."""
    return read_probabilities(run.model(fold, seed), list(run.identity["labels"]))


def utterances(cache: Path) -> list[Utterance]:
    return list(reader_of(cache).utterances)


def predicted(predictor: Predictor, cache: Path, chosen: Collection[str] = ()) -> dict[str, Prediction]:
    """Predicts the corpus of a cache from its manifest, or some of its utterances, by id."""
    manifest = cache.parent / "corpus.csv"
    names = [utterance.id for utterance in utterances(cache)]
    pairs = zip(names, list_recordings([str(manifest)]), strict=True)
    recordings = {name: recording for name, recording in pairs if not chosen or name in chosen}
    rows = [row for (row,) in predictor.predict_all(list(recordings.values()))]
    return dict(zip(recordings, rows, strict=True))


def largest_difference(found: dict[str, Prediction], expected: dict[str, Any], classes: tuple[str, ...]) -> float:
    """The largest difference of a probability over the utterances that were expected."""
    assert expected
    assert not [row.error for row in found.values() if row.error]
    rows = [[found[name].probabilities[label] for label in classes] for name in expected]
    return float(np.abs(np.array(rows) - np.stack(list(expected.values()))).max())
