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


class Terminated(KeyboardInterrupt):
    """The end of a program that a batch system or another process requested by SIGTERM."""


@contextmanager
def deferred_interrupts() -> Iterator[StopRequested]:
    """Records the first signal as a request to stop; restores the handlers for the second.

    Signals reach the main thread only; in another thread nothing changes.

    Yields:
        A function that returns True after the first signal.

    Raises:
        Terminated: in place of the KeyboardInterrupt of the block, if the signal was SIGTERM.
    """
    requested = 0  # the signal

    def stop_requested() -> bool:
        return bool(requested)

    if threading.current_thread() is not threading.main_thread():
        yield stop_requested
        return

    def request(number: int, frame: FrameType | None) -> None:
        nonlocal requested
        requested = number
        with suppress(OSError):  # stderr may be closed
            os.write(STDERR, MESSAGE)  # not print: the signal may arrive inside one
        restore()

    def restore() -> None:
        for number, handler in handlers.items():
            signal.signal(number, handler)

    handlers = {number: signal.signal(number, request) for number in SIGNALS}
    try:
        yield stop_requested
    except KeyboardInterrupt:
        if requested == signal.SIGTERM:
            raise Terminated from None
        raise
    finally:
        restore()


@contextmanager
def termination_as_exception() -> Iterator[None]:
    """Raises Terminated where SIGTERM arrives, so that files are closed and temporary ones removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated

    handler = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


def never_stop() -> bool:
    """Returns False: no stop is requested."""
    return False
