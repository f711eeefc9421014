"""Child processes of tests: started as a user does, or forked with everything imported; none outlives its test."""

import functools
import importlib
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE_S = float(os.environ.get("MMER_TEST_PATIENCE_S", "300"))  # a loaded machine may need it; a sound test does not


@dataclass(frozen=True, kw_only=True)
class Child:
    """A process at work; what it prints goes to files, so that no pipe fills up or stays open."""

    pid: int
    poll: Callable[[], int | None]  # the exit status, once there is one
    output: Path
    errors: Path

    def wait(self) -> int:
        """Waits for the end and gives the exit status, negative for a signal."""
        wait_until(lambda: self.poll() is not None)
        status = self.poll()
        assert status is not None
        return status

    def kill(self) -> int:
        """Kills it and gives the exit status."""
        os.kill(self.pid, signal.SIGKILL)
        return self.wait()


def wait_until(condition: Callable[[], object], child: Child | None = None, *, patience_s: float = PATIENCE_S) -> None:
    """Waits for a condition, which a child that has ended can fulfil no longer."""
    deadline = time.monotonic() + patience_s
    while True:
        ended = child is not None and child.poll() is not None
        if condition():
            return
        assert not ended, f"the process ended too early: {child and child.errors.read_text()}"
        assert time.monotonic() < deadline, f"nothing came of waiting {patience_s:g} s"
        time.sleep(0.005)


@contextmanager
def started(*arguments: str, folder: Path = ROOT) -> Iterator[Child]:
    """Starts Python with some arguments, as a user does."""
    with TemporaryDirectory() as place:
        output, errors = Path(place) / "output", Path(place) / "errors"
        with output.open("wb") as out, errors.open("wb") as err:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
        try:
            yield Child(pid=process.pid, poll=process.poll, output=output, errors=errors)
        finally:
            process.kill()
            process.wait()


@contextmanager
def forked(work: Callable[..., object], *arguments: Any, folder: Path = ROOT) -> Iterator[Child]:
    """Runs a function of a module in a process of its own that has all of mmer imported already."""
    with TemporaryDirectory() as place:
        output, errors = Path(place) / "output", Path(place) / "errors"
        output.touch()
        errors.touch()
        process = fork_server().Process(target=_redirected, args=(output, errors, folder, work, arguments))
        process.start()
        try:
            yield Child(pid=process.pid, poll=lambda: process.exitcode, output=output, errors=errors)
        finally:
            process.kill()
            process.join()
            process.close()


def command(module: str, name: str, *options: str) -> None:
    """Runs a command of mmer in this process, as its entry point does; to be forked."""
    getattr(importlib.import_module(module), name)(list(options))


@functools.cache
def fork_server() -> Any:
    """Starts a server that has everything imported and forks processes, which are at work at once."""
    from featurize.encoders.tiny import build_roberta_tiny_tokenizer
    from featurize.extraction.distributed import extract_on
    from fusion.grid.engine.remote import train_task
    from fusion.grid.session import GridSession

    needed: Sequence[Any] = (extract_on, build_roberta_tiny_tokenizer, train_task, GridSession)
    context = multiprocessing.get_context("forkserver")
    # and what is imported on the way: by the first step of an optimizer, to make folds, for intervals and pictures
    later = ["torch._dynamo", "sklearn.model_selection", "scipy.stats", "fusion.grid.report.plots"]
    context.set_forkserver_preload([*(one.__module__ for one in needed), *later])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        multiprocessing.forkserver.ensure_running()
    return context


def _redirected(output: Path, errors: Path, folder: Path, work: Callable[..., object], arguments: Any) -> None:
    os.chdir(folder)
    for stream, path in ((sys.stdout, output), (sys.stderr, errors)):
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, stream.fileno())
        os.close(file)
    work(*arguments)
