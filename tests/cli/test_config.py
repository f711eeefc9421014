"""``--config``: the file of a run or grid gives it back, and options on the command line win."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cli.finetune import finetune
from cli.grid import grid
from cli.train import train
from fusion.experiment.config_file import CONFIG

FIRST = [
    "--fusion", "concat", "--epochs", "1", "--batch-size", "24", "--set", "class_weights=true", "--set", "lr=0.01",
    "--seed", "3", "--audio", "voice", "--stream", "text=words@4", "--only", "session=1+2+3",
    "--data-seed", "5", "--modality-dropout", "0.25", "--allow-leak", "--final",
]  # fmt: skip


def run(command: Any, *arguments: str | Path, code: int = 0) -> Result:
    result = CliRunner().invoke(command, [*map(str, arguments), "--device", "cpu"])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def folders(here: Path) -> list[Path]:
    return sorted((here / "runs").iterdir())


def test_the_file_of_a_run_gives_it_back(trainable: Path, here: Path) -> None:
    run(train, "--cache", trainable, *FIRST)
    (folder,) = folders(here)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("weights.safetensors")}
    assert len(before) > 1
    again = json.loads(run(train, "--config", folder / CONFIG, "--json").stdout)
    assert again["final"]
    assert folders(here) == [folder]  # the same name, so the same identity
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("weights.safetensors")} == before
    run(finetune, "--config", folder / CONFIG, "--tune", "none")
    assert folders(here) == [folder]


def test_options_on_the_command_line_replace_those_of_the_file(trainable: Path, here: Path) -> None:
    run(train, "--cache", trainable, *FIRST)
    (folder,) = folders(here)
    run(train, "--config", folder / CONFIG, "--lr", "0.02", "--seed", "1", "--set", "class_weights=false")
    (other,) = [found for found in folders(here) if found != folder]
    record = json.loads((other / "run.json").read_text())["decides"]
    assert (record["training"]["lr"], record["training"]["class_weights"], record["seeds"]) == (0.02, False, [1])
    assert record["training"]["batch_size"] == 24


def test_the_file_of_a_grid_gives_it_back(trainable: Path, here: Path) -> None:
    axes = ["--grid", "lr=0.01,0.02", "--ablate", "batch_size=40", "--search", "random:1", "--seeds", "1"]
    run(grid, "--cache", trainable, "--fusion", "audio", "--epochs", "1", *axes)
    (folder,) = folders(here)
    again = run(grid, "--config", folder / CONFIG, "--dry-run")
    (models,) = [line for line in again.stdout.splitlines() if " combinations, " in line]
    count = models.split(" models")[0].rpartition(" ")[2]
    assert models.startswith("2 combinations")
    assert f"{count} of them in" in models  # all are in the journal


def test_a_wrong_file_is_one_line(trainable: Path, here: Path) -> None:
    (here / "a.toml").write_text("fusion = 'audio'\nbatchsize = 3\n")
    result = run(train, "--cache", trainable, "--config", here / "a.toml", code=1)
    assert result.stderr.strip().endswith("a.toml: unknown option 'batchsize'; did you mean batch-size?")
    (here / "a.toml").write_text("fusion = 'audio'\nepochs = 0\n")
    assert "above 0" in run(train, "--cache", trainable, "--config", here / "a.toml", code=2).stderr
