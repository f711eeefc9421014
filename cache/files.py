"""Atomic writing: a file is renamed into place, so that a kill leaves the old or the new file, never a partial one.

A writer holds a lock on its temporary file, so that the next one knows those of killed writers and removes them. Errors
of the disk, a full one among them, become one line.
"""

import errno
import fcntl
import glob
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from cache.errors import DiskFull, MmerError, NotWritable

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
TEMPORARY = re.compile(r"\d+|part")  # end of the name of a temporary file: the process that writes it, or a fixed name


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
        remove_leftovers(path.parent, glob.escape(path.name))
        try:
            with locked(fresh):
                found = path if path.exists() else fresh
                mode = stat.S_IMODE(found.stat().st_mode)
                yield fresh
                fresh.chmod(mode)  # safetensors writes files that other users cannot read
                with fresh.open("rb") as written:
                    os.fsync(written.fileno())
                fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)


def remove_leftovers(folder: Path, name: str = "*") -> None:
    """Removes the temporary files that killed writers left in a folder.

    Args:
        folder: the folder.
        name: name of the file that they wrote, or a pattern.
    """
    for leftover in folder.glob(f".{name}.*"):
        if TEMPORARY.fullmatch(leftover.name.rpartition(".")[2]):
            with suppress(OSError), leftover.open("rb") as left:
                fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its writer lives
                leftover.unlink()


def lock_of(path: Path, *, wait: bool = False) -> FileLock:
    """Returns the lock in a file, which whoever may write to its folder may hold.

    Args:
        path: the file of the lock.
        wait: wait for another process without a time limit.
    """
    mode = stat.S_IRUSR | stat.S_IWUSR
    with suppress(OSError):
        mode |= stat.S_IMODE(path.parent.stat().st_mode) & 0o666
    return FileLock(path, timeout=-1 if wait else 0, mode=mode)


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
        NotWritable: if it cannot be written.
    """
    try:
        yield
    except Timeout:  # an OSError too, but its lock is held by another process, which the caller reports
        raise
    except (OSError, SafetensorError) as error:
        if is_disk_full(error):
            raise DiskFull(
                f"no space left while writing to {path}; free some, or choose another folder with --out"
            ) from error
        reason = (error.strerror or error) if isinstance(error, OSError) else error
        target = blamed(path, error) if isinstance(error, OSError) else path
        message = f"cannot write to {target} ({reason}); choose a writable folder with --out"
        raise NotWritable(message, target=target, reason=reason) from error


def blamed(folder: Path, error: OSError) -> Path:
    """Returns what could not be written: an existing file that the error names, else the folder."""
    named = error.filename if isinstance(error.filename, str) else None
    writable_folder = os.access(folder, os.W_OK | os.X_OK)
    return Path(named) if named and writable_folder and Path(named).exists() else folder


@contextmanager
def locked(fresh: Path) -> Iterator[None]:
    """Creates a temporary file and holds a lock on it, by which `remove_leftovers` knows that its writer lives."""
    while True:
        with fresh.open("ab") as file:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_at(fresh, file.fileno()):  # another process removed it before it was locked
                continue
            yield
            return


def _is_at(path: Path, descriptor: int) -> bool:
    """Returns True if a path still is that of an open file."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def is_disk_full(error: Exception) -> bool:
    """Returns True for an error of a full disk; safetensors has its number in the text only."""
    if isinstance(error, OSError):
        return error.errno in NO_ROOM
    return any(f"os error {number})" in str(error) for number in NO_ROOM)
