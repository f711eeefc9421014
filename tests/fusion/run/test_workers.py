"""Folds and seeds on the workers of a real cluster give the files that one process gives."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from cache.errors import MmerError
from cache.joined import open_cache
from featurize.runtime.cluster import Killed
from fusion.experiment.request import ExperimentRequest
from fusion.run.train import TrainedRun, train_run
from tests.support.clusters import small_cluster
from tests.support.runs import files_of

QUICK = {"epochs": 2, "batch_size": 16, "lr": 0.01}


def run_of(cache: Path, out: Path, fusion: str = "audio", **options: Any) -> TrainedRun:
    opened = open_cache(cache)
    wanted = ExperimentRequest(fusion=fusion, fields=QUICK, seeds=(0, 1))
    return train_run(wanted.experiment(opened), opened, out=out, **options)


class Here:
    """Runs tasks in this process, in place of a cluster; the first one may be lost."""

    notes: Sequence[str] = ()

    def __init__(self, *, lost: bool = False) -> None:
        self.lost, self.done = lost, 0

    @property
    def own_device(self) -> Callable[[str], torch.device]:
        return lambda name: torch.device("cpu")

    @property
    def results(self) -> Callable[[Callable[..., Any], Iterable[Any]], Iterator[tuple[Any, object]]]:
        def run(task: Callable[..., Any], items: Iterable[Any]) -> Iterator[tuple[Any, object]]:
            for item in items:
                self.done += 1
                yield item, Killed("worker 0 died") if self.lost else task(item, "cpu")

        return run


def test_workers_write_what_one_process_writes(trainable: Path, tmp_path: Path) -> None:
    here = run_of(trainable, tmp_path / "here")
    with small_cluster() as cluster:
        there = run_of(trainable, tmp_path / "there", cluster=cluster)
    assert {**there.results, "run": ""} == {**here.results, "run": ""}
    here_files, there_files = files_of(tmp_path / "here"), files_of(tmp_path / "there")
    for files in (here_files, there_files):
        del files["results.json"]  # it names the folder
    assert there_files == here_files


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
