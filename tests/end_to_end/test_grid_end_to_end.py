"""A grid in a process of its own, killed, and two grids at once over one journal."""

import json
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from fusion.grid.journal import ENTRY
from tests.support.grids import weights_of
from tests.support.pictures import pictures_by, write_axes, write_run
from tests.support.processes import Child, command, forked, wait_until

AXES = ["--grid", "lr=0.03,0.003", "--grid", "dropout=0.1,0.3", "--epochs", "2"]


def options_of(cache: Path) -> list[str]:
    quick = ["--batch-size", "8", "--engine", "shared", "--out", "grid", "--json"]
    return ["--fusion", "audio", "--cache", str(cache), "--device", "cpu", *quick, *AXES]


def grid_without_drawing(*options: str) -> None:
    """Runs the command with text in place of pictures; to be forked."""
    with pictures_by(write_run, write_axes):
        command("cli.grid", "grid", *options)


def grid(cache: Path, folder: Path) -> AbstractContextManager[Child]:
    return forked(grid_without_drawing, *options_of(cache), folder=folder)


def finished(process: Child) -> dict[str, object]:
    status = process.wait()
    assert status == 0, process.errors.read_text()
    result: dict[str, object] = json.loads(process.output.read_text())
    return result


def entries(folder: Path) -> set[Path]:
    return set(folder.glob(f"grid/models/*/{ENTRY}"))


@pytest.fixture(scope="module")
def undisturbed(trainable: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    with grid(trainable, folder) as process:
        return folder, finished(process)


def told_apart_from_time(result: dict[str, object]) -> dict[str, object]:
    rows = [{name: one for name, one in row.items() if name != "seconds"} for row in result["rows"]]  # type: ignore[attr-defined]
    return {"rows": rows, **{name: result[name] for name in ("nested", "folds", "winner", "nested_interval")}}


def test_a_killed_grid_goes_on_where_it_was(
    trainable: Path, tmp_path: Path, undisturbed: tuple[Path, dict[str, object]]
) -> None:
    with grid(trainable, tmp_path) as process:
        wait_until(lambda: len(entries(tmp_path)) >= 3, process)
        process.kill()
    before = {path: path.stat().st_mtime_ns for path in entries(tmp_path)}
    assert 3 <= len(before) < 12
    with grid(trainable, tmp_path) as process:
        again = finished(process)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(list(tmp_path.glob("grid/grids/*/axis-lr.png"))) == 1
    assert weights_of(tmp_path / "grid") == weights_of(undisturbed[0] / "grid")
    assert told_apart_from_time(again) == told_apart_from_time(undisturbed[1])


def test_two_grids_at_once_do_not_repeat_work(
    trainable: Path, tmp_path: Path, undisturbed: tuple[Path, dict[str, object]]
) -> None:
    with grid(trainable, tmp_path) as one, grid(trainable, tmp_path) as other:
        results = [finished(one), finished(other)]
    assert len(entries(tmp_path)) == 12
    for result in results:
        assert told_apart_from_time(result) == told_apart_from_time(undisturbed[1])
