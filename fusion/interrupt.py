"""Ctrl-C, and the SIGTERM of a batch system, put off until nothing is lost by them."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)

Stopping = Callable[[], bool]


@contextmanager
def interrupts_put_off() -> Iterator[Stopping]:
    """Takes the first signal for a wish to stop, which what it gives tells from then on; the second acts as ever.

    Signals reach the main thread alone, so in another nothing changes.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def ask(number: int, frame: FrameType | None) -> None:
        asked.set()
        for one, handler in before.items():
            signal.signal(one, handler)

    before = {one: signal.signal(one, ask) for one in SIGNALS}
    try:
        yield asked.is_set
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def never() -> bool:
    """Says that nobody wants to stop."""
    return False
