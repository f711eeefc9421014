"""Identities of files: path, device, inode, size and times, by which an unchanged file is known without reading it.

The time of the last change of an inode (ctime) belongs to the identity. No program can set it, so that new contents of
equal size are noticed even if the time of modification is restored, and a copy on another machine never matches.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

# Nanoseconds before a look at a file in which a change may leave its times as they are. The coarsest file system (FAT)
# counts in steps of two seconds; git treats such files as changed, too ("racy git").
RACY_NS = 3_000_000_000
ABSENT = "absent"


@dataclass(frozen=True, kw_only=True)
class FileIdentity:
    """The identity of one path.

    Attributes:
        text: device, inode, kind and permissions, size, mtime and ctime; ``absent`` if it cannot be looked up.
        changed_ns: time of the last change of the inode, in nanoseconds since the epoch; 0 for an absent file.
    """

    text: str
    changed_ns: int

    def is_racy(self, looked_up_ns: int) -> bool:
        """Returns True if the file may change without a trace after it was looked up at that time."""
        return self.changed_ns > looked_up_ns - RACY_NS


def identify(path: str | Path) -> FileIdentity:
    """Returns the identity of a file, behind symbolic links."""
    try:
        found = os.stat(path)  # noqa: PTH116 - a Path for each file doubles the time of a large corpus
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return FileIdentity(text=ABSENT, changed_ns=0)
    values = (found.st_dev, found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return FileIdentity(text=" ".join(map(str, values)), changed_ns=found.st_ctime_ns)


def identify_all(paths: Iterable[str | Path]) -> dict[str, FileIdentity]:
    """Returns the identity of every file, by path."""
    return {str(path): identify(path) for path in paths}


def identify_tree(root: Path, *, ending: str = "", without: str = "") -> dict[str, FileIdentity]:
    """Returns the identity of every file below a folder, or of the file if it is one, by path.

    Folders behind symbolic links are followed, each folder once.

    Args:
        root: the folder; what does not exist is ``absent``.
        ending: end of the names of the files to identify; empty for all.
        without: path of a cache: this file, and files next to it whose names start with its name, are left out.
    """
    if not root.is_dir():
        return {str(root): identify(root)}
    found = identify_all(path for path in _files(str(root), set(), without) if path.endswith(ending))
    return {str(root): FileIdentity(text="folder", changed_ns=0), **found}


def identities_digest(identities: Iterable[tuple[str, FileIdentity]]) -> str:
    """Returns a digest of paths and their identities, regardless of their order."""
    lines = sorted(f"{path!a} {identity.text}\n" for path, identity in identities)
    return blake2b("".join(lines).encode(), digest_size=16).hexdigest()


def _files(folder: str, visited: set[tuple[int, int]], without: str) -> Iterator[str]:
    """Yields the paths of all that lies below a folder, and of a folder only if it was visited or is unreadable."""
    stat: os.stat_result | None
    try:
        stat = os.stat(folder)  # noqa: PTH116
        with os.scandir(folder) as entries:
            found = list(entries)
    except OSError:
        found, stat = [], None
    if stat is None or (stat.st_dev, stat.st_ino) in visited:
        yield folder  # a link to it may add files for a reader that follows links
        return
    visited.add((stat.st_dev, stat.st_ino))
    for entry in found:
        if without and _belongs_to(entry.path, without):
            continue
        if entry.is_dir():
            yield from _files(entry.path, visited, without)
        else:
            yield entry.path


def _belongs_to(path: str, cache: str) -> bool:
    """Returns True for a cache file and for what is written next to it: its lock, its record, its temporary files."""
    folder, name = os.path.split(cache)
    own_folder, own_name = os.path.split(path)
    return own_folder == folder and own_name.removeprefix(".").startswith(name)
