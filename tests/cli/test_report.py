import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.report import report
from tests.support.commands import stopped
from tests.support.reports import texts_for_pictures
from tests.support.runs import finish, plan


@pytest.fixture(scope="module")
def run(trainable: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    finish(plan(trainable, "audio", {"epochs": "1"}), folder)
    return folder


@pytest.fixture(autouse=True, scope="module")
def quick_pages() -> Iterator[None]:
    """Reports that have the texts of their pictures in place of them."""
    with texts_for_pictures():
        yield


def test_the_command_prints_the_file_and_what_an_utterance_takes(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.html"
    ended = CliRunner().invoke(report, [str(run), "--out", str(out), "--complexity", "--sounds", "1"])
    assert ended.exit_code == 0, ended.output
    assert f"{out}: " in ended.stdout.splitlines()[-1]
    assert "input of one utterance" in ended.stdout
    assert "recordings are not in the page" in ended.stdout  # the toy corpus has none
    assert out.read_text().startswith("<!doctype html>")


def test_the_command_prints_json_for_programs(run: Path, tmp_path: Path) -> None:
    ended = CliRunner().invoke(report, [str(run), "--out", str(tmp_path / "a.html"), "--json"])
    found = json.loads(ended.stdout)
    assert found["size_bytes"] == (tmp_path / "a.html").stat().st_size
    assert found["complexity"] == {}


def test_a_folder_that_is_no_run_is_one_line(tmp_path: Path) -> None:
    assert "is not a run folder" in stopped(CliRunner().invoke(report, [str(tmp_path)]))
