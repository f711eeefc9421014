"""From fields to combinations and models; what cannot be trained is left out with its reason."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache.errors import MmerError
from cache.joined import AnyCache
from fusion.grid.combinations import Combination, FieldValues, check_any, models_of, plan_combinations
from fusion.protocols.split import Split, split_cache
from tests.support.grids import experiment, models, planned
from tests.support.runs import reader_of


def test_an_impossible_combination_is_left_out_with_its_reason(trainable: Path) -> None:
    every: list[FieldValues] = [
        {"heads": 3, "dim": 8},
        {"heads": 4, "dim": 8},
        {"alpha": -1.0},
        {"stream.audio": "nope"},
    ]
    found, skipped = plan_combinations(every, lambda one: experiment("rescmfa", one), reader_of(trainable))
    assert [one.fields for one in found] == [every[1]]
    assert [one.fields for one in skipped] == [every[0], every[2], every[3]]
    assert str(skipped[0]).startswith("heads=3 dim=8: head rescmfa: heads must divide the width 8")
    assert "alpha must be at least 0" in skipped[1].reason
    assert "has no stream nope" in skipped[2].reason


def test_combinations_that_split_the_cache_alike_share_the_split(
    trainable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[dict[str, Any]] = []

    def counted(cache: AnyCache, **request: Any) -> Split:
        made.append(request)
        return split_cache(cache, **request)

    monkeypatch.setattr("fusion.experiment.plan.split_cache", counted)
    every: list[FieldValues] = [{}, {"lr": 0.1}, {"data_seed": 1}, {"dropout": 0.3}, {"data_seed": 1, "lr": 0.2}]
    plans = [one.plan for one in planned(trainable, "concat", *every)]
    assert [request["data_seed"] for request in made] == [0, 1]
    for fields, plan in zip(every, plans, strict=True):
        (alone,) = planned(trainable, "concat", fields)
        assert plan.identity == alone.plan.identity
        assert plan.notes == alone.plan.notes
        for fold, expected in zip(plan.split.folds, alone.plan.split.folds, strict=True):
            assert all(map(np.array_equal, fold.subsets.values(), expected.subsets.values()))
    assert plans[0].split is plans[1].split is plans[3].split
    assert not np.array_equal(plans[0].split.folds[0].dev, plans[2].split.folds[0].dev)
    assert {id(plan.inputs.weights["audio"]) for plan in plans} == {id(plans[0].inputs.weights["audio"])}


def test_a_grid_without_any_possible_combination_is_an_error(trainable: Path) -> None:
    none = plan_combinations([{"alpha": -1.0}], lambda one: experiment("rescmfa", one), reader_of(trainable))
    with pytest.raises(MmerError, match=r"none of the 1 combinations can be trained; the first: alpha=-1.0: .*alpha"):
        check_any(*none)
    check_any(planned(trainable, "concat", {}), none[1])


def test_a_combination_has_a_model_for_each_fold_and_seed(trainable: Path) -> None:
    (one,) = planned(trainable, "concat", {"lr": 0.1}, seeds=(0, 4))
    assert [(model.fold.name, model.seed, model.training.seed) for model in models_of(one)] == [
        (fold, seed, seed) for fold in ("1", "2", "3") for seed in (0, 4)
    ]
    assert {model.fold.name for model in models_of(one, folds=["2"])} == {"2"}
    assert models_of(one)[0].name == "lr=0.1, fold 1, seed 0"


def keys(one: Combination) -> list[str]:
    return [model.key for model in models_of(one)]


def test_the_key_of_a_model_is_what_decides_it_and_nothing_else(trainable: Path) -> None:
    first, same, other = planned(trainable, "concat", {}, {"dropout": 0.1}, {"dropout": 0.2})
    assert keys(first) == keys(same)  # 0.1 is the default
    assert not set(keys(first)) & set(keys(other))
    seeds = planned(trainable, "concat", {}, seeds=(0, 1))
    assert set(keys(first)) < set(keys(seeds[0]))  # a seed more trains no model anew
    assert len(set(keys(seeds[0]))) == 6
    fewer = planned(trainable, "concat", {}, labels="happy=happy,rest=angry+sad+calm")
    assert not set(keys(first)) & set(keys(fewer[0]))
    assert not set(keys(first)) & {model.key for model in models(planned(trainable, "concat", {"data_seed": 3}))}
