"""File patterns: which paths are patterns of several files, and the files that match one.

A path that exists is not a pattern, nor is the part of a pattern that exists: folders may have brackets in their names.
"""

import glob
from pathlib import Path

SIGNS = frozenset("*?[")


def is_pattern(path: Path) -> bool:
    """Returns True if a path that does not exist has signs of a pattern below its longest part that exists."""
    return bool(SIGNS & set(str(Path(*_parts(path)[1]))))


def matching_files(pattern: Path) -> list[Path]:
    """Lists the files that match a pattern, sorted; hidden files do not match ``*``.

    Example:
        >>> [path.name for path in matching_files(Path("cache/patt*.py"))]
        ['patterns.py']
    """
    existing, rest = _parts(pattern)
    names = glob.glob(str(Path(glob.escape(str(existing)), *rest)), recursive=True)  # noqa: PTH207 - Path.glob finds hidden files too
    return [Path(name) for name in sorted(names) if Path(name).is_file()]


def _parts(path: Path) -> tuple[Path, tuple[str, ...]]:
    """Splits a path into its longest part that exists and the names below it."""
    existing = next((parent for parent in (path, *path.parents) if _exists(parent)), Path())
    return existing, path.parts[len(existing.parts) :]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a NUL or a name of more characters than a file system allows
        return False
