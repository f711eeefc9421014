import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.bench_grid import RESIDENT, Found, in_turn, write_caches
from benchmarks.support import iemocap
from benchmarks.support.grid_case import STEP_ROWS, Case, Taken
from benchmarks.support.grid_others import Usual
from benchmarks.support.grid_ours import Ours
from benchmarks.support.iemocap import BATCH, OURS, USUAL, UTTERANCES, draw_groups, frames_and_tokens
from fusion.grid.engine.calibration import Calibration
from fusion.grid.engine.placement import ALONE, Placement

STACK = Placement(4, 1)
CASE = Case(width=8, combinations=4, plain=False, batches=1, device="cpu")


def taken(step_s: float, **losses: float) -> Taken:
    """What an arm took whose batches are of mean length."""
    told = {(name, 1): loss for name, loss in losses.items()}
    return Taken(models=1, start_s=0.0, epoch_s=step_s, rows=STEP_ROWS, losses=told)


def found(case: Case = CASE, layout: Placement = STACK, **steps: Sequence[float]) -> Found:
    """What was measured, by the seconds of the usual practice, of one after another and of a stack."""
    names = {"usual": USUAL, "alone": RESIDENT, "stack": str(STACK)}
    every = {names[arm]: [taken(one) for one in seconds] for arm, seconds in steps.items()}
    return Found(
        case=case, taken=every, trial=Calibration(placement=layout, rates={ALONE: 1.0, layout: 2.0}), trial_s=1.0
    )


@dataclass(frozen=True)
class Written:
    """The caches of a case, and the indices of the usual batches and of dev."""

    folder: Path
    groups: list[list[int]]
    dev: list[int]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Written]:
    folder = tmp_path_factory.mktemp("caches")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(iemocap, "MEAN_FRAMES", 16)  # shorter than those that are measured
        patch.setattr(iemocap, "MEAN_TOKENS", 4)
        yield Written(folder, *write_caches(folder, CASE))


def test_all_of_our_arms_train_the_same_models(written: Written) -> None:
    ours = Ours(written.folder, CASE)
    layouts = [ALONE, Placement(1, 2), STACK, Placement(2, 2)]
    arms = {str(one): [ours.resident(one)] for one in layouts} | {"reloaded": [ours.reloaded()]}
    assert [one.models for (one,) in arms.values()] == [1, 2, 4, 4, 1]
    assert len(arms[str(STACK)][0].losses) == 8  # of four models, two epochs each
    assert all(one.epoch_s > 0 and one.peak_mb > 0 for (one,) in arms.values())
    measured = Found(case=CASE, taken=arms, trial=Calibration(placement=ALONE, rates={}), trial_s=0.0)
    assert measured.gap() < 1e-5


def test_arms_train_on_as_many_rows_as_their_batches_have(written: Written) -> None:
    rows = frames_and_tokens(UTTERANCES)
    drawn = {arm: list(itertools.chain(*batches)) for arm, batches in draw_groups(CASE.batches).items()}
    assert Usual(written.folder, CASE, written.groups, written.dev)().rows == rows[:, drawn[USUAL]].sum()
    ours = Ours(written.folder, CASE)
    assert ours.resident(ALONE).rows == rows[:, drawn[OURS]].sum()
    assert len(ours.models[0].fold.train) == BATCH


@pytest.mark.parametrize("plain", [False, True])
def test_combinations_differ_and_can_share_a_stack(written: Written, plain: bool) -> None:
    ours = Ours(written.folder, replace(CASE, combinations=6, plain=plain))  # over the same caches
    assert len({model.key for model in ours.models}) == 6
    assert Placement(6, 1) in ours.layouts()


def test_losses_that_differ_show_in_the_gap() -> None:
    every = {"a": [taken(1, x=0.5, y=20.0)], "b": [taken(1, x=0.5002)], "c": [taken(1, y=20.002)]}
    gap = Found(case=CASE, taken=every, trial=Calibration(placement=ALONE, rates={}), trial_s=0.0).gap()
    np.testing.assert_allclose(gap, 2e-4, rtol=1e-3)


def test_the_layout_that_auto_takes_is_judged_round_by_round() -> None:
    case = Case(width=32, combinations=16, plain=False, batches=1, device="cpu")
    measured = found(case, usual=[10, 12, 20], alone=[2, 2, 2], stack=[2, 3, 4])
    assert measured.faster(str(STACK), USUAL).median == 5
    assert [line[:6] for line in measured.verdicts()[:2]] == ["met   ", "MISSED"]
    assert "0.67 of the speed of one after another" in measured.told()


def test_taking_one_after_another_is_never_slower_than_it() -> None:
    measured = found(layout=ALONE, usual=[2], alone=[1], stack=[3])
    assert "(auto)" in str(measured.rows()[1][0])
    assert measured.told().endswith("measured: the fastest")
    assert measured.verdicts()[0].startswith("met")


def test_every_arm_is_measured_in_every_round() -> None:
    calls: list[str] = []

    def arm(name: str) -> Taken:
        calls.append(name)
        return taken(1)

    measured = in_turn({"a": lambda: arm("a"), "b": lambda: arm("b")}, rounds=3)
    assert [len(measured[name]) for name in "ab"] == [3, 3]
    assert [set(calls[first : first + 2]) for first in (0, 2, 4)] == [{"a", "b"}] * 3
