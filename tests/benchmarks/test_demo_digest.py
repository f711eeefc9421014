import gzip
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.demo_digest import machine, main

FIXTURES = Path(__file__).parents[1] / "fixtures" / "v0.1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a cache and a finished run in the places where ``make demo`` leaves them."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "toy.h5").write_bytes(gzip.decompress((FIXTURES / "toy.h5.gz").read_bytes()))
    shutil.copytree(FIXTURES / "finished" / "audio", tmp_path / "runs" / "audio")
    return tmp_path


def run(folder: Path, option: str) -> tuple[int, list[str]]:
    result = CliRunner().invoke(main, ["--folder", str(folder), option, str(folder / "digests.json")])
    return result.exit_code, result.stdout.splitlines()


def test_equal_files_have_equal_digests(folder: Path) -> None:
    status, lines = run(folder, "--record")
    assert status == 0
    assert any(line.startswith("run audio 3-seed0: test: wa 0.") for line in lines)
    status, lines = run(folder, "--expect")
    assert (status, len(lines)) == (0, 1)
    assert lines[0].startswith("0 of ")


def test_a_changed_score_is_a_line_and_a_new_score_is_none(folder: Path) -> None:
    run(folder, "--record")
    path = folder / "runs" / "audio" / "3-seed0" / "scores.json"
    scores = json.loads(path.read_text()) | {"mf1": 0.5}
    path.write_text(json.dumps(scores))
    assert run(folder, "--expect")[0] == 0
    path.write_text(json.dumps(scores | {"wa": 0.75}))
    status, lines = run(folder, "--expect")
    assert (status, len(lines)) == (1, 2)
    assert lines[0].startswith("run audio 3-seed0: test: expected wa 0.")
    assert "got wa 0.75" in lines[0]


def test_another_machine_is_named(folder: Path) -> None:
    run(folder, "--record")
    recorded = json.loads((folder / "digests.json").read_text())
    recorded["machine"]["torch"] = "1.0"
    (folder / "digests.json").write_text(json.dumps(recorded))
    status, lines = run(folder, "--expect")
    assert status == 0
    assert f"torch: expected 1.0, got {machine()['torch']}" in lines[1]


def test_a_folder_without_a_demo_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--folder", str(tmp_path)])
    assert result.exit_code == 1
    assert "run `make demo`" in result.stderr
