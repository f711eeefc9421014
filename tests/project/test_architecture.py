"""The map of the project: `docs/architecture.md` names every room and every file, and no file that does not exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "architecture.md"
TOPS = ("cache", "cli", "featurize", "fusion")
ROW = re.compile(r"^\| `([\w/]+)` \| .+ \| ((?:`\w+` ?)+) \|$", re.MULTILINE)
ROOMS = {room: re.findall(r"`(\w+)`", files) for room, files in ROW.findall(PAGE.read_text())}
FILE = re.compile(r"`([\w/]+/[\w.]+\.py)`")


def files_in(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")


def test_every_room_has_a_row() -> None:
    folders = {path.parent for top in TOPS for path in (ROOT / top).rglob("*.py")}
    assert set(ROOMS) == {str(path.relative_to(ROOT)) for path in folders if files_in(path)}


@pytest.mark.parametrize("room", ROOMS)
def test_the_row_of_a_room_names_its_files(room: str) -> None:
    assert sorted(ROOMS[room]) == files_in(ROOT / room)


def test_every_file_that_the_page_names_exists() -> None:
    named = [name for name in FILE.findall(PAGE.read_text()) if "NAME" not in name]
    assert len(named) > 40
    assert not [name for name in named if not (ROOT / name).exists()]
