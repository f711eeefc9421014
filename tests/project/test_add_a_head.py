"""The example of docs/add-a-head.md trains, resumes and searches as the document says."""

import json
import pickle
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cache.errors import MmerError
from cli.grid import grid
from cli.train import train
from fusion.grid.engine.remote import WorkerTask, run_on_workers, train_task
from fusion.grid.journal import Journal
from fusion.heads.catalog import head_spec
from tests.support.grids import CPU, GridTold, models, planned, trained, weights_of
from tests.support.own_heads import NAME, example, in_folder
from tests.support.processes import command, forked
from tests.support.runs import finish, plan, train_by_command

EDITED = f"{example()}\n# edited\n"


def done(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_command_trains_the_head_of_the_document(trainable: Path, tmp_path: Path) -> None:
    (tmp_path / "my_head.py").write_text(example())
    arguments = ["--fusion", NAME, "--cache", str(trainable), "--device", "cpu", "--epochs", "2", "--latex"]
    # as for an installed script, the current folder is not on the path
    with forked(command, "cli.train", "train", *arguments, folder=tmp_path) as process:
        status, printed, progress = process.wait(), process.output.read_text(), process.errors.read_text()
    assert status == 0, progress
    assert "the bias starts at class frequencies" in printed
    assert r"my\_head:MyHead & " in printed
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("toy-my_head-MyHead-")
    decides = json.loads((folder / "run.json").read_text())["decides"]
    with in_folder(tmp_path, my_head=example()):
        assert (decides["fusion"], decides["source"]) == (NAME, head_spec(NAME).source)


def test_a_run_goes_on_with_the_same_file_and_is_another_with_an_edited_one(trainable: Path, tmp_path: Path) -> None:
    command = ("--fusion", NAME, "--out", "out", "--epochs", "1")
    with in_folder(tmp_path, my_head=example()):
        done(train_by_command(trainable, *command))
        assert "nothing is trained again" in train_by_command(trainable, *command).output
    with in_folder(tmp_path, my_head=EDITED):
        refused = train_by_command(trainable, *command)
    assert refused.exit_code == 1
    assert "out already holds a different run (the source file of the head has changed)" in refused.stderr


def test_runs_of_own_heads_are_added_up_without_their_code(trainable: Path, tmp_path: Path) -> None:
    with in_folder(tmp_path, my_head=example()):
        finish(plan(trainable, NAME, {"epochs": "1"}), tmp_path / "mine")
        finish(plan(trainable, "text", {"epochs": "1"}), tmp_path / "text")
    (tmp_path / "my_head.py").unlink()
    with in_folder(tmp_path):
        arguments = ["--run", "mine", "--run", "text", "--fusion", "score", "--cache", str(trainable), "--json"]
        told = json.loads(done(CliRunner().invoke(train, arguments)))
    assert told["run"] == "runs/score-mine-text"


def test_a_grid_stacks_the_head_and_its_journal_knows_it_again(trainable: Path, tmp_path: Path) -> None:
    options = ["--grid", "balance=0.1", "--seeds", "2", "--engine", "fused", "--epochs", "1", "--device", "cpu"]
    command = ["--fusion", NAME, "--cache", str(trainable), *options]
    with in_folder(tmp_path, my_head=example()):
        first = done(CliRunner().invoke(grid, command))
        assert "stacks of" in first
        assert "does not set stackable" not in first
        assert "all was in the journal" in done(CliRunner().invoke(grid, command))
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["toy-my_head-MyHead-grid"]
    with in_folder(tmp_path, my_head=EDITED):
        assert "stacks of" in done(CliRunner().invoke(grid, command))


def test_a_worker_imports_the_head_itself(trainable: Path, tmp_path: Path) -> None:
    (tmp_path / "worker").mkdir()
    on_cpu = partial(train_task, lambda name: CPU, 0.5)

    def elsewhere(source: str, task: Any, items: Iterable[WorkerTask]) -> Iterator[tuple[WorkerTask, Any]]:
        for item in items:
            sent = pickle.dumps(item)
            asking = sys.modules.pop("my_head")
            received = pickle.loads(sent)
            assert "my_head" not in sys.modules
            with in_folder(tmp_path / "worker", my_head=source):
                sent_back = task(received, "cpu")
            sys.modules["my_head"] = asking
            yield item, sent_back

    with in_folder(tmp_path, my_head=example()):
        every = planned(trainable, NAME, {"balance": 0.5, "epochs": 1})
        trained(tmp_path / "here", every, folds=["1"])
        told: dict[str, Any] = {"cache": trainable, "journal": Journal(tmp_path / "there"), "progress": GridTold()}
        run_on_workers(partial(elsewhere, example()), on_cpu, models(every, folds=["1"]), **told)
        assert weights_of(tmp_path / "there") == weights_of(tmp_path / "here")
        with pytest.raises(MmerError, match="a worker has another version of the file of head my_head:MyHead"):
            run_on_workers(partial(elsewhere, EDITED), on_cpu, models(every, folds=["2"]), **told)


def test_the_fields_of_the_head_are_listed(tmp_path: Path) -> None:
    with in_folder(tmp_path, my_head=example()):
        listed = done(CliRunner().invoke(train, ["--list-fields", NAME]))
    assert "balance=0.1                head      weight of a loss that pulls the mean of the gate" in listed


@pytest.mark.parametrize("command", [train, grid])
def test_a_module_that_is_not_there_is_told_in_a_line(command: Any, trainable: Path, tmp_path: Path) -> None:
    with in_folder(tmp_path):
        result = CliRunner().invoke(command, ["--fusion", NAME, "--cache", str(trainable)])
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: head my_head:MyHead: module my_head not found in the current folder "
        f"({tmp_path}) or on the Python path\n"
    )
