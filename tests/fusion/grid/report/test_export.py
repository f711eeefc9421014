import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from cache.errors import MmerError
from fusion.grid.report.export import grid_json, write_csv
from fusion.run.folder import Folder
from tests.support.scored import AXES, COMBINATIONS, grid, opened, ranked

WON = {"1": 1, "2": 0}
SCORES = ["wa", "ua", "wf1", "mf1"]


def test_the_object_is_that_of_the_contract() -> None:
    results = opened(grid(), WON)
    told = grid_json(ranked(results), results, WON, engine="fused", seconds=12.5)
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert [row["config"] for row in told["rows"]] == [dict(COMBINATIONS[place]) for place in (1, 2, 0, 3, 4)]
    assert all(list(row["dev"]) == SCORES for row in told["rows"])
    assert [row["test"] for row in told["rows"]] == [None] * 5
    assert told["nested"] == pytest.approx({"wa": 0.55, "ua": 0.275, "wf1": 0.55, "mf1": 0.1375})
    assert (told["winner"], told["winner_nested"]) == (dict(COMBINATIONS[1]), False)
    assert (told["engine"], told["seconds"], told["shows_unchosen_tests"]) == ("fused", 12.5, False)
    assert [(fold["fold"], fold["config"]["lr"], fold["test"]["wa"]) for fold in told["folds"]] == [
        ("1", 1e-3, pytest.approx(0.6)),
        ("2", 1e-4, pytest.approx(0.5)),
    ]
    assert [row["wins"] for row in told["rows"]] == [["1"], [], ["2"], [], []]


def test_failures_and_open_tests_are_in_the_object() -> None:
    results = opened(grid())
    told = grid_json(ranked(results), results, WON, engine="shared", seconds=1)
    assert told["shows_unchosen_tests"] is True
    assert told["rows"][0]["test"] == pytest.approx({"wa": 0.525, "ua": 0.2625, "wf1": 0.525, "mf1": 0.13125})
    last = told["rows"][-1]
    assert (last["rank"], last["models"], last["of"], last["failures"]) == (None, 0, 2, 2)
    assert last["failure"] == "the loss total is nan in batch 7 of epoch 4"
    assert last["dev"] == dict.fromkeys(SCORES)


def test_a_score_that_an_older_version_did_not_write_is_null_and_an_empty_cell(tmp_path: Path) -> None:
    older = {"wa": 0.5, "ua": 0.5, "wf1": 0.5, "loss": 1.0}
    results = [replace(one, dev=older) for one in opened(grid({0: (0.5, 0.5)}))]
    won, folder = {"1": 0, "2": 0}, Folder(tmp_path)
    told = grid_json(ranked(results), results, won, engine="fused", seconds=1)
    assert told["rows"][0]["dev"] == {"wa": 0.5, "ua": 0.5, "wf1": 0.5, "mf1": None}
    assert told["rows"][0]["dev_std"]["mf1"] is told["folds"][0]["dev"]["mf1"] is None
    assert told["rows"][0]["test"]["mf1"] == pytest.approx(0.1)
    write_csv(folder, ranked(results), results, AXES, won)
    (row,), models = folder.read_rows("grid.csv"), folder.read_rows("models.csv")
    assert (row["dev_mf1"], row["dev_mf1_std"], models[0]["dev_mf1"]) == ("", "", "")


def test_an_infinite_loss_is_no_invalid_json() -> None:
    results = [replace(one, dev={**one.dev, "loss": math.inf}) for one in opened(grid({0: (0.5, 0.5)}))]
    told = grid_json(ranked(results), results, {"1": 0, "2": 0}, engine="fused", seconds=1)
    assert told["rows"][0]["dev_loss"] is None
    json.dumps(told, allow_nan=False)


def test_a_grid_without_a_complete_combination_has_no_winner() -> None:
    results = opened(grid({0: (0.5, None), 1: (None, 0.5)}))
    told = grid_json(ranked(results), results, {"1": 0, "2": 1}, engine="fused", seconds=1)
    assert told["winner"] is None


def test_files_hold_every_figure(tmp_path: Path) -> None:
    results, folder = opened(grid(), WON), Folder(tmp_path)
    write_csv(folder, ranked(results), results, AXES, WON)
    rows = folder.read_rows("grid.csv")
    assert [row["combination"] for row in rows] == ["2", "3", "1", "4", "5"]
    assert float(rows[0]["dev_ua_std"]) == pytest.approx(0.0530330)
    assert float(rows[0]["dev_loss"]) == pytest.approx(0.375)
    assert (rows[0]["wins"], rows[0]["test_wa"], rows[1]["global_aware"]) == ("1", "", "default")
    assert (rows[3]["rank"], rows[3]["models"], rows[3]["of"], rows[3]["failures"]) == ("", "1", "2", "1")
    models = folder.read_rows("models.csv")
    assert [(row["combination"], row["fold"]) for row in models] == [(str(c), f) for c in range(1, 6) for f in "12"]
    assert [row["chosen"] for row in models] == ["no", "yes", "yes", *["no"] * 7]
    assert [row["test_ua"] != "" for row in models] == [row["chosen"] == "yes" for row in models]
    assert (models[7]["dev_wa"], models[7]["epoch"]) == ("", "0")
    assert models[7]["failure"].startswith("the loss total is nan")


def test_files_that_cannot_be_written_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MmerError, match="cannot write to"):
        write_csv(Folder(tmp_path / "file"), ranked(grid()), grid(), AXES, WON)
