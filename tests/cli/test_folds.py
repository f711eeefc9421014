"""``--folds`` of `mmer-train` and `mmer-grid`: a stop is resumed, a wrong table is one line."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from cache.joined import open_cache
from cli.grid import grid
from cli.train import train
from fusion.experiment.request import ExperimentRequest
from fusion.protocols.own_folds import read_own_folds
from fusion.run.train import TrainedRun, train_run
from tests.support.folds import table_of_folds
from tests.support.runs import QUICK

COMMANDS: tuple[tuple[click.Command, list[str]], ...] = (
    (train, ["--fusion", "audio"]),
    (grid, ["--fusion", "audio", "--grid", "lr=0.01,0.02"]),
)


def never() -> bool:
    return False


def run_of(cache: Path, folds: Path, out: Path, *, stopping: Callable[[], bool] = never) -> TrainedRun:
    opened = open_cache(cache)
    request = ExperimentRequest(fusion="audio", fields=QUICK, own_folds=read_own_folds(str(folds)))
    return train_run(request.experiment(opened), opened, out=out, stopping=stopping)


def test_a_stopped_run_with_folds_of_its_own_is_resumed_bit_equal(trainable: Path, tmp_path: Path) -> None:
    folds = table_of_folds(trainable, tmp_path / "folds.csv")
    whole = run_of(trainable, folds, tmp_path / "whole")
    calls = itertools.count()
    with pytest.raises(KeyboardInterrupt):
        run_of(trainable, folds, tmp_path / "run", stopping=lambda: next(calls) == 2)
    assert run_of(trainable, folds, tmp_path / "run").folds == whole.folds
    assert {fold["fold"] for fold in whole.folds} == {"a", "b"}


def test_a_grid_takes_folds_from_a_table_of_folds(trainable: Path, tmp_path: Path) -> None:
    folds = table_of_folds(trainable, tmp_path / "folds.csv")
    out = ["--cache", str(trainable), "--out", str(tmp_path / "grid"), "--epochs", "1", "--json"]
    done = CliRunner().invoke(grid, ["--fusion", "audio", "--grid", "lr=0.01,0.02", "--folds", str(folds), *out])
    assert done.exit_code == 0, done.output
    assert {fold["fold"] for fold in json.loads(done.stdout)["folds"]} == {"a", "b"}


@pytest.mark.parametrize(("command", "options"), COMMANDS, ids=[command.name for command, _ in COMMANDS])
def test_a_wrong_table_is_one_line(trainable: Path, tmp_path: Path, command: click.Command, options: list[str]) -> None:
    folds = table_of_folds(trainable, tmp_path / "folds.csv", more="nobody,a\n")
    done = CliRunner().invoke(command, [*options, "--cache", str(trainable), "--folds", str(folds)])
    assert done.exit_code == 1
    assert "nobody" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
