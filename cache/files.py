"""Atomic writing: a file is renamed into place, so that a kill leaves the old or the new file, never a partial one.

Errors of the disk, a full one among them, become one line.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import Timeout
from safetensors import SafetensorError

from cache.errors import DiskFull, MmerError
from cache.writer import NO_ROOM


@contextmanager
def replacing(path: Path, *, shared: bool = True) -> Iterator[Path]:
    """Yields a temporary path; on success, the file written there is synced and replaces `path`.

    Args:
        path: the file to write.
        shared: True if several processes may write it at once; if False, leftovers of a killed writer are removed.

    Raises:
        DiskFull: if there is no space left.
        MmerError: if it cannot be written.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid() if shared else 'part'}")
    with writable(path.parent):
        for leftover in () if shared else path.parent.glob(".tmp??????"):  # temporary files of safetensors
            leftover.unlink(missing_ok=True)
        try:
            fresh.touch()
            mode = fresh.stat().st_mode
            yield fresh
            fresh.chmod(mode)  # safetensors writes files that other users cannot read
            with fresh.open("rb") as written:
                os.fsync(written.fileno())
            fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)


def check_regular(path: Path) -> None:
    """Checks that a file is neither a folder, a pipe nor a device, which would be read without an end.

    Raises:
        OSError: if it is, or does not exist.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def check_unused(folder: Path) -> None:
    """Checks that a folder to write into does not exist or is empty; hidden files, such as locks, do not count.

    Raises:
        MmerError: if it holds anything else.
    """
    found = sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) if folder.is_dir() else []
    if found:
        raise MmerError(f"{folder} holds other files (first: {found[0]}); choose another --out, new or empty")


@contextmanager
def writable(path: Path) -> Iterator[None]:
    """Turns errors of writing below a folder into one line.

    Raises:
        DiskFull: if there is no space left.
        MmerError: if it cannot be written.
    """
    try:
        yield
    except Timeout:  # an OSError too, but its lock is held by another process, which the caller reports
        raise
    except (OSError, SafetensorError) as error:
        if _is_disk_full(error):
            raise DiskFull(
                f"no space left while writing to {path}; free some, or choose another folder with --out"
            ) from error
        reason = (error.strerror or error) if isinstance(error, OSError) else error
        raise MmerError(f"cannot write to {path} ({reason}); choose a writable folder with --out") from error


def _is_disk_full(error: Exception) -> bool:
    """Returns True for an error of a full disk; safetensors has its number in the text only."""
    if isinstance(error, OSError):
        return error.errno in NO_ROOM
    return any(f"os error {number})" in str(error) for number in NO_ROOM)
