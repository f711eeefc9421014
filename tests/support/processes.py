"""Child processes of tests: started as a user does, or forked with everything imported; none outlives its test."""

import functools
import importlib
import itertools
import multiprocessing
import multiprocessing.forkserver
import multiprocessing.util
import os
import select
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from threadpoolctl import threadpool_limits

ROOT = Path(__file__).parents[2]
# and what is imported on the way: by the first step of an optimizer, to make folds, for intervals, sounds and pictures
PRELOADED = (
    "featurize.extraction.distributed",
    "featurize.encoders.tiny",
    "fusion.grid.engine.remote",
    "fusion.grid.session",
    "torch._dynamo",
    "sklearn.model_selection",
    "scipy.stats",
    "librosa.feature.spectral",
    "fusion.grid.report.plots",
)
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
    """Starts a server that has everything imported and forks processes, which are at work at once.

    The server is a fork of this process itself: what the collection of tests has imported is not imported again. So it
    must start before a test does, while there are no threads, no patches and no device in use.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:  # a run of all tests needs these modules in this process too
        for name in PRELOADED:
            importlib.import_module(name)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multiprocessing.util, "spawnv_passfds", _forked_in_place)
        multiprocessing.forkserver.ensure_running()
    return context


def _forked_in_place(path: str, arguments: Sequence[str], descriptors: Sequence[int]) -> int:
    """Runs the program of a fork server, the last argument, in a fork of this process; returns the process id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        kept = sorted({0, 1, 2, *descriptors})
        for before, after in itertools.pairwise([*kept, os.sysconf("SC_OPEN_MAX")]):
            os.closerange(before + 1, after)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
        os.environ["PYTHONPATH"] = str(ROOT)
        threadpool_limits(1)  # a plugin may have imported numpy before conftest.py said so
        warnings.resetwarnings()
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)  # as Python starts, without what pytest makes of warnings
        ready, _, _ = select.select(descriptors, [], [])
        if descriptors[0] in ready:  # a first request, and not the end of this session: what is missing is imported
            exec(arguments[-1], {})
    finally:
        os._exit(0)


def _redirected(output: Path, errors: Path, folder: Path, work: Callable[..., object], arguments: Any) -> None:
    os.chdir(folder)
    for stream, path in ((sys.stdout, output), (sys.stderr, errors)):
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, stream.fileno())
        os.close(file)
    work(*arguments)
