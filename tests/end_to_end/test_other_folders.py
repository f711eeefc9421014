"""Folders and files that are not what an option needs: one line that says so, and nothing of the user's is touched."""

from pathlib import Path

import pytest
import soundfile
import torch
from click.testing import CliRunner

from cache.errors import MmerError
from cache.files import check_unused
from cli.compare import compare
from cli.grid import grid
from cli.train import train
from tests.support.commands import stopped
from tests.support.voices import RATE_HZ, tone

COMMON = ["--fusion", "audio", "--device", "cpu", "--epochs", "1"]


@pytest.fixture
def thesis(tmp_path: Path) -> Path:
    """A folder with a file of the user."""
    (tmp_path / "my thesis").mkdir()
    (tmp_path / "my thesis" / "chapter.tex").write_text("text")
    return tmp_path / "my thesis"


@pytest.mark.parametrize("command", [train, grid])
@pytest.mark.parametrize("options", [[], ["--replace"]])
def test_out_at_a_folder_with_other_files_is_refused(
    trainable: Path, thesis: Path, command: object, options: list[str]
) -> None:
    grid_options = ["--grid", "lr=0.1,0.01"] if command is grid else options
    arguments = ["--cache", str(trainable), *COMMON, "--out", str(thesis), *grid_options]
    line = stopped(CliRunner().invoke(command, arguments))  # type: ignore[arg-type]
    assert f"{thesis} holds other files (first: chapter.tex); choose another --out, new or empty" in line
    assert [path.name for path in thesis.iterdir() if not path.name.startswith(".")] == ["chapter.tex"]


def test_an_empty_folder_and_hidden_files_are_free(tmp_path: Path) -> None:
    check_unused(tmp_path)
    (tmp_path / ".lock").touch()
    check_unused(tmp_path)
    check_unused(tmp_path / "new")
    (tmp_path / "a").mkdir()
    with pytest.raises(MmerError, match="holds other files"):
        check_unused(tmp_path)


def test_a_note_that_a_user_put_into_a_run_stays(trainable: Path, tmp_path: Path) -> None:
    arguments = ["--cache", str(trainable), *COMMON, "--out", str(tmp_path / "run")]
    assert CliRunner().invoke(train, arguments).exit_code == 0
    (tmp_path / "run" / "notes.txt").write_text("good")
    assert CliRunner().invoke(train, [*arguments, "--lr", "0.1", "--replace"]).exit_code == 0
    assert (tmp_path / "run" / "notes.txt").read_text() == "good"


def test_a_recording_as_a_cache_is_called_one_and_stays(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", tone(0.1), RATE_HZ)
    line = stopped(CliRunner().invoke(train, ["--cache", str(tmp_path / "x.wav"), *COMMON]))
    assert "x.wav is not a cache file but a WAV recording; choose a cache file" in line
    assert "remove" not in line


@pytest.mark.parametrize(("name", "problem"), [("nope", "it does not exist"), ("my thesis", "it has no run.json")])
def test_a_misspelt_run_is_named(trainable: Path, thesis: Path, name: str, problem: str) -> None:
    run = str(thesis.parent / name)
    fused = ["--cache", str(trainable), "--fusion", "score", "--run", run, "--run", f"{run}2"]
    for line in (
        stopped(CliRunner().invoke(train, fused)),
        stopped(CliRunner().invoke(compare, [run, f"{run}2"])),
    ):
        assert f"{run} is not a run folder, {problem}; expected the folder that mmer-train printed" in line
        assert "delete" not in line


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:1", "gpu", "mps"])
def test_a_device_that_is_not_there_is_named(trainable: Path, tmp_path: Path, device: str) -> None:
    arguments = ["--cache", str(trainable), "--fusion", "audio", "--device", device, "--out", str(tmp_path / "run")]
    assert f"device '{device}' is not available here; choose auto, cpu" in stopped(CliRunner().invoke(train, arguments))
