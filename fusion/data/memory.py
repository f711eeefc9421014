"""Memory of a device: the share for features, the peak of a training, and out-of-memory errors."""

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from cache.errors import MmerError

# Memory limit of a container in cgroups 2 and 1; a machine without such a limit has none of these files.
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
# Messages of errors for which torch has no class: on a CPU, on Apple's GPUs, in CUDA's libraries, and for a size that
# overflows an integer.
NO_MEMORY = (
    "not enough memory",
    "can't allocate memory",
    "out of memory",
    "ALLOC_FAILED",
    "calculation overflowed",
    "Overflow when unpacking",
)


def memory_budget(device: torch.device, share: float) -> int:
    """Returns the bytes that features may take on a device.

    Args:
        device: device of the features.
        share: share in [0, 1] of the free memory of a GPU, or of the whole memory of a CPU.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free * share)
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(min(installed, *map(_limit, LIMITS)) * share)


def reset_peak(device: torch.device) -> None:
    """Resets the peak of a GPU; the peak of a process cannot be reset."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int:
    """Returns the peak memory in bytes.

    On a GPU it is the peak of tensors since `reset_peak`, on a CPU the peak of the whole process.
    """
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes on macOS and KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def is_out_of_memory(error: Exception) -> bool:
    """Checks whether an error means that memory ran out."""
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or any(message in str(error) for message in NO_MEMORY)


@contextmanager
def memory_needed(device: torch.device, way_out: str) -> Iterator[None]:
    """Converts out-of-memory errors to one line with a remedy.

    Args:
        device: device of the memory.
        way_out: the remedy.

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
