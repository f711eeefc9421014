import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache.errors import MmerError
from fusion.evaluation.metrics import compute_scores
from fusion.run.artifacts import read_probabilities
from fusion.run.folder import ModelFolder, RunFolder
from fusion.run.score_fusion import fuse_scores
from tests.support.runs import files_of, finish, plan, reader_of

NAMES = ["angry", "calm", "happy", "sad"]


@pytest.fixture(scope="module")
def runs(trainable: Path, tmp_path_factory: pytest.TempPathFactory) -> list[RunFolder]:
    """One of audio with one seed, one of text with two."""
    folder = tmp_path_factory.mktemp("adding")
    finish(plan(trainable, "audio"), folder / "audio")
    finish(plan(trainable, "text", seeds=(1, 2)), folder / "text")
    return [RunFolder(folder / "audio"), RunFolder(folder / "text")]


def test_the_sum_of_logits_is_what_is_scored(runs: list[RunFolder], trainable: Path, tmp_path: Path) -> None:
    out = RunFolder(tmp_path / "sum")
    results = fuse_scores(runs, reader_of(trainable), out)
    audio = read_probabilities(runs[0].model("1", 0), NAMES)
    text = [read_probabilities(runs[1].model("1", seed), NAMES) for seed in (1, 2)]
    added = read_probabilities(out.model("1", 0), NAMES)
    assert audio.keys() == added.keys()
    for name, row in added.items():
        product = audio[name] * np.sqrt(text[0][name] * text[1][name])  # averaged logits are geometric means
        np.testing.assert_allclose(row, product / product.sum(), rtol=1e-6)
    assert (results["fusion"], results["protocol"], len(results["folds"])) == ("score", "session", 3)
    assert results["folds"][0]["parameters"] == 2 * (4 * 24 + 4)
    assert out.read("run.json")["notes"][0].startswith("the sum of the logits of ")


def test_the_folder_is_of_the_same_form_and_may_be_written_again(
    runs: list[RunFolder], trainable: Path, tmp_path: Path
) -> None:
    out = RunFolder(tmp_path / "sum")
    results = fuse_scores(runs, reader_of(trainable), out)
    before = files_of(out.path)
    assert fuse_scores(runs, reader_of(trainable), out) == results == out.read("results.json")
    assert files_of(out.path) == before
    assert {"run.json", "results.json", "confusion.csv", "confusion.png", "3-seed0/predictions.csv"} <= before.keys()
    again = RunFolder(tmp_path / "again")
    assert fuse_scores([out, runs[0]], reader_of(trainable), again)["fusion"] == "score"


def test_another_sum_takes_its_place_only_when_told(runs: list[RunFolder], trainable: Path, tmp_path: Path) -> None:
    cache, out = reader_of(trainable), RunFolder(tmp_path / "sum")
    fuse_scores(runs, cache, out)
    with pytest.raises(MmerError, match="holds a different run"):
        fuse_scores([runs[0], runs[0]], cache, out)
    fuse_scores([runs[0], runs[0]], cache, out, replace=True)
    with pytest.raises(MmerError, match="is one of the runs to fuse; choose another --out"):
        fuse_scores(runs, cache, runs[0], replace=True)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"labels": "loud=angry+happy,low=sad+calm"}, r"have different labels \(angry, calm, happy, sad; loud, low\)"),
        ({"protocol": "random5"}, r"have different protocol \(session; random5\)"),
    ],
)
def test_runs_that_do_not_belong_together_are_refused(
    runs: list[RunFolder], trainable: Path, tmp_path: Path, asked: dict[str, Any], told: str
) -> None:
    finish(plan(trainable, "text", {"epochs": 1}, **asked), tmp_path / "other")
    with pytest.raises(MmerError, match=told):
        fuse_scores([runs[0], RunFolder(tmp_path / "other")], reader_of(trainable), RunFolder(tmp_path / "sum"))
    assert not (tmp_path / "sum").exists()


def test_other_test_utterances_are_named(runs: list[RunFolder], trainable: Path, tmp_path: Path) -> None:
    changed = RunFolder(Path(shutil.copytree(runs[1].path, tmp_path / "changed")))
    part = changed.model("2", 1)
    rows, scores = part.read_rows("predictions.csv"), part.read("scores.json")
    _write(part, rows[1:], scores)
    with pytest.raises(MmerError, match=rf"fold 2: 1 test utterances are in only one of .* \(first: {rows[0]['id']}\)"):
        fuse_scores([runs[0], changed], reader_of(trainable), RunFolder(tmp_path / "sum"))
    swapped = {"sad": "calm", "calm": "sad"}
    _write(part, [{**row, "label": swapped.get(row["label"], row["label"])} for row in rows], scores)
    with pytest.raises(MmerError, match=r"different labels of u\d\d \(\w+; \w+\); train both again"):
        fuse_scores([runs[0], changed], reader_of(trainable), RunFolder(tmp_path / "sum"))


def test_a_run_that_is_none_or_not_finished_is_told(runs: list[RunFolder], trainable: Path, tmp_path: Path) -> None:
    with pytest.raises(MmerError, match=r"nowhere is not a run folder, it does not exist"):
        fuse_scores([runs[0], RunFolder(tmp_path / "nowhere")], reader_of(trainable), RunFolder(tmp_path / "sum"))
    half = RunFolder(Path(shutil.copytree(runs[1].path, tmp_path / "half")))
    half.model("3", 2).delete("scores.json")
    with pytest.raises(MmerError, match=r"3-seed2/scores.json cannot be read .*; repeat the command of the run"):
        fuse_scores([runs[0], half], reader_of(trainable), RunFolder(tmp_path / "sum"))


def _write(part: ModelFolder, rows: list[dict[str, str]], scores: dict[str, Any]) -> None:
    """Writes predictions, and scores that follow from them."""
    truth, guess = (np.array([NAMES.index(row[column]) for row in rows]) for column in ("label", "guess"))
    scored = {**scores, "test": len(rows), **compute_scores(truth, guess, len(NAMES)).as_dict(), "digests": {}}
    part.write("scores.json", scored)
    with (part.path / "predictions.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
