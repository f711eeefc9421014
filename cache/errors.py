"""Errors that a user can cause by data or state; `cli` turns each into one line and exit code 1."""

from pathlib import Path


class MmerError(Exception):
    """Bad data or bad state, in one line: what is wrong, the value, what is allowed, what to do."""


class CacheMissing(MmerError):
    """A cache file that does not exist."""


class CacheUnreadable(MmerError):
    """A file that exists but is not a cache that this version of mmer can read."""


class CacheBusy(MmerError):
    """A cache that another run is writing to."""


class DiskFull(MmerError):
    """A disk without enough space for what must be written."""


class NotWritable(MmerError):
    """A file or folder without permission to write.

    Args:
        message: the error in one line, with the way out of most commands.
        target: the file or folder.
        reason: reason of the operating system.
    """

    def __init__(self, message: str, *, target: Path, reason: object) -> None:
        super().__init__(message)
        self.target, self.reason = target, reason


class DamagedRows(MmerError):
    """Rows of a cache whose bytes are not those that were committed.

    Args:
        message: the utterance and the stream.
        stream: name of the stream.
    """

    def __init__(self, message: str, *, stream: str) -> None:
        super().__init__(message)
        self.stream = stream
