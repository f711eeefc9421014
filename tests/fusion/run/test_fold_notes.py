from pathlib import Path
from typing import Any

import pytest

from fusion.run.notes import head_notes
from tests.support.runs import finish, plan

NAMES = [f"u{index:02}" for index in range(8)]


@pytest.fixture(scope="module")
def results(trainable: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return finish(plan(trainable, "audio", {"epochs": "1"}), tmp_path_factory.mktemp("scores") / "run")


def noted(results: dict[str, Any], *folds: dict[str, list[str]]) -> list[str]:
    """Returns the line about the utterances that the folds of a run list."""
    changed = [{**one, **listed} for one, listed in zip(results["folds"], folds, strict=False)]
    return [line for line in head_notes(changed) if "can read in full" in line]


def test_utterances_over_the_limits_are_listed_for_every_subset_in_one_line(results: dict[str, Any]) -> None:
    first = {"train_over_limits": NAMES[:5], "dev_over_limits": NAMES[5:6], "over_limits": NAMES[6:]}
    second = {"train_over_limits": NAMES[1:6], "dev_over_limits": NAMES[5:6], "over_limits": NAMES[:1]}
    assert noted(results, first, second) == [
        "6 train, 1 dev, 3 test utterances are longer than the head can read in full: "
        "u00, u01, u02, u03, u04 and 3 more"
    ]


@pytest.mark.parametrize(
    ("listed", "told"),
    [
        ({"train_over_limits": ["u01"]}, ["1 train utterances are longer than the head can read in full: u01"]),
        ({"over_limits": ["u07"]}, ["1 test utterances are longer than the head can read in full: u07"]),
        ({}, []),
    ],
)
def test_subsets_without_such_utterances_are_not_listed(
    results: dict[str, Any], listed: dict[str, list[str]], told: list[str]
) -> None:
    assert noted(results, listed) == told


def test_a_late_fusion_lists_those_of_the_test_subset(results: dict[str, Any]) -> None:
    kept = [{name: value for name, value in one.items() if "over_limits" not in name} for one in results["folds"]]
    told = noted({**results, "folds": kept}, {"over_limits": ["u07"]})
    assert told == ["1 test utterances are longer than the head can read in full: u07"]
