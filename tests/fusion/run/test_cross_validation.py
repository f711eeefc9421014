import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cache.errors import MmerError
from fusion.experiment.plan import RunPlan
from fusion.heads.catalog import config_for
from fusion.run.artifacts import read_probabilities
from fusion.run.cross_validation import cross_validate
from fusion.run.folder import RunFolder
from fusion.training.checkpoint import BEST, EpochScores, load_checkpoint
from fusion.training.evaluate import predict_probabilities
from tests.support.runs import TWO_FOLDS, Told, files_of, finish, plan, reader_of, write_cache

CPU = torch.device("cpu")
FAST: Mapping[str, object] = {"epochs": "1", "dim": "8"}


class Killed(Exception):
    """Stands for a kill."""


class Dying(Told):
    """Does not survive one of the epochs of all models."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.left = epochs

    def epoch(self, scores: EpochScores) -> None:
        super().epoch(scores)
        self.left -= 1
        if not self.left:
            raise Killed


def killed_after(epochs: int, planned: RunPlan, folder: Path) -> None:
    with pytest.raises(Killed):
        cross_validate(planned, RunFolder(folder), device=CPU, progress=Dying(epochs), save_every_s=0)


@pytest.fixture(scope="module")
def undisturbed(trainable: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    finish(plan(trainable, "concat", seeds=(1, 2)), folder)
    return folder


@pytest.mark.parametrize("epochs", [1, 2, 7, 12])  # in the first model, after it, with the second seed, last
def test_a_run_killed_in_any_model_ends_bit_equal_to_an_undisturbed_one(
    trainable: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: int
) -> None:
    planned = plan(trainable, "concat", seeds=(1, 2))
    monkeypatch.chdir(tmp_path)
    killed_after(epochs, planned, tmp_path / "run")
    told = Told()
    finish(planned, tmp_path / "run", told)
    assert len(told.epochs) == 12 - epochs  # the epoch before the kill was saved, so none is trained twice
    mine, theirs = files_of(tmp_path / "run"), files_of(undisturbed)
    for files, folder in ((mine, tmp_path / "run"), (theirs, undisturbed)):
        files["results.json"] = files["results.json"].replace(str(folder).encode(), b"RUN")
    assert mine == theirs


def test_a_finished_run_is_read_and_not_trained(trainable: Path, undisturbed: Path) -> None:
    before, told = files_of(undisturbed), Told()
    finish(plan(trainable, "concat", seeds=(1, 2)), undisturbed, told)
    assert told.started == []
    assert told.notes == ["all models are trained and scored; nothing is trained again"]
    assert files_of(undisturbed) == before


def test_a_state_that_a_kill_left_beside_the_scores_goes(trainable: Path, undisturbed: Path) -> None:
    state = undisturbed / "1-seed1" / "state.safetensors"
    state.write_bytes(b"")
    finish(plan(trainable, "concat", seeds=(1, 2)), undisturbed)
    assert not state.exists()


def test_another_run_is_refused_before_anything_is_trained(trainable: Path, undisturbed: Path) -> None:
    before = files_of(undisturbed)
    with pytest.raises(MmerError, match=r"already holds this run with seed 1, 2; also pass --seed 2 to add to it"):
        finish(plan(trainable, "concat", seeds=(1,)), undisturbed)
    assert files_of(undisturbed) == before


def test_the_folder_holds_what_the_run_was(trainable: Path, undisturbed: Path) -> None:
    folder, cache = RunFolder(undisturbed), reader_of(trainable)
    told = folder.read("run.json")
    assert told["decides"]["head"] == json.loads(json.dumps(config_for("concat", {}).__dict__))
    assert {"mmer", "python", "torch", "numpy", "h5py", "safetensors", "scikit-learn"} == told["versions"].keys()
    assert told["specs"]["audio"]["name"] == "voice"
    assert told["decides"]["streams"]["text"].endswith(cache.stream("words@4").key)
    rows = folder.read_rows("splits.csv")
    assert [row["id"] for row in rows] == cache.ids
    for fold in ("1", "2", "3"):
        tested = {row["id"] for row in rows if row[f"fold {fold}"] == "test"}
        assert tested == set(read_probabilities(folder.model(fold, 1), list(told["decides"]["labels"])))
        assert {row[f"fold {fold}"] for row in rows} == {"train", "dev", "test"}
    curves = folder.model("1", 2).read_rows("curves.csv")
    assert [row["epoch"] for row in curves] == ["1", "2"]
    assert curves[0].keys() == {"epoch", "cross_entropy", "total", "dev_wa", "dev_ua", "dev_wf1", "dev_mf1", "dev_loss"}


def test_a_loss_that_is_not_finite_names_batch_and_epoch_and_keeps_the_best_weights(
    trainable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = plan(trainable, "audio", {"epochs": "5"})
    killed_after(1, planned, tmp_path)
    good = load_checkpoint(tmp_path / "1-seed0" / "state.safetensors").tensors[BEST]
    broken = "torch.nn.functional.cross_entropy"
    monkeypatch.setattr(broken, lambda logits, *_, **__: logits.sum() * torch.nan)
    for _ in range(2):  # told again, and not trained over
        with pytest.raises(MmerError, match=r"loss cross_entropy is nan in batch 1 of epoch 2; lower lr .* of epoch 1"):
            finish(planned, tmp_path)
    kept = load_checkpoint(tmp_path / "1-seed0" / "state.safetensors").tensors[BEST]
    assert all(torch.equal(kept[name], tensor) for name, tensor in good.items())
    assert good


def test_a_state_of_a_version_without_macro_f1_is_resumed(trainable: Path, tmp_path: Path) -> None:
    planned = plan(trainable, "audio", {"epochs": "3", "batch_size": "11"}, **TWO_FOLDS)
    finish(planned, tmp_path / "whole")
    killed_after(1, planned, tmp_path / "old")
    state = tmp_path / "old" / "1-seed0" / "state.safetensors"
    found = load_checkpoint(state)
    found.progress.curves = [
        replace(one, dev={name: value for name, value in one.dev.items() if name != "mf1"})
        for one in found.progress.curves
    ]
    found.save(state)
    finish(planned, tmp_path / "old")
    old, whole = (RunFolder(tmp_path / name).model("1", 0) for name in ("old", "whole"))
    rows, expected = old.read_rows("curves.csv"), whole.read_rows("curves.csv")
    assert [row["dev_mf1"] for row in rows] == ["", *(row["dev_mf1"] for row in expected[1:])]
    assert [{**row, "dev_mf1": ""} for row in rows] == [{**row, "dev_mf1": ""} for row in expected]
    for name in ("weights.safetensors", "predictions.csv"):
        assert (old.path / name).read_bytes() == (whole.path / name).read_bytes()


def test_macro_f1_may_choose_the_epoch(trainable: Path, tmp_path: Path) -> None:
    finish(plan(trainable, "audio", {"epochs": "4", "monitor": "mf1"}, **TWO_FOLDS), tmp_path)
    part = RunFolder(tmp_path).model("1", 0)
    by_epoch = [float(row["dev_mf1"]) for row in part.read_rows("curves.csv")]
    scores = part.read("scores.json")
    losses = [float(row["dev_loss"]) for row in part.read_rows("curves.csv")]
    best = [index for index, value in enumerate(by_epoch) if value == max(by_epoch)]
    assert scores["epoch"] == 1 + min(best, key=losses.__getitem__)
    assert scores["dev_scores"]["mf1"] == max(by_epoch)


def test_logits_of_test_that_are_not_finite_are_never_scored(
    trainable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: Any, **more: Any) -> Any:
        return predict_probabilities(*given, **more) * float("nan")

    monkeypatch.setattr("fusion.run.cross_validation.predict_probabilities", broken)
    with pytest.raises(MmerError, match="the logits of test utterance u00 are not finite"):
        finish(plan(trainable, "audio"), tmp_path)
    assert not (tmp_path / "1-seed0" / "scores.json").exists()


def test_memory_that_runs_out_is_one_line(trainable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def train_fold(*given: Any, **more: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr("fusion.run.cross_validation.train_fold", train_fold)
    with pytest.raises(MmerError, match=r"cpu is out of memory; lower --batch-size \(21\)"):
        finish(plan(trainable, "audio"), tmp_path)


def test_utterances_that_are_left_out_are_counted_and_have_no_part(tmp_path: Path) -> None:
    cache = write_cache(tmp_path / "a.h5", failing={"voice": 5}, roles=["audio"])
    with pytest.raises(MmerError, match=r"1 of 24 test utterances have no features \(u05: no voice, it is silent\)"):
        plan(cache, "audio")
    planned = plan(cache, "audio", allow_missing=True)
    results = finish(planned, tmp_path / "run")
    assert [(one["test"], one["test_of"]) for one in results["folds"]] == [(23, 24), (24, 24), (24, 24)]
    assert any("1 of 24 test utterances are left out" in note for note in planned.notes)
    row = RunFolder(tmp_path / "run").read_rows("splits.csv")[5]
    assert set(row.values()) == {"u05", "happy", "left out"}


def test_views_are_read_in_training(tmp_path: Path) -> None:
    planned = plan(write_cache(tmp_path / "a.h5", views=True), "bimodal", {"beta": "1", **FAST}, **TWO_FOLDS)
    assert planned.selection.streams["audio.view"] == "voice~lsa"
    finish(planned, tmp_path / "run")
    part = RunFolder(tmp_path / "run").model("1", 0)
    assert float(part.read_rows("curves.csv")[0]["ecl"]) > 0.1
    assert part.read("scores.json")["notes"] == [
        "auxiliary tasks: cpc (weight 0.1), augmented (weight 1)",
        "views: 1 for audio.view",
        "no stream for text.view: the original rows are used in the views",
    ]
    assert planned.identity["head"]["tasks"] == "auto"  # as earlier versions trained on a cache with views


def test_a_cache_without_views_gives_the_contrastive_task_as_well(trainable: Path, tmp_path: Path) -> None:
    """B-13: never silently nothing."""
    planned = plan(trainable, "bimodal", FAST, **TWO_FOLDS)
    assert planned.identity["head"]["tasks"] == "cpc+supervised"
    finish(planned, tmp_path / "run")
    part = RunFolder(tmp_path / "run").model("1", 0)
    assert float(part.read_rows("curves.csv")[0]["supervised"]) > 0.1
    assert part.read("scores.json")["notes"] == ["auxiliary tasks: cpc (weight 0.1), supervised (weight 0.1)"]
