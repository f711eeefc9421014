"""Every engine trains the same models; nothing is trained twice; a kill loses what was under way and no more."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from fusion.grid.combinations import Model
from fusion.grid.engine import train as training
from fusion.grid.engine.local import Engine
from fusion.grid.engine.placement import Placement, threads_of
from fusion.grid.journal import Journal
from fusion.grid.stacking.training import train_stack
from fusion.training.checkpoint import EpochScores
from tests.support.grids import CPU, GridTold, models, planned, sources, trained, weights_of
from tests.support.processes import wait_until
from tests.support.runs import TWO_FOLDS, finish

AXES = [{"lr": rate, "dropout": dropout} for rate in (0.01, 0.003) for dropout in (0.1, 0.3)]
SHORT = [{**fields, "batch_size": 11} for fields in AXES]  # two batches of an epoch over two folds


@pytest.fixture(scope="module")
def one_by_one(trainable: Path, tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, Any]]]:
    """What mmer-train says of every fold of every combination."""
    folder = tmp_path_factory.mktemp("runs")
    every = planned(trainable, "concat", *SHORT, **TWO_FOLDS)
    return [finish(one.plan, folder / f"run{place}")["folds"] for place, one in enumerate(every)]


@pytest.mark.parametrize("engine", ["shared", "fused", "auto"])
def test_every_engine_trains_what_mmer_train_does(
    trainable: Path, one_by_one: list[list[dict[str, Any]]], tmp_path: Path, engine: str
) -> None:
    every = planned(trainable, "concat", *SHORT, **TWO_FOLDS)
    journal, told = trained(tmp_path / "grid", every, engine=engine)
    assert len(told.outcomes) == len(set(told.started)) == 8
    assert len(told.epochs) == 16
    for place, (one, folds) in enumerate(zip(every, one_by_one, strict=True)):
        for model, fold in zip(models([one]), folds, strict=True):
            found = journal.scores(model, place)
            assert found.epoch == fold["epoch"]
            assert found.dev == pytest.approx(fold["dev_scores"], abs=1e-4)


def test_what_a_head_learns_before_training_is_what_it_learns_in_mmer_train(trainable: Path, tmp_path: Path) -> None:
    every = planned(trainable, "label-guided", {"epochs": 1}, **TWO_FOLDS)
    trained(tmp_path / "grid", every)
    finish(every[0].plan, tmp_path / "run")
    run = [(tmp_path / "run" / f"{fold}-seed0" / "weights.safetensors").read_bytes() for fold in "12"]
    assert sorted(weights_of(tmp_path / "grid").values()) == sorted(run)


def test_a_second_run_trains_nothing_and_a_new_value_only_what_is_new(trainable: Path, tmp_path: Path) -> None:
    trained(tmp_path, planned(trainable, "audio", {"lr": 0.1}))
    before = weights_of(tmp_path)
    _, told = trained(tmp_path, planned(trainable, "audio", {"lr": 0.1}, {"lr": 0.2}))
    assert len(told.started) == 3
    assert {key: weights_of(tmp_path)[key] for key in before} == before
    _, told = trained(tmp_path, planned(trainable, "audio", {"lr": 0.2}, {"lr": 0.1}))
    assert told.started == []


class Dying(GridTold):
    """Does not survive one of the epochs."""

    def __init__(self, left: int) -> None:
        super().__init__()
        self.left = left

    def epoch(self, model: Model, scores: EpochScores) -> None:
        self.left -= 1
        if not self.left:
            raise KeyError("killed")


@pytest.mark.parametrize("engine", ["shared", "fused"])
def test_a_grid_that_was_killed_ends_as_an_undisturbed_one(trainable: Path, tmp_path: Path, engine: str) -> None:
    every = planned(trainable, "audio", *SHORT, **TWO_FOLDS)
    trained(tmp_path / "whole", every, engine=engine)
    killed = Engine(engine, journal=Journal(tmp_path / "killed"), progress=Dying(11), device=CPU)
    with pytest.raises(KeyError, match="killed"):
        killed.run(models(every), sources(every))
    assert 0 < len(weights_of(tmp_path / "killed")) < 8
    _, told = trained(tmp_path / "killed", every, engine=engine)
    assert len(told.started) < 8
    assert weights_of(tmp_path / "killed") == weights_of(tmp_path / "whole")


@pytest.mark.parametrize("engine", ["shared", "fused"])
def test_a_model_that_diverges_is_recorded_and_the_others_go_on(trainable: Path, tmp_path: Path, engine: str) -> None:
    every = planned(trainable, "audio", {"lr": 0.01, "clip": 0.0}, {"lr": 1e30, "clip": 0.0}, {"lr": 0.02, "clip": 0.0})
    journal, _ = trained(tmp_path, every, engine=engine)
    failures = [journal.scores(model, 0).failure for model in models(every)]
    assert [bool(one) for one in failures] == [False] * 3 + [True] * 3 + [False] * 3
    assert all(one.startswith("diverged: the l") and "epoch 1" in one for one in failures if one)
    _, told = trained(tmp_path, every, engine=engine)
    assert told.started == []


def test_a_stack_that_lacks_memory_is_split_in_half(
    trainable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def small(heads: Sequence[Any], *others: Any, **named: Any) -> Any:
        sizes.append(len(heads))
        if len(heads) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return train_stack(heads, *others, **named)

    monkeypatch.setattr(training, "train_stack", small)
    every = planned(trainable, "concat", *AXES)
    journal, _ = trained(tmp_path, every, engine="fused", folds=["1"])
    assert sizes == [4, 2, 2]
    assert all(journal.scores(model, 0).dev for model in models(every, folds=["1"]))


def test_a_model_that_never_fits_fails_for_this_run_alone(
    trainable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never_stop(*told: Any, **named: Any) -> Any:
        raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes")

    every = planned(trainable, "concat", {})
    with monkeypatch.context() as patched:
        patched.setattr(training, "train_fold", never_stop)
        engine = Engine("shared", journal=Journal(tmp_path), progress=GridTold(), device=CPU)
        failed = engine.run(models(every), sources(every))
    assert {one.failure for one in failed.values()} == {"out of memory on cpu"}
    _, told = trained(tmp_path, every)
    assert len(told.started) == 3


def test_what_another_grid_has_in_hand_is_waited_for_and_not_trained_again(trainable: Path, tmp_path: Path) -> None:
    every = planned(trainable, "audio", {}, {"lr": 0.1})
    busy = models(every)[0]
    began, told = threading.Event(), GridTold()
    engine = Engine("shared", journal=Journal(tmp_path), progress=told, device=CPU)

    def other_grid() -> None:
        with Journal(tmp_path).claim(busy):
            began.set()
            wait_until(lambda: len(told.outcomes) == 5)
            for outcome in training.train_models([busy], sources(every).at(0), lambda model, scores: None):
                Journal(tmp_path).write(busy, outcome, CPU)

    other = threading.Thread(target=other_grid)
    other.start()
    began.wait()
    engine.run(models(every), sources(every))
    other.join()
    assert Journal(tmp_path).trained(busy)
    assert busy.key not in told.outcomes
    assert len(told.outcomes) == 5


def test_an_engine_that_is_asked_for_is_taken(trainable: Path, tmp_path: Path) -> None:
    every = planned(trainable, "audio", *AXES)
    for asked, expected in (("fused", Placement(64, 1)), ("shared", Placement(1, threads_of(CPU)))):
        engine = Engine(asked, journal=Journal(tmp_path / asked), progress=GridTold(), device=CPU)
        engine.run(models(every, folds=["1"]), sources(every))
        assert engine.placement == expected
