"""``mmer-runs`` as a user types it."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.runs import runs
from tests.support.runs import train_by_command


@pytest.fixture(scope="module")
def trained(trainable: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for lr in ("0.01", "0.02"):
        options = ["--fusion", "audio", "--lr", lr, "--epochs", "1", "--out", str(folder / lr)]
        result = train_by_command(trainable, *options)
        assert result.exit_code == 0, result.output
    return folder


def typed(*options: str, given: str = "") -> Result:
    return CliRunner().invoke(runs, options, input=given)


def test_a_table_and_json_say_the_same(trained: Path) -> None:
    lines = typed(str(trained)).stdout.splitlines()
    assert lines[0].split() == ["name", "lr", "WA", "UA", "W-F1", "M-F1", "state", "changed"]
    assert [line.split()[:2] for line in lines[1:3]] == [["0.01", "0.01"], ["0.02", "0.02"]]
    assert lines[3].startswith("WA accuracy, UA mean recall of the classes")
    assert lines[4].startswith(f"{trained}: 2 runs and grids, ")
    plain = json.loads(typed(str(trained), "--json").stdout)
    assert [f"{100 * run['mean']['ua']:.2f}" for run in plain["runs"]] == [line.split()[3] for line in lines[1:3]]
    assert json.loads(typed(str(trained), "--only", "lr=0.02", "--json").stdout)["runs"] == plain["runs"][1:]


def test_a_run_is_deleted_only_when_the_question_is_answered_by_yes(trained: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "runs"))
    refused = typed(str(folder), "--delete", "0.01", given="n\n")
    assert (refused.exit_code, sorted(path.name for path in folder.iterdir())) == (0, ["0.01", "0.02"])
    unanswered = typed(str(folder), "--delete", "0.01")
    assert (unanswered.exit_code, (folder / "0.01").exists()) == (1, True)
    wrong = typed(str(folder), "--delete", "0.01", "--delete", "0.03", "--yes")
    assert (wrong.exit_code, (folder / "0.01").exists()) == (1, True)
    assert "0.03 is not a run or grid of mmer" in wrong.stderr
    done = typed(str(folder), "--delete", "0.01", "--delete", "0.02", "--yes")
    assert done.stdout.splitlines() == [f"deleted {folder / name}" for name in ("0.01", "0.02")]
    assert list(folder.iterdir()) == []
