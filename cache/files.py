"""Writes files by a rename, so that a kill leaves the old one or the new one, and says so where there is no room."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import Timeout
from safetensors import SafetensorError

from cache.errors import DiskFull, MmerError
from cache.writer import NO_ROOM


@contextmanager
def replacing(path: Path, *, shared: bool = True) -> Iterator[Path]:
    """Gives a temporary path beside a file; what is written there takes the place of the file, on disk for good.

    Args:
        path: of the file.
        shared: whether several processes may write it at once; if not, the next one takes over what a kill left.

    Raises:
        DiskFull: if there is no room.
        MmerError: if it cannot be written.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid() if shared else 'part'}")
    with writable(path.parent):
        for left in () if shared else path.parent.glob(".tmp??????"):  # as safetensors names what it writes
            left.unlink(missing_ok=True)
        try:
            fresh.touch()
            mode = fresh.stat().st_mode
            yield fresh
            fresh.chmod(mode)  # safetensors writes files that nobody else may read
            with fresh.open("rb") as written:
                os.fsync(written.fileno())
            fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)


@contextmanager
def writable(path: Path) -> Iterator[None]:
    """Turns what goes wrong while something is written below a folder into one line.

    Raises:
        DiskFull: if there is no room.
        MmerError: if it cannot be written.
    """
    try:
        yield
    except Timeout:  # is an OSError, but the lock is held and not missing
        raise
    except (OSError, SafetensorError) as error:
        if _is_full(error):
            raise DiskFull(
                f"no room left while writing to {path}; free some, or name another place by --out"
            ) from error
        why = (error.strerror or error) if isinstance(error, OSError) else error
        raise MmerError(f"cannot write to {path} ({why}); name a writable place by --out") from error


def _is_full(error: Exception) -> bool:
    """Tells an error of room, which safetensors spells out alone."""
    if isinstance(error, OSError):
        return error.errno in NO_ROOM
    return any(f"os error {number})" in str(error) for number in NO_ROOM)
