"""Memory of the process: the C library keeps freed memory for the activations of the next utterance.

By default, glibc returns large blocks to the kernel as soon as they are freed, and the next utterance faults them in
again page by page. With the blocks kept, a base-size encoder runs 1.2 times as fast on a CPU
(`benchmarks/bench_process.py`).
"""

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # parameters of mallopt in malloc.h
LARGEST_MMAP_THRESHOLD = 32 << 20  # bytes; mallopt rejects more: HEAP_MAX_SIZE / 2
NEVER_TRIM = (1 << 31) - 1


def keep_freed_memory(trim_bytes: int = NEVER_TRIM) -> bool:
    """Sets how much freed memory the process keeps.

    Args:
        trim_bytes: bytes of freed memory above which the C library returns memory to the kernel.

    Returns:
        True if the C library accepted both settings; False if it did not, or is not glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc
        return False
    return bool(mallopt(MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD) and mallopt(TRIM_THRESHOLD, trim_bytes))
