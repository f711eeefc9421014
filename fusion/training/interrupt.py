"""Deferred interrupts: the first Ctrl-C or SIGTERM of a batch system takes effect after the current batch."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

STDERR = 2  # file descriptor
MESSAGE = b"\nstopping after this batch; the same command resumes; repeat the signal to stop at once\n"
SIGNALS = (signal.SIGINT, signal.SIGTERM)

StopRequested = Callable[[], bool]


@contextmanager
def deferred_interrupts() -> Iterator[StopRequested]:
    """Records the first signal as a request to stop; restores the handlers for the second.

    Signals reach the main thread only; in another thread nothing changes.

    Yields:
        A function that returns True after the first signal.
    """
    requested = False

    def stop_requested() -> bool:
        return requested

    if threading.current_thread() is not threading.main_thread():
        yield stop_requested
        return

    def request(number: int, frame: FrameType | None) -> None:
        nonlocal requested
        requested = True
        with suppress(OSError):  # stderr may be closed
            os.write(STDERR, MESSAGE)  # not print: the signal may arrive inside one
        restore()

    def restore() -> None:
        for number, handler in handlers.items():
            signal.signal(number, handler)

    handlers = {number: signal.signal(number, request) for number in SIGNALS}
    try:
        yield stop_requested
    finally:
        restore()


def never_stop() -> bool:
    """Returns False: no stop is requested."""
    return False
