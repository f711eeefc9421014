"""Ends of commands: by a signal, with a line; and with an output that cannot be written."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.grid import grid
from cli.maintain import info
from tests.support.processes import ROOT, started, wait_until

INSIDE = """
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background would ignore it
from cli.ending import clean_errors
with clean_errors():
    print("inside", flush=True)
    time.sleep(1000)
"""
WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


@pytest.mark.parametrize("number", WORDS)
def test_a_signal_ends_a_command_with_a_line_and_by_that_signal(number: signal.Signals) -> None:
    with started("-c", INSIDE) as process:
        wait_until(process.output.read_text, process)
        os.kill(process.pid, number)
        status = process.wait()
        errors = process.errors.read_text()
    assert status == -number
    assert errors == f"Error: {WORDS[number]}; what is committed stays; run the same command again to resume\n"


def test_an_output_that_is_full_ends_in_a_line(toy: tuple[Path, object]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full, a device that is always full")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", f"from cli.maintain import info; info([{str(toy[0])!r}])"],
            stdout=full,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: the output cannot be written (")
    assert len(done.stderr.splitlines()) == 1


def test_a_handler_of_the_caller_is_there_again(toy: tuple[Path, object]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert CliRunner().invoke(info, [str(toy[0])]).exit_code == 0
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_ends_a_grid_and_the_same_command_finishes_it(trainable: Path, tmp_path: Path) -> None:
    options = ["--fusion", "audio", "--cache", str(trainable), "--grid", "lr=0.1,0.01,0.001", "--epochs", "2"]
    options += ["--out", str(tmp_path / "grid"), "--engine", "shared", "--device", "cpu", "--batch-size", "16"]

    def finished() -> int:
        return len(list((tmp_path / "grid").glob("models/*/entry.json")))

    def terminate() -> None:
        while not finished():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=terminate, daemon=True).start()
    stopped = CliRunner().invoke(grid, options)
    assert stopped.exit_code == 128 + signal.SIGTERM, stopped.output
    assert "Error: terminated; what is committed stays" in stopped.stderr
    kept = finished()
    assert kept
    assert CliRunner().invoke(grid, options).exit_code == 0
    assert finished() > kept
