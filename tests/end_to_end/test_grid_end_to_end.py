"""A grid in a process of its own, killed, and two grids at once over one journal."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fusion.grid.journal import ENTRY
from tests.support.grids import weights_of

ROOT = Path(__file__).parents[2]
AXES = ["--grid", "lr=0.03,0.003", "--grid", "dropout=0.1,0.3", "--set", "patience=15", "--epochs", "15"]


def started(cache: Path, folder: Path, *options: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "cli.grid", "--fusion", "audio", "--cache", str(cache), "--device", "cpu"]
    quick = ["--batch-size", "8", "--engine", "shared", "--out", "grid", "--json"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [*command, *quick, *AXES, *options], cwd=folder, env=env, stdout=pipe, stderr=pipe, text=True
    )


def finished(process: "subprocess.Popen[str]") -> dict[str, object]:
    told, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    result: dict[str, object] = json.loads(told)
    return result


def entries(folder: Path) -> set[Path]:
    return set(folder.glob(f"grid/models/*/{ENTRY}"))


@pytest.fixture(scope="module")
def undisturbed(trainable: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, finished(started(trainable, folder))


def told_apart_from_time(result: dict[str, object]) -> dict[str, object]:
    rows = [{name: one for name, one in row.items() if name != "seconds"} for row in result["rows"]]  # type: ignore[attr-defined]
    return {"rows": rows, **{name: result[name] for name in ("nested", "folds", "winner", "nested_interval")}}


def test_a_killed_grid_goes_on_where_it_was(
    trainable: Path, tmp_path: Path, undisturbed: tuple[Path, dict[str, object]]
) -> None:
    with started(trainable, tmp_path) as process:
        deadline = time.monotonic() + 60
        while len(entries(tmp_path)) < 3:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.kill()
    before = {path: path.stat().st_mtime_ns for path in entries(tmp_path)}
    assert 3 <= len(before) < 12
    again = finished(started(trainable, tmp_path))
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert weights_of(tmp_path / "grid") == weights_of(undisturbed[0] / "grid")
    assert told_apart_from_time(again) == told_apart_from_time(undisturbed[1])


def test_two_grids_at_once_do_not_repeat_work(
    trainable: Path, tmp_path: Path, undisturbed: tuple[Path, dict[str, object]]
) -> None:
    with started(trainable, tmp_path) as one, started(trainable, tmp_path) as other:
        results = [finished(one), finished(other)]
    assert len(entries(tmp_path)) == 12
    for result in results:
        assert told_apart_from_time(result) == told_apart_from_time(undisturbed[1])
