"""Which models share a stack, and how large stacks are."""

from pathlib import Path

import pytest

from fusion.grid.engine import placement as placements
from fusion.grid.engine.placement import ALONE, Placement, StackGroups
from tests.support.grids import models, planned, sources

RATES = [{"lr": rate} for rate in (0.1, 0.01, 0.001, 0.0001, 0.2)]


def sizes(stack_groups: StackGroups, asked: Placement) -> list[int]:
    return sorted(len(unit) for unit in stack_groups.units(asked))


def test_models_of_one_structure_and_fold_are_one_group(trainable: Path) -> None:
    every = planned(trainable, "concat", *RATES, {"dropout": 0.0}, {"pooling": "max"}, seeds=(0, 1))
    stack_groups = StackGroups(models(every), sources(every), stacking=True)
    assert sorted(map(len, stack_groups.groups.values())) == [2] * 6 + [10] * 3
    assert len({model.fold.name for model in stack_groups.largest}) == 1
    assert not stack_groups.reasons


def test_stacks_are_of_even_size_and_no_larger_than_asked_for(trainable: Path) -> None:
    every = planned(trainable, "concat", *RATES)
    stack_groups = StackGroups(models(every), sources(every), stacking=True)
    assert sizes(stack_groups, Placement(64, 1)) == [5, 5, 5]
    assert sizes(stack_groups, Placement(4, 1)) == [2, 2, 2, 3, 3, 3]
    assert sizes(stack_groups, ALONE) == [1] * 15


def test_memory_limits_stacks(trainable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every = planned(trainable, "concat", *RATES)
    stack_groups = StackGroups(models(every), sources(every), stacking=True)
    monkeypatch.setattr(placements, "models_in_memory", lambda footprint, source: 4)
    assert sizes(stack_groups, Placement(64, 1)) == [2, 2, 2, 3, 3, 3]
    assert sizes(stack_groups, Placement(64, 2)) == [1, 1, 1, 2, 2, 2, 2, 2, 2]


def test_what_cannot_be_stacked_stays_alone_and_says_why(trainable: Path) -> None:
    every = planned(trainable, "bimodal", {"lr": 0.1}, {"lr": 0.2})
    stack_groups = StackGroups(models(every), sources(every), stacking=True)
    assert sizes(stack_groups, Placement(64, 1)) == [1] * 6
    assert any("GRU" in reason for reason in stack_groups.reasons)


def test_without_stacking_nothing_is_grouped(trainable: Path) -> None:
    every = planned(trainable, "concat", *RATES)
    stack_groups = StackGroups(models(every), sources(every), stacking=False)
    assert sizes(stack_groups, Placement(64, 1)) == [1] * 15
