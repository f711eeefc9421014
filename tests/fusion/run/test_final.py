"""Final models: all utterances, the median epoch of the folds, no scores."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cache.errors import MmerError
from fusion.data.features import CachedFeatures
from fusion.experiment.plan import RunPlan
from fusion.run.cross_validation import build_and_prepare_head, cross_validate, utterances_of
from fusion.run.final import FinalModel, median_epoch, read_final_models, train_final_models
from fusion.run.folder import RunFolder
from fusion.run.load import load_model
from fusion.training.checkpoint import EpochScores
from fusion.training.loop import train_fold
from tests.support.heads import samples
from tests.support.runs import COUNT, Told, files_of, finish, plan, reader_of, train_by_command, utterances, write_cache

CPU = torch.device("cpu")
FIELDS: Mapping[str, object] = {"epochs": 4, "schedule": "cosine", "batch_size": 24}


class Killed(Exception):
    """Stands for a kill."""


class Dying(Told):
    """Does not survive an epoch."""

    def __init__(self, last: int) -> None:
        super().__init__()
        self.last = last

    def epoch(self, scores: EpochScores) -> None:
        super().epoch(scores)
        if scores.epoch == self.last:
            raise Killed


@pytest.fixture(scope="module")
def finished(trainable: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two seeds without final models; tests copy it."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    finish(planned(trainable), folder)
    return folder


@pytest.fixture(scope="module")
def final(trainable: Path, finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run with its final models; nobody writes to it."""
    folder = Path(shutil.copytree(finished, tmp_path_factory.mktemp("final") / "run"))
    train_finals(planned(trainable), folder)
    return folder


def planned(cache: Path, fusion: str = "label-guided", **fields: object) -> RunPlan:
    return plan(cache, fusion, {**FIELDS, **fields}, seeds=(0, 3))


def train_finals(run: RunPlan, folder: Path, told: Told | None = None, **options: Any) -> list[FinalModel]:
    train_final_models(run, RunFolder(folder), device=CPU, progress=told or Told(), **options)
    return read_final_models(run, RunFolder(folder))


def test_it_is_trained_on_all_utterances_for_the_median_epoch_of_the_folds(trainable: Path, final: Path) -> None:
    run = planned(trainable)
    for model in read_final_models(run, RunFolder(final)):
        epochs = sorted(
            RunFolder(final).model(fold.name, model.seed).read("scores.json")["epoch"] for fold in run.split.folds
        )
        assert (model.epochs, model.train) == (epochs[1], COUNT)
        assert len(model.folder.read_rows("curves.csv")) == model.epochs
    assert [model.seed for model in read_final_models(run, RunFolder(final))] == [0, 3]


def test_its_weights_are_those_of_a_fold_with_all_utterances_after_that_epoch(trainable: Path, final: Path) -> None:
    """Same batches, dropout, learning rates and preparation; the fold is trained on after that epoch."""
    run = planned(trainable, patience=5)
    source = CachedFeatures(run.cache, run.selection.streams, run.split.classes)
    every = np.arange(COUNT)
    head, notes = build_and_prepare_head(run, source, every, seed=0)
    states: list[dict[str, torch.Tensor]] = []

    def keep(scores: EpochScores) -> None:
        states.append({name: tensor.clone() for name, tensor in head.state_dict().items()})

    train_fold(head, source, every, run.split.folds[0].dev, run.experiment.training, on_epoch=keep)
    model = RunFolder(final).model("final", 0)
    weights = load_file(model.path / "weights.safetensors")
    expected = states[model.read("final.json")["epoch"] - 1]
    assert weights.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights.items())
    assert model.read("final.json")["notes"] == notes


def test_of_two_middle_epochs_the_lower_is_taken(trainable: Path, final: Path, tmp_path: Path) -> None:
    run, folder = planned(trainable), RunFolder(Path(shutil.copytree(final, tmp_path / "run")))
    epochs = {fold.name: folder.model(fold.name, 0).read("scores.json")["epoch"] for fold in run.split.folds}
    assert median_epoch(run, folder, 0) == sorted(epochs.values())[1]
    two = replace(run, split=replace(run.split, folds=run.split.folds[:2]))
    assert median_epoch(two, folder, 0) == min(epochs[fold.name] for fold in two.split.folds)


def test_a_final_model_that_was_killed_ends_bit_equal(
    trainable: Path, finished: Path, final: Path, tmp_path: Path
) -> None:
    run, folder = planned(trainable), Path(shutil.copytree(finished, tmp_path / "run"))
    with pytest.raises(Killed):
        train_finals(run, folder, Dying(1), save_every_s=0)
    assert (folder / "final-seed0" / "state.safetensors").exists()
    assert read_final_models(run, RunFolder(folder)) == []
    told = Told()
    train_finals(run, folder, told)
    epochs = [model.epochs for model in read_final_models(run, RunFolder(folder))]
    assert len(told.epochs) == sum(epochs) - 1
    assert files_of(folder) == files_of(final)


def test_a_finished_final_model_is_read_and_a_damaged_one_trained_again(
    trainable: Path, final: Path, tmp_path: Path
) -> None:
    run, folder = planned(trainable), Path(shutil.copytree(final, tmp_path / "run"))
    told = Told()
    train_finals(run, folder, told)
    assert told.started == []
    (folder / "final-seed3" / "weights.safetensors").write_bytes(b"spoilt")
    assert [model.seed for model in read_final_models(run, RunFolder(folder))] == [0]
    train_finals(run, folder, told)
    assert told.started[0] == ("final", 3)
    assert files_of(folder) == files_of(final)


def test_it_is_not_scored_and_no_model_of_a_fold(trainable: Path, finished: Path, final: Path) -> None:
    added = files_of(final).keys() - files_of(finished).keys()
    assert added == {
        f"final-seed{seed}/{name}" for seed in (0, 3) for name in ("weights.safetensors", "curves.csv", "final.json")
    }
    folder = RunFolder(final)
    assert not folder.model("final", 0).scored
    assert folder.model("final", 0).path not in {model.path for model in folder.models(folder.identity)}
    assert folder.read_rows("final-seed0/curves.csv")[0].keys() & {"dev_ua", "dev_loss"} == set()


def test_it_is_loaded_by_its_name(trainable: Path, finished: Path, final: Path, tmp_path: Path) -> None:
    head = load_model(RunFolder(final), "final", 3)
    stored = load_file(final / "final-seed3" / "weights.safetensors")
    assert all(torch.equal(tensor, stored[name]) for name, tensor in head.state_dict().items())
    assert not head.training
    with pytest.raises(
        MmerError, match=r"has no model of fold final and seed 0; .*; train the final model with --final"
    ):
        load_model(RunFolder(finished), "final", 0)
    spoilt = RunFolder(Path(shutil.copytree(final, tmp_path / "run")))
    (spoilt.path / "final-seed0" / "weights.safetensors").write_bytes(b"spoilt")
    with pytest.raises(MmerError, match="final-seed0 is damaged; repeat the command of the run with --final"):
        load_model(spoilt, "final", 0)


def test_another_run_in_its_place_deletes_it_and_foreign_files_stay(final: Path, tmp_path: Path) -> None:
    folder = RunFolder(Path(shutil.copytree(final, tmp_path / "run")))
    identity = folder.identity
    folder.clear()
    assert not (folder.path / "final-seed0").exists()
    (folder.path / "final-seed0").mkdir()
    (folder.path / "final-seed0" / "final.json").write_text("mine")
    with pytest.raises(MmerError, match=r"final.json already exists"):
        folder.begin(identity, {})


def test_folds_must_be_scored_first_and_their_names_leave_the_name_free(trainable: Path, tmp_path: Path) -> None:
    run = planned(trainable)
    with pytest.raises(MmerError, match=r"1-seed0.scores.json cannot be read"):
        train_finals(run, tmp_path / "empty")
    names = {"1F": "final"}
    speakers = [replace(turn, speaker=names.get(turn.speaker, turn.speaker)) for turn in utterances(samples(COUNT))]
    cache = write_cache(tmp_path / "a.h5", utterances=speakers, roles=["text"])
    called = plan(cache, "text", FIELDS, protocol="speaker")
    assert "final" in {fold.name for fold in called.split.folds}
    with pytest.raises(MmerError, match="--final needs the name final for its model, and a fold has it"):
        train_finals(called, tmp_path / "run")


def test_the_command_trains_the_folds_and_then_the_final_model(trainable: Path, tmp_path: Path) -> None:
    options = ("--fusion", "audio", "--out", str(tmp_path / "run"))
    first = train_by_command(trainable, *options)
    before = files_of(tmp_path / "run")
    assert "final model" not in first.output
    result = train_by_command(trainable, *options, "--final")
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "run" / "final-seed0" / "final.json").read_text())
    line = f"final model of seed 0: trained on all {COUNT} utterances for {record['epoch']} epochs, "
    ending = f"the median of the folds; not scored; {tmp_path / 'run' / 'final-seed0'}"
    assert line + ending in result.output
    after = files_of(tmp_path / "run")
    of_results = {"results.json", "results.md"}  # they have a line on the final model
    assert {name: after[name] for name in before if name not in of_results} == {
        name: content for name, content in before.items() if name not in of_results
    }
    again = json.loads(train_by_command(trainable, *options, "--json").stdout)
    folder = str(tmp_path / "run" / "final-seed0")
    assert again.pop("final") == [{"seed": 0, "epochs": record["epoch"], "train": COUNT, "folder": folder}]
    again["notes"].remove(line + ending)
    assert again == json.loads(before["results.json"])
    summed = train_by_command(trainable, "--fusion", "score", "--run", "a", "--run", "b", "--final")
    assert "leave out: epochs, final" in summed.output


def test_all_utterances_are_those_of_the_protocol(tmp_path: Path) -> None:
    cache = write_cache(tmp_path / "a.h5", failing={"voice": 5}, roles=["audio"])
    run = plan(cache, "audio", FIELDS, allow_missing=True)
    assert 5 not in utterances_of(run)
    cross_validate(run, RunFolder(tmp_path / "run"), device=CPU, progress=Told())
    (model,) = train_finals(run, tmp_path / "run")
    assert model.train == len(utterances_of(run)) == len(reader_of(cache)) - 1
