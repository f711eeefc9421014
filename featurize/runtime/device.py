"""Where encoders run, and how much speech one batch may hold there.

Lets the C library keep freed memory for the next activations.

glibc returns large blocks to the kernel as soon as they are free and faults them in again, page by page, for the next
utterance. Kept, a base-size encoder runs 1.2 times as fast on a CPU (`benchmarks/bench_process.py`).
"""

import ctypes
from collections.abc import Mapping

import torch

from cache.errors import MmerError

# On a CPU one utterance at a time is near the matmul floor and padding only costs; a GPU starves on small batches.
BATCH_SECONDS: Mapping[str, float] = {"cpu": 0.0, "cuda": 200.0, "mps": 60.0}
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # parameters of mallopt in malloc.h
LARGEST_MMAP_THRESHOLD = 32 << 20  # more is refused: HEAP_MAX_SIZE / 2
NEVER_TRIM = (1 << 31) - 1


def choose_device(name: str) -> torch.device:
    """Gives the device of that name; ``auto`` takes a GPU where there is one.

    Raises:
        MmerError: if there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in BATCH_SECONDS:
            raise NotImplementedError(device.type)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise MmerError(f"device {name!r} is not to be had here; take auto, cpu, cuda, cuda:N or mps") from error
    return device


def default_batch_seconds(device: torch.device) -> float:
    """Gives the audio seconds of one batch that suit a device, padding included."""
    return BATCH_SECONDS.get(device.type, 0.0)


def keep_freed_memory(trim_bytes: int = NEVER_TRIM) -> bool:
    """Keeps up to that much freed memory in the whole process; tells whether the C library could be told so."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc
        return False
    return bool(mallopt(MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD) and mallopt(TRIM_THRESHOLD, trim_bytes))
