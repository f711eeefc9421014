"""How much memory a device has to spare, how much a run took at its peak, and what it says when there is no more."""

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from cache.errors import MmerError

# Where the limit of a container stands, by version of cgroups; a machine without one has none of these files.
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
# What torch says where it has no error of its own for it: on a CPU, on Apple's GPUs, in CUDA's libraries, and of a
# size that no number of bytes holds.
NO_MEMORY = (
    "not enough memory",
    "can't allocate memory",
    "out of memory",
    "ALLOC_FAILED",
    "calculation overflowed",
    "Overflow when unpacking",
)


def memory_budget(device: torch.device, share: float) -> int:
    """Gives the bytes that features may take: a share of the memory that is free on a GPU, of all of a CPU's."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free * share)
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(min(installed, *map(_limit, LIMITS)) * share)


def watch_peak(device: torch.device) -> None:
    """Starts a new peak on a GPU; that of a process cannot be reset."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int:
    """Gives the peak in bytes: of tensors since `watch_peak` on a GPU, of the whole process on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes there and KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def is_out_of_memory(error: Exception) -> bool:
    """Tells whether an error is one of memory."""
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or any(sign in str(error) for sign in NO_MEMORY)


@contextmanager
def memory_needed(device: torch.device, way_out: str) -> Iterator[None]:
    """Turns errors of memory into one line with a way out.

    Raises:
        MmerError: if the device is out of memory.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise MmerError(f"{device} is out of memory; {way_out}") from error


def _limit(path: Path) -> float:
    try:
        return float(path.read_text())
    except (OSError, ValueError):  # no such file, or the word "max"
        return float("inf")
