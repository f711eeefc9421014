import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, recall_score

from cache.errors import MmerError
from cache.joined import open_cache
from fusion.data.features import CachedFeatures
from fusion.experiment.request import ExperimentRequest
from fusion.run.cross_corpus import cross_table, plan_other_corpus, score_other_corpus
from fusion.run.folder import RunFolder
from fusion.run.load import load_model
from fusion.run.train import train_across, train_run
from fusion.training.evaluate import predict_probabilities
from tests.support.heads import CLASSES
from tests.support.runs import CPU, TWO_FOLDS, finish, other_corpus, plan, reader_of, train_by_command

VOICES = {"roles": ["audio"]}  # all that these heads read


@pytest.fixture(scope="module")
def run(trainable: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("cross") / "run"
    finish(plan(trainable, "audio", seeds=(1, 2), **TWO_FOLDS), folder)
    return RunFolder(folder)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert CLASSES[0] == "angry"
    return other_corpus(tmp_path_factory.mktemp("other") / "other.h5", {"angry": "ang", CLASSES[1]: "bored"}, **VOICES)


def test_every_model_is_scored_on_the_common_classes(trainable: Path, run: RunFolder, other: Path) -> None:
    planned = plan(trainable, "audio", seeds=(1, 2), **TWO_FOLDS)
    found = plan_other_corpus(planned, open_cache(other))
    scores = score_other_corpus(planned, run, found, device=CPU)
    assert [(model["fold"], model["seed"]) for model in scores["models"]] == [(f, s) for s in (1, 2) for f in "12"]
    every = sorted(CLASSES)  # the order of the label set
    common = [name for name in every if name != CLASSES[1]]
    assert scores["labels"] == common
    source = CachedFeatures(open_cache(other), {"audio": "voice"}, found.truth)
    probabilities = predict_probabilities(load_model(run, "2", 1), source, found.chosen)
    columns = [every.index(name) for name in common]
    guess = np.array(columns)[probabilities[:, columns].argmax(axis=1)]
    truth = found.truth[found.chosen]
    model = scores["models"][1]
    assert model["wa"] == pytest.approx(accuracy_score(truth, guess))
    assert model["ua"] == pytest.approx(recall_score(truth, guess, average="macro"))
    assert model["mf1"] == pytest.approx(f1_score(truth, guess, average="macro"))
    assert scores["mean"]["ua"] == pytest.approx(np.mean([held["ua"] for held in scores["models"]]))
    assert scores["test"] == len(truth) == sum(held.label != CLASSES[1] for held in reader_of(trainable).utterances)


def test_what_is_left_out_and_joined_is_told(trainable: Path, other: Path) -> None:
    notes = "\n".join(plan_other_corpus(plan(trainable, "audio"), open_cache(other)).notes)
    count = sum(held.label == "bored" for held in open_cache(other).utterances)
    assert "on other: classes joined by name: ang is angry" in notes
    assert f"on other: left out, not a class of the run: bored ({count})" in notes
    assert f"on other: no utterance of class {CLASSES[1]}: guesses, UA and M-F1 are over" in notes
    assert "recordings are in the run's corpus too, so models may have been trained on them" in notes


def test_a_cache_without_the_stream_or_with_another_key_is_one_line(trainable: Path, tmp_path: Path) -> None:
    planned = plan(trainable, "audio")
    with pytest.raises(MmerError, match=r"o.h5 has no stream voice with the key of the run \(\w+\); compute it"):
        plan_other_corpus(planned, open_cache(other_corpus(tmp_path / "o.h5", {}, roles=["text"])))
    changed = other_corpus(tmp_path / "p.h5", {}, specs={"audio": {"revision": "another"}}, **VOICES)
    with pytest.raises(MmerError, match=r"p.h5: voice was computed differently than in the run \(.*another.*\)"):
        plan_other_corpus(planned, open_cache(changed))


def test_fewer_than_two_common_classes_are_one_line(trainable: Path, tmp_path: Path) -> None:
    path = other_corpus(tmp_path / "o.h5", {name: f"z{name}" for name in CLASSES}, **VOICES)
    planned = plan(trainable, "audio")
    with pytest.raises(
        MmerError, match=r"o.h5 has utterances of 0 classes of the run .* --test-labels, such as angry="
    ):
        plan_other_corpus(planned, open_cache(path))
    labels = ",".join(f"{name}=z{name}" for name in CLASSES)
    assert plan_other_corpus(planned, open_cache(path), labels=labels).labels == tuple(sorted(CLASSES))


def test_each_corpus_is_trained_on_and_tested_on_the_other(trainable: Path, other: Path, tmp_path: Path) -> None:
    request = ExperimentRequest(fusion="audio", fields={"epochs": 1, "batch_size": 32})
    caches = [(path, open_cache(path)) for path in (trainable, other)]
    runs = train_across(request, caches, out=tmp_path)
    header, rows = cross_table([found.results for found in runs])
    assert header[:3] == ["trained on", "tested on", "test"]
    names = [trainable.stem, other.stem]
    assert [row[:2] for row in rows] == [[a, b] for a in names for b in sorted(names, key=lambda name: name != a)]
    assert [found.folder for found in runs] == [tmp_path / name for name in names]
    written = json.loads((tmp_path / "toy" / "results.json").read_text())
    assert written["cross"][0]["name"] == "other"
    with pytest.raises(MmerError, match="needs two or more caches of different names, got toy; pass the others with"):
        train_across(request, caches[:1])


def test_a_wrong_test_cache_is_answered_before_any_training(trainable: Path, tmp_path: Path) -> None:
    wrong = other_corpus(tmp_path / "o.h5", {}, roles=["text"])
    experiment = ExperimentRequest(fusion="audio").experiment(reader_of(trainable))
    with pytest.raises(MmerError, match="has no stream voice"):
        train_run(experiment, reader_of(trainable), out=tmp_path / "run", test_caches=[open_cache(wrong)])
    assert not (tmp_path / "run").exists()


def test_the_command_prints_a_table_corpus_by_corpus(
    trainable: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("--fusion", "audio", "--test-cache", str(other), "--protocol", "cross")
    result = train_by_command(trainable, *options)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split()[:6] == ["trained", "on", "tested", "on", "test", "WA"]
    assert [line.split()[:2] for line in lines[1:5]] == [
        ["toy", "toy"],
        ["toy", "other"],
        ["other", "other"],
        ["other", "toy"],
    ]
    assert any(line.startswith("  on toy: left out") for line in lines)
