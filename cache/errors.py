"""The errors a user can cause by data or state; `cli` turns each into one line and exit code 1."""


class MmerError(Exception):
    """Bad data or bad state, told in one line: what, the value, what is allowed, the way out."""


class CacheMissing(MmerError):
    """There is no cache file where one was named."""


class CacheUnreadable(MmerError):
    """A file is there, but it is no cache that this version of mmer can read."""


class CacheBusy(MmerError):
    """Another run is writing to the cache."""


class DiskFull(MmerError):
    """The disk has no room for what is to be written."""
