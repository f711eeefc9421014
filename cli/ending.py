"""Ends of commands: an error as one line, a signal as a shell expects it."""

import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cli.output import echo


@contextmanager
def clean_errors() -> Iterator[None]:
    """Turns an MmerError into one line and exit code 1, and Ctrl-C and SIGTERM into a line on how to resume."""
    from cache.errors import MmerError
    from fusion.training.interrupt import Terminated, termination_as_exception

    try:
        with termination_as_exception():
            yield
    except MmerError as error:
        fail(str(error))
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise
        drop_output()
        fail(f"the output cannot be written ({error.strerror}); what is committed stays")
    except KeyboardInterrupt as interrupt:
        terminated = isinstance(interrupt, Terminated)
        word = "terminated" if terminated else "interrupted"
        echo(f"Error: {word}; what is committed stays; run the same command again to resume", err=True)
        end_by(signal.SIGTERM if terminated else signal.SIGINT)


def drop_output() -> None:
    """Discards what stdout still holds: it cannot be written, and the end of the process would try again."""
    out = sys.__stdout__
    if out is not None and sys.stdout is out:
        with suppress(OSError, ValueError), open(os.devnull, "w") as nothing:  # noqa: PTH123 - a device
            os.dup2(nothing.fileno(), out.fileno())


def end_by(number: signal.Signals) -> None:
    """Ends the command by a signal, as a shell expects: a loop that Ctrl-C interrupts goes no further.

    Inside another program, such as a test, it raises SystemExit with the exit code that a shell would see.
    """
    out = sys.__stdout__
    if out is not None and sys.stdout is out and threading.current_thread() is threading.main_thread():
        with suppress(OSError, ValueError):
            out.flush()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    sys.exit(128 + number)


def fail(message: str) -> None:
    """Prints one line and ends the command with exit code 1."""
    echo(f"Error: {' '.join(message.split())}", err=True)
    sys.exit(1)
