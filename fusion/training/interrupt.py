"""Ctrl-C, and the SIGTERM of a batch system, put off until nothing is lost by them."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

STDERR = 2
TOLD = b"\nstopping after this batch, to go on from there; once more stops at once\n"
SIGNALS = (signal.SIGINT, signal.SIGTERM)

StopRequested = Callable[[], bool]


@contextmanager
def deferred_interrupts() -> Iterator[StopRequested]:
    """Takes the first signal for a wish to stop, which what it gives tells from then on; the second acts as ever.

    Signals reach the main thread alone, so in another nothing changes.
    """
    asked = False

    def stopping() -> bool:
        return asked

    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        with suppress(OSError):  # nobody may be there to read it
            os.write(STDERR, TOLD)  # no print: the signal may have come in the midst of one
        for one, handler in before.items():
            signal.signal(one, handler)

    before = {one: signal.signal(one, ask) for one in SIGNALS}
    try:
        yield stopping
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def never_stop() -> bool:
    """Says that nobody wants to stop."""
    return False
