"""Predictions of a corpus' own utterances equal those that the run stored."""

import functools
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import torch

from cache.errors import MmerError
from fusion.end_to_end.prediction.listing import list_recordings
from fusion.end_to_end.prediction.predictor import Predictor, load_predictor
from fusion.end_to_end.prediction.timeline import Windows
from fusion.experiment.request import ExperimentRequest
from fusion.run.folder import RunFolder
from fusion.run.load import load_model
from fusion.training.evaluate import predict_probabilities
from tests.support.predicted import (
    TOLERANCE,
    largest_difference,
    predicted,
    run_of,
    stored,
    utterances,
    wanted,
)
from tests.support.tuned import ONE_FOLD, planned, source_of
from tests.support.voices import RATE_HZ, featurized, tone

TWO_FOLDS = {"session": ("0", "1")}  # of three
BOTH = {"audio": "wav2vec2-tiny", "text": "roberta-tiny"}
WITHOUT = {"modality_dropout": 0.3}  # which allows predictions without text
SOME = 3  # utterances, of different lengths
RUNS: dict[str, ExperimentRequest] = {
    "audio": wanted("audio", {"audio": "wav2vec2-tiny"}),
    "audio of a mean over mfcc": wanted("audio", {"audio": "mfcc39"}),
    "text": wanted("text", {"text": "roberta-tiny"}),
    "concat": wanted("concat", fields=WITHOUT),
    "cross-attention": wanted("cross-attention"),
    "rescmfa": wanted("rescmfa", fields=WITHOUT),
    "tab": wanted("tab", fields=WITHOUT),
    "bimodal": wanted("bimodal", fields={**WITHOUT, "tasks": "cpc+supervised"}),
    "jfm": wanted("jfm", {"text": "roberta-tiny@4", "patches": "vit-mel-tiny"}),
    "label-guided": wanted("label-guided", fields={**WITHOUT, "min_count": 1, "words": 2, "frames": 4}),
    "stacked layers": wanted("concat", {"audio": "wav2vec2-tiny@0,2,4", "text": "roberta-tiny@all"}),
    "history": wanted("concat", {**BOTH, "text": "roberta-tiny+history3"}),
    "scaled": wanted("concat", fields={"standardize": True}),
    "tuned audio and top text layers": wanted(
        "rescmfa", tune=("audio", "text=2"), fields={"audio_lr": 1e-3, "text_lr": 1e-3}
    ),
    "tuned audio": wanted("audio", {"audio": "wav2vec2-tiny"}, tune=("audio",), fields={"audio_lr": 1e-3}),
    "tuned text of tokens": wanted("text", {"text": "roberta-tiny"}, tune=("text",), fields={"text_lr": 1e-3}),
    "tuned history": wanted("text", {"text": "roberta-tiny+history3"}, tune=("text",), fields={"text_lr": 1e-3}),
    "adapters": wanted("concat", tune=("audio=lora:2",), fields={"audio_lr": 1e-2}),
    "tuned from recordings": wanted(
        "audio", {"audio": "wav2vec2-tiny"}, tune=("audio=wave",), fields={"audio_lr": 1e-3}
    ),
}


@pytest.fixture(scope="module")
def run_named(
    spoken: Path, audio: RunFolder, tuned: RunFolder, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], RunFolder]:
    """Function that trains one of `RUNS` on one fold when it is first needed, unless other tests share such a run."""
    folder = tmp_path_factory.mktemp("runs")
    shared = {"audio": audio, "tuned audio": tuned}
    return functools.cache(
        lambda name: shared.get(name) or run_of(spoken, folder / name, replace(RUNS[name], own_folds=ONE_FOLD))
    )


@pytest.fixture(scope="module")
def predictor_named(run_named: Callable[[str], RunFolder]) -> Callable[[str], Predictor]:
    """Function that loads the predictor of the last fold of one of `RUNS`, once."""

    @functools.cache
    def load(name: str) -> Predictor:
        run = run_named(name)
        return load_predictor(run.path, fold=list(run.identity["folds"])[-1], device="cpu")

    return load


@pytest.fixture(scope="module")
def of_both(concat: RunFolder) -> Predictor:
    """The predictor of a final model that reads speech and text."""
    return load_predictor(concat.path, device="cpu")


@pytest.fixture(scope="module")
def of_speech(audio: RunFolder) -> Predictor:
    """The predictor of the models of three folds that read speech alone."""
    return load_predictor(audio.path, device="cpu")


@pytest.mark.parametrize("name", RUNS)
def test_predictions_equal_those_that_the_run_stored(
    spoken: Path, run_named: Callable[[str], RunFolder], predictor_named: Callable[[str], Predictor], name: str
) -> None:
    run, predictor = run_named(name), predictor_named(name)
    expected = stored(run, list(run.identity["folds"])[-1])
    found = predicted(predictor, spoken, list(expected))
    assert largest_difference(found, expected, predictor.classes) <= TOLERANCE


def test_the_final_model_predicts_if_there_is_one(spoken: Path, concat: RunFolder, of_both: Predictor) -> None:
    assert of_both.source == "final model of seed 0, trained on all utterances"
    plan, some = planned(spoken, RUNS["concat"]), np.arange(1, 18, 3)
    expected = predict_probabilities(load_model(concat, "final", 0), source_of(plan), some)
    names = [plan.cache.ids[index] for index in some]
    found = predicted(of_both, spoken, names)
    assert largest_difference(found, dict(zip(names, expected, strict=True)), of_both.classes) <= TOLERANCE


def test_without_a_final_model_the_folds_are_averaged(spoken: Path, audio: RunFolder, of_speech: Predictor) -> None:
    assert re.fullmatch(r"mean of the models of 3 folds \(train .* with --final\)", of_speech.source)
    plan, some = planned(spoken, RUNS["audio"]), np.arange(1, 18, 3)
    single = [
        predict_probabilities(load_model(audio, fold, 0), source_of(plan), some) for fold in audio.identity["folds"]
    ]
    names = [plan.cache.ids[index] for index in some]
    expected = dict(zip(names, np.mean(single, axis=0), strict=True))
    found = predicted(of_speech, spoken, names)
    assert largest_difference(found, expected, of_speech.classes) <= TOLERANCE


def test_batches_and_int8_give_the_same(spoken: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    cache = Path(shutil.copytree(spoken.parent, small)) / "small.h5"
    featurized(small / "corpus.csv", cache, encoders=("wav2vec2-tiny", "roberta-tiny"), dtype="int8", mel=False)
    run = run_of(cache, tmp_path / "run", replace(RUNS["concat"], own_folds=ONE_FOLD))
    (fold,) = run.identity["folds"]
    predictor = load_predictor(run.path, fold=fold, device="cpu", batch_seconds=5)
    expected = stored(run, fold)
    found = predicted(predictor, cache, list(expected))
    assert largest_difference(found, expected, predictor.classes) <= TOLERANCE


def test_each_fold_reads_the_stream_of_its_own_encoder(spoken: Path, tuned: RunFolder, tmp_path: Path) -> None:
    """Encoders of folders are named by the user, and another encoder is refused."""
    folder = Path(shutil.copytree(spoken.parent, tmp_path / "corpus"))
    encoders = {f"own{fold}": tuned.model(fold, 0).path / "audio" for fold in TWO_FOLDS["session"]}
    requests = tuple(f"{name}={path}" for name, path in encoders.items())
    featurized(folder / "corpus.csv", folder / "own.h5", encoders=requests, audio_only=True, mel=False)
    run = run_of(folder / "own.h5", tmp_path / "run", wanted("audio", {"audio": "own*"}, only=TWO_FOLDS))
    assert list(run.identity["folds"]) == list(TWO_FOLDS["session"])
    for fold in run.identity["folds"]:
        predictor = load_predictor(run.path, fold=fold, device="cpu", encoders={f"own{fold}": encoders[f"own{fold}"]})
        expected = stored(run, fold)
        found = predicted(predictor, folder / "own.h5", list(expected))
        assert largest_difference(found, expected, predictor.classes) <= TOLERANCE
    first, second = encoders
    with pytest.raises(MmerError, match=f"it came from a folder named audio; pass --encoder {first}=FOLDER"):
        load_predictor(run.path, fold=first.removeprefix("own"))
    with pytest.raises(MmerError, match=r"is not the encoder that the run was trained with .*other weights"):
        load_predictor(run.path, fold=first.removeprefix("own"), encoders={first: encoders[second]})
    with pytest.raises(MmerError, match=f"--encoder other: the run has no such encoder; it has {first}"):
        load_predictor(
            run.path, fold=first.removeprefix("own"), encoders={first: encoders[first], "other": encoders[first]}
        )


@pytest.mark.parametrize("fusion", ["concat", "rescmfa", "tab", "bimodal", "label-guided"])
def test_without_text_the_missing_modality_path_predicts(
    spoken: Path, run_named: Callable[[str], RunFolder], predictor_named: Callable[[str], Predictor], fusion: str
) -> None:
    run, predictor = run_named(fusion), predictor_named(fusion)
    (fold,) = run.identity["folds"]
    plan = planned(spoken, replace(RUNS[fusion], own_folds=ONE_FOLD))
    batch = source_of(plan).batch(np.arange(SOME))
    with torch.no_grad():
        absent = torch.ones(SOME, dtype=torch.bool)
        expected = load_model(run, fold, 0)(batch.without("text", absent)).logits.softmax(dim=1)
    files = [spoken.parent / utterance.audio for utterance in utterances(spoken)[:SOME]]
    found = [predictor.predict(file) for file in files]
    rows = [[row.probabilities[name] for name in predictor.classes] for row in found]
    np.testing.assert_allclose(rows, expected, atol=TOLERANCE)
    with_text = predictor.predict(files[0], text=utterances(spoken)[0].text)
    assert with_text.probabilities != found[0].probabilities


def test_a_run_without_modality_dropout_needs_the_text(spoken: Path, of_both: Predictor) -> None:
    first = utterances(spoken)[0]
    with pytest.raises(MmerError, match=r"reads speech and text, and no text is given; .* with --modality-dropout"):
        of_both.predict(spoken.parent / first.audio)
    rows = [row for (row,) in of_both.predict_all(list_recordings([str(spoken.parent / first.audio)]))]
    assert rows[0].error == "no text for it"


def test_a_run_that_reads_text_alone_needs_no_recording(
    spoken: Path, run_named: Callable[[str], RunFolder], predictor_named: Callable[[str], Predictor]
) -> None:
    run, predictor = run_named("text"), predictor_named("text")
    (fold,) = run.identity["folds"]
    expected = stored(run, fold)
    by_id = {utterance.id: utterance for utterance in utterances(spoken)}
    for name, values in expected.items():
        found = predictor.predict(None, text=by_id[name].text)
        np.testing.assert_allclose(list(found.probabilities.values()), values, atol=TOLERANCE)


def test_an_array_gives_what_its_file_gives(spoken: Path, of_both: Predictor, tmp_path: Path) -> None:
    first = utterances(spoken)[0]
    mono, rate_hz = soundfile.read(spoken.parent / first.audio, dtype="float32")
    expected = of_both.predict(spoken.parent / first.audio, text=first.text)
    whole = np.round(mono * 32768).clip(-32768, 32767).astype(np.int16)
    for samples in (mono, mono.astype(np.float64), np.stack([mono, mono], axis=1), whole):
        found = of_both.predict((samples, rate_hz), text=first.text)
        assert found.file == "array"
        assert found.probabilities == pytest.approx(expected.probabilities, abs=TOLERANCE)
    soundfile.write(tmp_path / "slow.wav", mono, 44_100, subtype="FLOAT")
    resampled = of_both.predict(tmp_path / "slow.wav", text=first.text)
    assert of_both.predict((mono, 44_100), text=first.text).probabilities == resampled.probabilities


@pytest.mark.parametrize(
    ("samples", "rate_hz", "message"),
    [
        (np.zeros((2, 3, 4)), 16_000, r"samples must be numbers of shape .* got float64 \(2, 3, 4\)"),
        (np.zeros(0), 16_000, "samples must be numbers"),
        (np.zeros(900, np.uint8), 16_000, "samples must be floats or signed integers, got uint8"),
        (np.zeros(900), 0, "the rate must be a whole number of samples per second, got 0"),
    ],
)
def test_an_array_that_is_not_a_sound_is_refused(
    of_both: Predictor, samples: npt.NDArray[Any], rate_hz: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        of_both.predict((samples, rate_hz), text="")


def test_a_time_line_ends_with_the_mean_of_its_windows(spoken: Path, of_speech: Predictor, tmp_path: Path) -> None:
    sound = np.concatenate([tone(0.5, pitch_hz=100 + 50 * number, seed=number) for number in range(4)])
    soundfile.write(tmp_path / "long.wav", sound, RATE_HZ, subtype="FLOAT")
    *windows, whole = of_speech.timeline(tmp_path / "long.wav", window_s=0.8, hop_s=0.5)
    assert [(row.start_s, row.end_s) for row in windows] == [(0.0, 0.8), (0.5, 1.3), (1.0, 1.8), (1.5, 2.0)]
    for row in windows:
        assert row.start_s is not None
        assert row.end_s is not None
        piece = sound[round(row.start_s * RATE_HZ) : round(row.end_s * RATE_HZ)]
        assert row.probabilities == pytest.approx(of_speech.predict((piece, RATE_HZ)).probabilities, abs=1e-6)
    durations = [0.8, 0.8, 0.8, 0.5]
    values = np.average([list(row.probabilities.values()) for row in windows], axis=0, weights=durations)
    assert (whole.start_s, whole.end_s) == (None, None)
    np.testing.assert_allclose(list(whole.probabilities.values()), values, atol=1e-9)
    (single,) = of_speech.timeline(tmp_path / "long.wav", window_s=2.5)
    assert single.probabilities == of_speech.predict(tmp_path / "long.wav").probabilities


def test_a_recording_that_cannot_be_predicted_is_a_row(spoken: Path, of_speech: Predictor, tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    (tmp_path / "noise.wav").write_bytes(b"no sound at all")
    soundfile.write(tmp_path / "long.wav", np.zeros(61 * 8000, np.float32), 8000)
    good = spoken.parent / utterances(spoken)[0].audio
    files = [str(tmp_path / name) for name in ("empty.wav", "noise.wav", "long.wav", "gone.wav")]
    for cutter in (None, Windows(window_s=30, hop_s=30)):
        found = list(of_speech.predict_all(list_recordings([*files, str(good)]), cutter=cutter))
        errors = [rows[-1].error for rows in found]
        assert errors[0] == "empty: zero bytes"
        assert errors[1].startswith("cannot be decoded")
        assert (errors[2] == "") == (cutter is not None)
        assert errors[3].startswith("missing: not found (tried ")
        assert errors[4:] == [""]
    assert len(found[2]) == 4
    with pytest.raises(MmerError, match=r"long.wav: 61 s, longer than 60 s, the limit .*; pass --window SECONDS"):
        of_speech.predict(tmp_path / "long.wav")
