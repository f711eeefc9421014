"""One of several ways to do something, in a process of its own, and the memory that it takes."""

import ctypes
import multiprocessing
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")  # of Linux
NEW_PEAK = "5"  # what the latter takes for it


class Arm:
    """A process that does what it is asked.

    Args:
        serve: what the process runs; it answers through the connection that it is given last, until asked to ``end``.
        given: to it.
    """

    def __init__(self, serve: Callable[..., None], *given: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._asks, answers = context.Pipe()
        self._process = context.Process(target=serve, args=(*given, answers), daemon=True)
        self._process.start()
        answers.close()  # so that a process that died is not waited for

    def __call__(self, what: Any) -> Any:
        """Has something done and gives the answer."""
        self._asks.send(what)
        return self._asks.recv()

    def end(self) -> None:
        """Ends the process."""
        self._asks.send("end")
        self._process.join()


def start_peak() -> None:
    """Gives freed memory back to the system and starts a new peak, where the system lets it."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
        RESET.write_text(NEW_PEAK)
    except (AttributeError, OSError):
        return


def peak_mb() -> float:
    """Gives the greatest resident memory of the process: since `start_peak`, or at all."""
    if STATUS.exists():
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
