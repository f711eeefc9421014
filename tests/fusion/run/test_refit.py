"""Refit: a second training of each fold on train and dev, for the median best epoch of the folds of its seed."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cache.errors import MmerError
from fusion.data.features import CachedFeatures
from fusion.evaluation.calibration import fit_temperature
from fusion.experiment.plan import RunPlan
from fusion.run.cross_validation import build_and_prepare_head, cross_validate
from fusion.run.final import median_epoch
from fusion.run.folder import RunFolder
from fusion.run.refit import refit_epochs, train_and_refit
from fusion.run.results import collect_results
from fusion.training.checkpoint import EpochScores
from fusion.training.evaluate import predict_logits
from fusion.training.loop import train_epochs
from tests.support.runs import Told, files_of, plan, train_by_command

CPU = torch.device("cpu")


class Killed(Exception):
    """Stands for a kill."""


class DyingAt(Told):
    """Does not survive a number of epochs, over all trainings."""

    def __init__(self, last: int) -> None:
        super().__init__()
        self.last = last

    def epoch(self, scores: EpochScores) -> None:
        super().epoch(scores)
        if len(self.epochs) == self.last:
            raise Killed


def planned(cache: Path, **fields: object) -> RunPlan:
    return plan(cache, "audio", {"epochs": 3, "patience": 3, "refit": True, **fields})


def refitted(run: RunPlan, folder: Path, told: Told | None = None, **options: Any) -> dict[str, Any]:
    train = partial(train_and_refit, RunFolder(folder))
    cross_validate(run, RunFolder(folder), device=CPU, progress=told or Told(), train=train, **options)
    return collect_results(RunFolder(folder), run.cache, run.identity)


@pytest.fixture(scope="module")
def run(trainable: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with refit; nobody writes to it."""
    folder = tmp_path_factory.mktemp("refit") / "run"
    refitted(planned(trainable), folder)
    return folder


def scores_of(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / name / "scores.json").read_text(encoding="utf-8"))
    return found


def test_the_first_training_selects_as_a_run_without_refit(trainable: Path, run: Path, tmp_path: Path) -> None:
    plain = plan(trainable, "audio", {"epochs": 3, "patience": 3})
    cross_validate(plain, RunFolder(tmp_path / "plain"), device=CPU, progress=Told())
    for fold in plain.split.folds:
        name = f"{fold.name}-seed0"
        first, second = scores_of(tmp_path / "plain", name), scores_of(run, name)
        assert (first["epoch"], first["dev_scores"]) == (second["epoch"], second["dev_scores"])
        assert first["temperature"] == second["temperature"]
        assert (run / name / "curves.csv").read_bytes() == (tmp_path / "plain" / name / "curves.csv").read_bytes()


def test_the_scored_model_is_trained_on_train_and_dev_for_the_median_epoch(trainable: Path, run: Path) -> None:
    again = planned(trainable)
    fold = again.split.folds[0]
    epochs = refit_epochs(again, RunFolder(run), 0)
    assert epochs == sorted(scores_of(run, f"{one.name}-seed0")["epoch"] for one in again.split.folds)[1]
    assert epochs == median_epoch(again, RunFolder(run), 0)
    source = CachedFeatures(again.cache, again.selection.streams, again.split.classes)
    both = np.sort(np.concatenate([fold.train, fold.dev]))
    head, _ = build_and_prepare_head(again, source, both, seed=0)
    trained = train_epochs(head, source, both, again.experiment.training, epochs=epochs)
    weights = load_file(run / f"{fold.name}-seed0" / "weights.safetensors")
    assert weights.keys() == trained.weights.keys()
    assert all(torch.equal(tensor, trained.weights[name]) for name, tensor in weights.items())


def test_the_temperature_is_that_of_the_first_model_on_its_dev(trainable: Path, run: Path) -> None:
    again = planned(trainable)
    fold = again.split.folds[0]
    source = CachedFeatures(again.cache, again.selection.streams, again.split.classes)
    head, _ = build_and_prepare_head(again, source, fold.train, seed=0)
    scores = scores_of(run, f"{fold.name}-seed0")
    train_epochs(head, source, fold.train, again.experiment.training, epochs=scores["epoch"])
    expected = fit_temperature(predict_logits(head, source, fold.dev).numpy(), again.split.classes[fold.dev])
    assert scores["temperature"] == pytest.approx(expected)


def test_results_say_what_was_trained(trainable: Path, run: Path) -> None:
    again = planned(trainable)
    results = collect_results(RunFolder(run), again.cache, again.identity)
    epochs = refit_epochs(again, RunFolder(run), 0)
    assert {fold["refit"] for fold in results["folds"]} == {epochs}
    note = f"once more on train and dev for the median best epoch of the folds, {epochs} (seed 0)"
    assert any(note in line for line in results["notes"])


@pytest.mark.parametrize("last", [4, 10])
def test_a_run_that_is_killed_in_either_training_ends_bit_equal(
    trainable: Path, run: Path, tmp_path: Path, last: int
) -> None:
    """Nine epochs select; the tenth is the first of the second trainings."""
    with pytest.raises(Killed):
        refitted(planned(trainable), tmp_path / "run", DyingAt(last), save_every_s=0)
    assert not list((tmp_path / "run").glob("*/scores.json"))
    told = Told()
    refitted(planned(trainable), tmp_path / "run", told)
    assert len(told.epochs) < 9 + 3 * 3
    expected, found = files_of(run), files_of(tmp_path / "run")
    assert {name: data for name, data in found.items() if not name.endswith(("results.json", "selected.json"))} == {
        name: data for name, data in expected.items() if not name.endswith(("results.json", "selected.json"))
    }


def test_no_test_subset_is_read_before_every_fold_has_selected(trainable: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        refitted(planned(trainable), tmp_path / "run", DyingAt(10))
    held = {path.name for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert "selected.json" in held
    assert not held & {"predictions.csv", "scores.json", "weights.safetensors"}


def test_a_damaged_record_is_selected_again(trainable: Path, run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    (folder / "1-seed0" / "selected.json").write_text('{"epoch": 9, "curves": []}', encoding="utf-8")
    (folder / "1-seed0" / "scores.json").unlink()
    refitted(planned(trainable), folder)
    assert scores_of(folder, "1-seed0") == scores_of(run, "1-seed0")


def test_the_command_refits_and_a_grid_refuses(trainable: Path, tmp_path: Path) -> None:
    result = train_by_command(trainable, "--fusion", "probe", "--set", "refit=true", "--out", str(tmp_path / "run"))
    assert result.exit_code == 0, result.output
    assert "refit: each fold is trained once more on train and dev" in result.stdout
    from fusion.grid.combinations import REFIT, check_any, plan_combinations

    run = planned(trainable)
    planned_ones, skipped = plan_combinations([{}], lambda fields: run.experiment, run.cache)
    with pytest.raises(MmerError, match="refit=true: a grid selects by the dev scores of models"):
        check_any(planned_ones, skipped)
    assert str(skipped[0]).endswith(REFIT)
