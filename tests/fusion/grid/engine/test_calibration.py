"""The trial that chooses between engines, and what a grid is said to take."""

from pathlib import Path

import pytest
import torch

from fusion.data import pooled
from fusion.experiment.plan import build
from fusion.grid.engine import calibration as trials
from fusion.grid.engine.calibration import calibrate, candidates, estimate_cost, steps_of, worth_calibrating
from fusion.grid.engine.placement import ALONE, Placement, StackGroups, footprint_of, models_in_memory
from fusion.grid.journal import Journal
from fusion.heads.build import count_parameters
from tests.support.grids import CPU, models, planned, sources, trained

RATES = [{"lr": 0.1 / (place + 1), "batch_size": 8} for place in range(8)]


@pytest.fixture(scope="module")
def stack_groups(trainable: Path) -> StackGroups:
    every = planned(trainable, "concat", *RATES)
    return StackGroups(models(every), sources(every), stacking=True)


def test_a_trial_measures_every_layout_that_suits_the_models(
    stack_groups: StackGroups, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "threads_of", lambda device: 2)
    assert candidates(stack_groups, CPU) == [ALONE, Placement(1, 2), Placement(8, 1), Placement(4, 2)]
    source = stack_groups.sources
    found = calibrate(stack_groups, source)
    assert list(found.rates) == candidates(stack_groups, CPU)
    assert all(rate > 0 for rate in found.rates.values())
    assert found.placement == ALONE or found.rates[found.placement] == max(found.rates.values())
    assert "by a trial (steps per second: single models" in str(found)


def test_rows_are_pooled_before_a_trial_measures(trainable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every = planned(trainable, "audio", {"lr": 0.1, "batch_size": 8})
    trial = trials._CalibrationRun(models(every), sources(every).of(every[0].plan))

    def pooled_again(*args: object) -> None:
        raise AssertionError("rows are pooled while the trial measures")

    monkeypatch.setattr(pooled, "_pool", pooled_again)
    assert trial.rate(ALONE) > 0


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ({ALONE: 10.0, Placement(8, 1): 10.4}, ALONE),  # not worth the memory
        ({ALONE: 10.0, Placement(8, 1): 30.0, Placement(1, 2): 20.0}, Placement(8, 1)),
        ({ALONE: 10.0, Placement(8, 1): 9.0, Placement(1, 2): 20.0}, Placement(1, 2)),
    ],
)
def test_the_fastest_layout_is_taken_if_it_gains_enough(
    stack_groups: StackGroups, monkeypatch: pytest.MonkeyPatch, rates: dict[Placement, float], expected: Placement
) -> None:
    monkeypatch.setattr(trials, "candidates", lambda stack_groups, device: list(rates))
    monkeypatch.setattr(trials._CalibrationRun, "rate", lambda self, placement: rates[placement])
    assert calibrate(stack_groups, stack_groups.sources).placement == expected


def test_a_layout_that_lacks_memory_is_no_choice(stack_groups: StackGroups, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = trials._CalibrationRun.rate

    def rate(self: object, placement: Placement) -> float:
        if placement.stack > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self, placement)  # type: ignore[arg-type]

    monkeypatch.setattr(trials._CalibrationRun, "rate", rate)
    assert calibrate(stack_groups, stack_groups.sources).placement.stack == 1


def test_little_work_is_worth_no_trial(trainable: Path) -> None:
    few = models(planned(trainable, "concat", {"epochs": 1}))
    many = models(planned(trainable, "concat", *[{**one, "epochs": 500} for one in RATES]))
    assert not worth_calibrating(few, CPU)
    assert worth_calibrating(many, CPU)


def test_a_trial_leaves_nothing_behind(stack_groups: StackGroups, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "ROUNDS", 1)
    before = torch.random.get_rng_state(), torch.get_num_threads()
    calibrate(stack_groups, stack_groups.sources)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert torch.get_num_threads() == before[1]


def test_what_a_model_takes_grows_with_its_batch_and_its_width(trainable: Path) -> None:
    every = planned(trainable, "cross-attention", {"batch_size": 4}, {"batch_size": 16}, {"batch_size": 4, "dim": 32})
    small, large, wide = (footprint_of(models([one])[0], sources(every).at(0)) for one in every)
    assert small.parameters == large.parameters == 4 * count_parameters(build(every[0].plan, seed=0))
    assert 2.5 * small.activations < large.activations < 6 * small.activations
    assert wide.parameters > small.parameters
    assert models_in_memory(small, sources(every).at(0)) > models_in_memory(wide, sources(every).at(0)) > 1


def test_an_estimate_counts_what_is_left(trainable: Path, tmp_path: Path) -> None:
    every = planned(trainable, "audio", {"lr": 0.1}, {"lr": 0.2}, {"lr": 0.3})
    trained(tmp_path, every[:1])
    found = estimate_cost(models(every), sources(every), Journal(tmp_path))
    assert (found.models, found.known) == (9, 3)
    assert found.disk_bytes == 6 * 4 * count_parameters(build(every[1].plan, seed=0))
    assert found.features_bytes == sources(every).size_bytes
    assert found.seconds > 0
    trained(tmp_path, every)
    done = estimate_cost(models(every), sources(every), Journal(tmp_path))
    assert (done.known, done.seconds, done.disk_bytes, done.placement) == (9, 0.0, 0, "")


def test_steps_of_an_epoch_are_its_batches(trainable: Path) -> None:
    (model, *_) = models(planned(trainable, "concat", {"batch_size": 8}))
    assert steps_of(model) == round(len(model.fold.train) / 8)
