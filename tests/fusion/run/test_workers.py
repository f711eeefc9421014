"""Folds and seeds on the workers of a real cluster give the files that one process gives."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cache.errors import MmerError
from fusion.experiment.request import ExperimentRequest
from fusion.run.train import TrainedRun, train_run
from tests.support.clusters import small_cluster
from tests.support.runs import TWO_FOLDS, files_of, reader_of
from tests.support.workers import Here

QUICK = {"epochs": 2, "batch_size": 11, "lr": 0.01}


def run_of(
    cache: Path, out: Path, fusion: str = "audio", fields: Mapping[str, object] | None = None, **options: Any
) -> TrainedRun:
    opened = reader_of(cache)
    changed, seeds = {**QUICK, **(fields or {})}, options.pop("seeds", (0, 1))
    wanted = ExperimentRequest(fusion=fusion, fields=changed, seeds=seeds, **TWO_FOLDS)
    return train_run(wanted.experiment(opened), opened, out=out, **options)


def test_workers_write_what_one_process_writes(trainable: Path, tmp_path: Path) -> None:
    here = run_of(trainable, tmp_path / "here")
    with small_cluster() as cluster:
        there = run_of(trainable, tmp_path / "there", cluster=cluster)
    assert {**there.results, "run": ""} == {**here.results, "run": ""}
    here_files, there_files = files_of(tmp_path / "here"), files_of(tmp_path / "there")
    for files in (here_files, there_files):
        del files["results.json"]  # it names the folder
    assert there_files == here_files


@pytest.mark.parametrize("fusion", ["audio", "probe"])
def test_a_refit_on_workers_gives_what_one_process_gives(trainable: Path, tmp_path: Path, fusion: str) -> None:
    cluster = Here()
    wanted: dict[str, Any] = {"fields": {"refit": True}, "seeds": (1,)}
    here = run_of(trainable, tmp_path / "here", fusion, **wanted)
    there = run_of(trainable, tmp_path / "there", fusion, **wanted, cluster=cluster)
    assert cluster.done == 2 * len(here.folds)  # all models select their epochs before the first is trained again
    assert {**there.results, "run": ""} == {**here.results, "run": ""}
    here_files, there_files = files_of(tmp_path / "here"), files_of(tmp_path / "there")
    assert [
        name
        for name, content in here_files.items()
        if there_files[name] != content and not name.endswith(("results.json", "selected.json"))
    ] == []


def test_only_what_is_missing_is_sent(trainable: Path, tmp_path: Path) -> None:
    whole = run_of(trainable, tmp_path / "run")
    (tmp_path / "run" / "1-seed1" / "scores.json").unlink()
    cluster = Here()
    assert run_of(trainable, tmp_path / "run", cluster=cluster).results == whole.results
    assert cluster.done == 1


def test_a_worker_that_was_killed_is_one_line(trainable: Path, tmp_path: Path) -> None:
    with pytest.raises(MmerError, match=r"the worker that trained fold 1, seed 0 was killed .*; repeat the command"):
        run_of(trainable, tmp_path / "run", cluster=Here(lost=True))
    assert run_of(trainable, tmp_path / "run").folds
