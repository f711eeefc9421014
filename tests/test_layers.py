"""Imports point down: cli -> featurize, fusion -> cache; the two wings never import each other."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "cache": {"cache"},
    "featurize": {"featurize", "cache"},
    "fusion": {"fusion", "cache"},
    "cli": {"cli", "featurize", "fusion", "cache"},
}
NOT_IN_CACHE = {"torch", "transformers", "click", "librosa", "soundfile", "dask"}
FILES = sorted(path for folder in MAY_IMPORT for path in (ROOT / folder).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Names the top-level packages that a file imports, at its top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    folder = path.relative_to(ROOT).parts[0]
    assert imported(path) & set(MAY_IMPORT) <= MAY_IMPORT[folder]


@pytest.mark.parametrize("path", [path for path in FILES if path.is_relative_to(ROOT / "cache")], ids=lambda p: p.name)
def test_the_ground_needs_neither_torch_nor_click(path: Path) -> None:
    assert not imported(path) & NOT_IN_CACHE


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_own_one_thing_and_stay_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 250


def test_no_command_file_hides_a_folder() -> None:
    assert not {path.stem for path in (ROOT / "cli").glob("*.py")} & set(MAY_IMPORT)
