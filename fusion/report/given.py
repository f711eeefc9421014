"""The folders that a report is given, checked before anything of them is read; imports no torch."""

from collections.abc import Sequence
from pathlib import Path

from cache.errors import MmerError
from fusion.run.folder import RESULTS, check_recorded
from fusion.run.listing import GRID_CSV, REPORTS

DEFAULT = "report.html"
PAGE = b"<!doctype html"  # start of a report


def check_given(paths: Sequence[Path], *, out: Path | None = None) -> Path | None:
    """Checks the folders of a report, and the file that it may replace.

    Args:
        paths: run folders, or one folder of a grid.
        out: file to write; None for the default one.

    Returns:
        The folder of the tables of the grid; None for runs.

    Raises:
        MmerError: if no folder is given or one twice, a folder is not that of a run or grid, or `out` is a file but
            not a report.
    """
    if not paths:
        raise MmerError("a report needs a finished run; pass its folder")
    if twice := next((path for path in paths if paths.count(path) > 1), None):
        raise MmerError(f"{twice} is given more than once; pass each run once")
    if out:
        _check_replaceable(out)
    grids = [find_grid(path) for path in paths]
    if not any(grids):
        check_recorded(paths)
    elif len(paths) > 1:
        raise MmerError(f"a report has one grid or several runs, got {len(paths)} folders; pass the grid alone")
    return grids[0]


def find_grid(path: Path) -> Path | None:
    """Returns the folder of the report of a grid; None if the path is not that of a grid.

    Args:
        path: folder of a grid's tables, or of its journal if that has one set of tables.

    Raises:
        MmerError: if the journal has several sets of tables.
    """
    if (path / GRID_CSV).exists() and (path / RESULTS).exists():
        return path
    found = sorted(folder.parent for folder in (path / REPORTS).glob(f"*/{RESULTS}"))
    if len(found) > 1:
        raise MmerError(f"{path} has {len(found)} grids; pass one of {', '.join(map(str, found))}")
    return found[0] if found else None


def _check_replaceable(path: Path) -> None:
    """Checks that a path is free or holds a page, before the page is drawn: a run's own files are not replaced."""
    if not path.exists():
        return
    if not path.is_file():
        raise MmerError(f"{path} is not a file; name an HTML file, such as --out {DEFAULT}")
    with path.open("rb") as file:
        if not file.read(len(PAGE)).lower().startswith(PAGE):
            raise MmerError(f"{path} exists and is not a report; choose another --out")
