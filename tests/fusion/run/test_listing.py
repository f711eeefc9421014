"""Runs and grids are listed with what sets them apart, and only what is a run or grid is deleted."""

import errno
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from cache.errors import MmerError
from cache.files import lock_of
from fusion.experiment.request import ExperimentRequest
from fusion.grid.run import run_grid
from fusion.grid.space import GridRequest, grid_space, parse_search
from fusion.run.folder import RunFolder
from fusion.run.listing import RunList, delete_run, list_runs
from fusion.run.train import train_run
from tests.support.runs import QUICK, TWO_FOLDS, reader_of


@pytest.fixture(scope="module")
def made(trainable: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs that differ in lr and seeds, a grid, and a folder of something else."""
    folder, cache = tmp_path_factory.mktemp("listed") / "runs", reader_of(trainable)
    for name, lr, seeds in (("slow", 1e-4, (0,)), ("fast", 0.03, (0, 1))):
        request = ExperimentRequest(fusion="audio", fields={**QUICK, "epochs": 1, "lr": lr}, seeds=seeds, **TWO_FOLDS)
        train_run(request.experiment(cache), cache, out=folder / name)
    base = ExperimentRequest(fusion="audio", fields={"epochs": 1, "batch_size": 16}, **TWO_FOLDS)
    space = grid_space(base, grid=["lr=0.01,0.03"], cache=cache)
    tried = GridRequest(base=base, space=space, search=parse_search("grid"))
    run_grid(tried, cache, out=folder / "tried", engine="shared")
    (folder / "photos").mkdir()
    (folder / "photos" / "a.jpg").write_text("precious")
    (folder / "encoder" / "1").mkdir(parents=True)
    (folder / "encoder" / "1" / "pretrain.json").write_text("{}")
    return folder


@pytest.fixture
def runs(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "runs"))


def test_the_list_has_the_fields_that_differ_and_the_scores_of_the_results(made: Path) -> None:
    found = list_runs(made)
    (report,) = (made / "tried" / "grids").iterdir()
    names = ["fast", "slow", f"tried/grids/{report.name}"]
    assert ([run.name for run in found.runs], list(found.others)) == (names, ["photos"])
    assert (found.pretrainings, found.json["pretrainings"]) == (["encoder"], ["encoder"])
    assert found.differing == ["seeds", "lr"]
    header, rows = found.table(found.differing)
    assert header == ["name", "seeds", "lr", "WA", "UA", "W-F1", "M-F1", "state", "changed"]
    results = json.loads((made / "fast" / "results.json").read_text())
    percents = [f"{100 * results['mean'][name]:.2f}" for name in ("wa", "ua")]
    assert rows[0][:5] == ["fast", "0,1", "0.03", *percents]
    nested = json.loads((report / "results.json").read_text())["nested"]
    assert rows[2][4] == f"{100 * nested['ua']:.2f}"
    plain = json.loads(json.dumps(found.json))
    assert (plain["differing"], plain["runs"][0]["mean"]) == (["seeds", "lr"], results["mean"])
    assert plain["runs"][0]["std_seeds"] == results["std_seeds"]
    assert plain["runs"][0]["fields"]["streams"] == "voice"


def test_a_narrow_table_has_the_fields_that_most_runs_have(made: Path) -> None:
    found = list_runs(made)
    few = [replace(run, fields={**run.fields, "rank": str(index)}) for index, run in enumerate(found.runs[:2])]
    wide = {f"field{index}": f"{'x' * 20}{index}" for index in range(3)}
    runs = [replace(run, fields={**run.fields, **wide, "field0": run.name}) for run in [*few, found.runs[2]]]
    several = replace(found, runs=runs)
    assert several.differing == ["seeds", "lr", "rank", "field0"]
    assert several.fitting(400) == several.differing
    assert several.fitting(10) == ["seeds", "field0"]
    base = sum(max(map(len, map(str, column))) + 2 for column in zip(*_lines(several, []), strict=True))
    assert several.fitting(base + 60) == ["seeds", "lr", "rank", "field0"]
    assert replace(found, runs=()).fitting(80) == []


def _lines(found: RunList, fields: Sequence[str]) -> list[list[object]]:
    header, rows = found.table(fields)
    return [[*header], *rows]


def test_the_list_is_sorted_by_scores_and_fields_and_filtered_by_patterns(made: Path) -> None:
    ua = [run.scores["ua"] for run in list_runs(made, sort="ua").runs]
    assert ua == sorted(ua, reverse=True)
    by_lr = [run.fields.get("lr") for run in list_runs(made, sort="lr").runs]
    assert by_lr == ["0.0001", "0.03", None]
    assert [run.name for run in list_runs(made, only={"lr": "0.0*3"}).runs] == ["fast"]
    for wrong in ({"sort": "uaa"}, {"only": {"lrr": "1"}}):
        with pytest.raises(MmerError, match=r"did you mean (ua|lr)"):
            list_runs(made, **wrong)


def test_a_run_that_is_not_finished_or_damaged_is_listed_without_scores(runs: Path) -> None:
    (runs / "fast" / "2-seed1" / "scores.json").unlink()
    (runs / "slow" / "run.json").write_text("{")
    fast, slow, _ = list_runs(runs).runs
    assert (fast.state, fast.scores) == ("3 of 4 models", {})
    assert (slow.scores, "cannot be read" in slow.state) == ({}, True)


def test_deleting_takes_the_named_run_and_nothing_else(runs: Path) -> None:
    before = {path for path in runs.rglob("*") if not path.is_relative_to(runs / "slow")}
    assert delete_run(runs, "slow") == []
    assert set(runs.rglob("*")) == before
    (runs / "fast" / "paper.tex").write_text("precious")
    assert delete_run(runs, "fast") == ["paper.tex"]
    assert [path.name for path in (runs / "fast").iterdir()] == ["paper.tex"]
    (runs / "tried" / "models" / "mine").mkdir()
    (runs / "tried" / "models" / "mine" / "a").write_text("precious")
    assert delete_run(runs, "tried") == ["models"]
    assert {path.name for path in runs.rglob("*") if path.is_file()} == {*("paper.tex", "a.jpg", "a", "pretrain.json")}


def test_a_grid_is_deleted_whole(runs: Path) -> None:
    assert delete_run(runs, "tried") == []
    assert not (runs / "tried").exists()


@pytest.mark.parametrize(
    "name", ["photos", "encoder", "nowhere", "..", ".", "", "../runs/fast", "fast/1-seed0", "/", "linked"]
)
def test_what_is_no_run_of_the_folder_is_not_deleted(runs: Path, name: str) -> None:
    (runs / "linked").symlink_to(runs / "fast")
    before = sorted(runs.rglob("*"))
    with pytest.raises(MmerError, match=r"is not (the name of )?a run|is a link"):
        delete_run(runs, name)
    assert sorted(runs.rglob("*")) == before


@pytest.mark.parametrize("held", [".", "slow"])
def test_a_run_in_a_folder_without_permission_stays_whole(
    runs: Path, monkeypatch: pytest.MonkeyPatch, held: str
) -> None:
    allowed, before = os.access, sorted(runs.rglob("*"))
    monkeypatch.setattr(os, "access", lambda path, mode: allowed(path, mode) and Path(path) != runs / held)
    with pytest.raises(MmerError, match=r"is not writable .*; make it writable and delete again"):
        delete_run(runs, "slow")
    assert sorted(runs.rglob("*")) == before


def test_an_error_in_the_middle_of_deleting_names_what_to_do(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(shutil, "rmtree", refused)
    for name in ("slow", "tried"):
        with pytest.raises(
            MmerError, match=rf"cannot delete .*{name}: .* is not writable \(Permission denied\); make it"
        ):
            delete_run(runs, name)


def test_a_run_of_another_program_or_a_newer_version_is_not_deleted(runs: Path) -> None:
    record = json.loads((runs / "slow" / "run.json").read_text())
    for content in ({**record, "format_version": 99}, {"a": 1}):
        (runs / "slow" / "run.json").write_text(json.dumps(content))
        before = sorted(runs.rglob("*"))
        with pytest.raises(MmerError, match=r"newer mmer|was not written by"):
            delete_run(runs, "slow")
        assert sorted(runs.rglob("*")) == before


def test_a_run_or_grid_in_progress_is_not_deleted(runs: Path) -> None:
    model = next((runs / "tried" / "models").iterdir())
    for name, held in (("fast", runs / "fast"), ("tried", model)):
        before = sorted(runs.rglob("*"))
        with lock_of(held / ".lock"), pytest.raises(MmerError, match="is in progress"):
            delete_run(runs, name)
        assert sorted(set(runs.rglob("*")) | {held / ".lock"}) == sorted({*before, held / ".lock"})
    with RunFolder(runs / "slow").locked(), pytest.raises(MmerError, match="is in progress"):
        delete_run(runs, "slow")


def test_a_folder_that_is_a_run_itself_is_named(made: Path) -> None:
    with pytest.raises(MmerError, match="is a run itself; name the folder that holds it"):
        list_runs(made / "fast")
    with pytest.raises(MmerError, match="is not a folder"):
        list_runs(made / "none")
