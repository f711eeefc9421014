"""Folder listing: all files below the root of a corpus, those behind links to other disks included."""

import os
from collections.abc import Sequence
from pathlib import Path

from cache.errors import MmerError


def files_below(root: Path) -> tuple[list[Path], list[str]]:
    """Lists all files below a folder, sorted; links to folders are followed, each folder is read once.

    Args:
        root: an existing folder.

    Returns:
        The files, and notes on links that lead back to a folder that is read anyway and on folders that cannot be read.

    Raises:
        MmerError: if the root itself cannot be read.
    """
    files: list[Path] = []
    links: list[Path] = []
    seen: set[tuple[int, int]] = set()
    repeated: list[str] = []
    unreadable: list[str] = []
    folders = [root]
    while folders or links:  # folders that lie below the root come before those behind a link
        is_link = not folders
        folder = links.pop(0) if is_link else folders.pop()
        try:
            found = folder.stat()
            entries = sorted(os.scandir(folder), key=os.fspath)
        except OSError as error:
            if folder == root:
                raise MmerError(f"cannot read the folder {root}: {error.strerror}") from error
            unreadable.append(f"{folder} ({error.strerror})")
            continue
        if (found.st_dev, found.st_ino) in seen:
            repeated += [str(folder)] if is_link else []
            continue
        seen.add((found.st_dev, found.st_ino))
        for entry in entries:
            path = Path(entry.path)
            if path.is_dir():  # False for a link to itself, for which that of the entry fails
                (links if entry.is_symlink() else folders).append(path)
            elif path.is_file():
                files.append(path)
    notes = [
        *_counted(repeated, "links to a folder that is read already"),
        *_counted(unreadable, "folders that cannot be read"),
    ]
    return sorted(files), notes


def _counted(names: Sequence[str], kind: str) -> list[str]:
    return [f"skipped {len(names)} {kind} (first: {names[0]})"] if names else []
