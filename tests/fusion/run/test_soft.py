"""Runs on the votes of annotators: shares as targets, the majority and the divergence as scores."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from torch.nn import functional

from cache.errors import MmerError
from cache.joined import open_cache
from fusion.data.features import CachedFeatures
from fusion.evaluation.metrics import compute_scores
from fusion.evaluation.statistics import SoftPredictions, pooled_scores
from fusion.evaluation.votes import SOFT
from fusion.experiment.plan import plan_run
from fusion.experiment.request import ExperimentRequest
from fusion.run.compare import compare_runs
from fusion.run.cross_corpus import plan_other_corpus, score_other_corpus
from fusion.run.folder import RunFolder
from fusion.run.load import load_model
from fusion.run.score_fusion import fuse_scores
from fusion.run.train import TrainedRun, train_run
from fusion.training.evaluate import predict_probabilities
from tests.support.heads import samples
from tests.support.runs import QUICK, reader_of, utterances, write_cache

HEARD = ("audio", "text", "tokens", "codes", "chars")
NAMES = ("angry", "calm", "happy", "sad")


@pytest.fixture(scope="module")
def voted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with three votes for the label and one for the next class; some ties, one utterance without votes."""
    drawn = samples(72)
    told = []
    for index, utterance in enumerate(utterances(drawn)):
        other = NAMES[(NAMES.index(utterance.label) + 1) % 4]
        votes = f"{utterance.label}:2,{other}:2" if index % 12 == 5 else f"{utterance.label}:3,{other}:1"
        told.append(replace(utterance, votes="" if index == 0 else votes))
    return write_cache(tmp_path_factory.mktemp("voted") / "voted.h5", utterances=told, roles=HEARD)


def rows_of(run: TrainedRun) -> list[dict[str, str]]:
    rows = []
    for fold in "123":
        with (run.folder / f"{fold}-seed0" / "predictions.csv").open(newline="") as file:
            rows += list(csv.DictReader(file))
    return rows


def request(fusion: str = "concat", *, target: str = "soft", **fields: Any) -> ExperimentRequest:
    return ExperimentRequest(fusion=fusion, fields={**QUICK, "epochs": 1, **fields}, target=target)


@pytest.fixture(scope="module")
def run(voted: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """A finished run; tests only read it."""
    opened = reader_of(voted)
    fields = {"balanced_batches": "true", "class_weights": "true"}
    return train_run(request(**fields).experiment(opened), opened, out=tmp_path_factory.mktemp("runs") / "soft")


def test_the_column_of_votes_is_stored_and_read(voted: Path) -> None:
    found = reader_of(voted).utterances
    assert (found[0].votes, found[1].votes.count(":")) == ("", 2)


def test_scores_are_those_of_the_majority_and_the_divergence_of_scipy(run: TrainedRun) -> None:
    with (run.folder / "1-seed0" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "label", "guess", *(f"v_{name}" for name in NAMES), *(f"p_{name}" for name in NAMES)]
    truth, guess = SOFT.parse(rows, NAMES)
    assert {*truth.ravel().tolist()} == {0.0, 0.25, 0.75}
    expected = compute_scores(truth.argmax(axis=1), guess.argmax(axis=1), 4).as_dict()
    expected["kl"] = float(np.mean([entropy(t, p) for t, p in zip(truth, guess, strict=True)]))
    assert {name: run.folds[0][name] for name in SOFT.names} == pytest.approx(expected)
    assert run.results["interval"]["kl"][0] < run.results["pooled"]["kl"] < run.results["interval"]["kl"][1]
    assert {"recall", "calibration"} <= run.results.keys()


def test_ties_and_utterances_without_votes_are_told_and_left_out(voted: Path, run: TrainedRun) -> None:
    notes = "\n".join(run.results["notes"])
    assert "1 of 72 utterances are left out, they have no vote for a class" in notes
    assert "6 of 72 utterances have no majority, they are left out (--target soft,ties trains on them)" in notes
    opened = reader_of(voted)
    plan = plan_run(request(target="soft,ties").experiment(opened), opened)
    tied = {5 + 12 * number for number in range(6)}
    assert "6 of 72 utterances have no majority, they are only trained on" in plan.split.notes
    assert any(tied & {*fold.train.tolist()} for fold in plan.split.folds)
    assert not any(tied & {*fold.dev.tolist(), *fold.test.tolist()} for fold in plan.split.folds)


def test_the_loss_is_the_cross_entropy_against_the_shares() -> None:
    logits, shares = torch.randn(6, 4), torch.rand(6, 4).softmax(dim=1)
    expected = -(shares * logits.log_softmax(dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(SOFT.loss(logits, shares), expected)
    assert SOFT.loss(logits, shares) == functional.cross_entropy(logits, shares)


def test_sums_over_clusters_give_the_scores_of_all_predictions() -> None:
    random = np.random.default_rng(0)
    truth, guess = random.dirichlet(np.ones(3), 40), random.dirichlet(np.ones(3), 40)
    speakers = np.array([f"s{index % 5}" for index in range(40)])
    found = SoftPredictions(ids=np.arange(40).astype(str), truth=truth, guess=guess, clusters=speakers, classes=3)
    assert pooled_scores(found) == pytest.approx(SOFT.evaluate(truth, guess, 3))


@pytest.mark.parametrize("fusion", ["score", "label-guided"])
def test_heads_that_compare_classes_read_the_majority(voted: Path, tmp_path: Path, fusion: str) -> None:
    opened = reader_of(voted)
    found = train_run(request(fusion).experiment(opened), opened, out=tmp_path / "run")
    assert found.mean["kl"] > 0


def test_a_corpus_without_votes_and_a_focal_loss_are_one_line(trainable: Path, voted: Path) -> None:
    opened = reader_of(trainable)
    with pytest.raises(MmerError, match="need votes for at least two labels, got none; a manifest has them in the col"):
        plan_run(request().experiment(opened), opened)
    with pytest.raises(MmerError, match="--target soft has no focal loss; set focal_gamma to 0"):
        request(focal_gamma=2).experiment(reader_of(voted))


def test_runs_on_votes_are_compared_and_fused(voted: Path, run: TrainedRun, tmp_path: Path) -> None:
    opened = reader_of(voted)
    other = train_run(request("audio").experiment(opened), opened, out=tmp_path / "audio")
    found = compare_runs([run.folder, other.folder])
    (pair,) = found.pairs
    assert pair.difference.difference == pytest.approx(
        {name: other.results["pooled"][name] - run.results["pooled"][name] for name in SOFT.names}
    )
    assert pair.mcnemar is not None
    right = [sum(row["label"] == row["guess"] for row in rows_of(held)) for held in (run, other)]
    assert pair.mcnemar.first_only - pair.mcnemar.second_only == right[0] - right[1]
    fused = fuse_scores([RunFolder(run.folder), RunFolder(other.folder)], opened, RunFolder(tmp_path / "fused"))
    assert fused["task"] == "soft"
    p = [np.array([[float(row[f"p_{name}"]) for name in NAMES] for row in rows_of(held)]) for held in (run, other)]
    product = p[0] * p[1]
    expected = product / product.sum(axis=1, keepdims=True)
    votes = np.array([[float(row[f"v_{name}"]) for name in NAMES] for row in rows_of(run)])
    assert fused["pooled"] == pytest.approx(SOFT.evaluate(votes, expected, 4))


def test_models_are_scored_on_the_votes_of_another_corpus(voted: Path, run: TrainedRun, tmp_path: Path) -> None:
    """The other corpus has no votes for sad: those shares are left out, and so is the class among the guesses."""
    told = []
    for held in reader_of(voted).utterances:
        votes = held.votes.replace("angry", "anger").replace("sad", "bored")
        told.append(replace(held, id=f"x{held.id}", votes=votes))
    other = open_cache(
        write_cache(tmp_path / "other.h5", utterances=told, corpus={"name": "other", "root": ""}, roles=HEARD)
    )
    opened = reader_of(voted)
    plan = plan_run(request(balanced_batches="true", class_weights="true").experiment(opened), opened)
    joined = plan_other_corpus(plan, other)
    assert joined.labels == ("angry", "calm", "happy")
    assert "on other: votes for bored are left out, no class of the run" in joined.notes
    scores = score_other_corpus(plan, RunFolder(run.folder), joined, device=torch.device("cpu"))
    source = CachedFeatures(opened, plan.selection.streams, plan.split.classes)
    p = predict_probabilities(load_model(RunFolder(run.folder), "2", 0), source, joined.chosen)[:, :3]
    p = np.column_stack([p / p.sum(axis=1, keepdims=True), np.zeros(len(p))])
    assert scores["models"][1] == pytest.approx(
        {"fold": "2", "seed": 0, **SOFT.evaluate(joined.truth[joined.chosen], p, 4, complete=False)}
    )


def test_a_report_of_votes_shows_the_confusion_of_the_majority(run: TrainedRun, tmp_path: Path) -> None:
    from fusion.report.report import write_report

    page = write_report([run.folder], out=tmp_path / "report.html").path.read_text()
    assert ">Confusion<" in page
    assert "KL" in page
