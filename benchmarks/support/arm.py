"""One of several ways to do something, in a process of its own, and the memory that it takes."""

import ctypes
import multiprocessing
import resource
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from fusion.data.memory import peak_memory, reset_peak

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


class Peak:
    """The greatest memory of this process within a ``with``: of tensors on a GPU, resident on a CPU.

    Where the system does not let a process begin a new peak, it is that of its whole life.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.size_mb = device, 0.0

    def __enter__(self) -> "Peak":
        reset_peak(self.device)
        with suppress(OSError):
            RESET.write_text(NEW_PEAK)
        return self

    def __exit__(self, *failed: object) -> None:
        on_gpu = self.device.type == "cuda"
        self.size_mb = peak_memory(self.device) / 2**20 if on_gpu else resident_peak_mb()


def give_memory_back() -> None:
    """Gives freed memory back to the system, so that the next peak is that of what comes next."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def resident_peak_mb() -> float:
    """Gives the greatest resident memory of this process."""
    if STATUS.exists():
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
