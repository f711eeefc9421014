"""The map of the project: `docs/architecture.md` names every room and every file, and no file that does not exist."""

import ast
import configparser
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


def test_every_command_has_its_path_through_the_code() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    scripts = re.findall(r"^(\S+) = ", setup["options.entry_points"]["console_scripts"], re.MULTILINE)
    assert len(scripts) > 10
    assert not set(scripts) - set(re.findall(r"^### (\S+)$", PAGE.read_text(), re.MULTILINE))


def test_no_two_rooms_say_the_same_of_themselves() -> None:
    files = [path for top in TOPS for path in (ROOT / top).rglob("__init__.py")]
    said = [ast.get_docstring(ast.parse(path.read_text())) for path in files if path.read_text()]
    assert len(said) > 20
    assert len({*said}) == len(said)
