"""Imports point down: cli, mmer -> featurize, fusion -> cache; the two wings meet only in `fusion.end_to_end`."""

import ast
import functools
from pathlib import Path

ROOT = Path(__file__).parents[2]
MAY_IMPORT = {
    "cache": {"cache"},
    "featurize": {"featurize", "cache"},
    "fusion": {"fusion", "cache"},
    "cli": {"cli", "featurize", "fusion", "cache"},
    "mmer": {"featurize", "fusion", "cache"},
}
# Rooms from the bottom up. A row imports the rows before it; rooms of one row do not import each other.
ROOMS = {
    "featurize": [
        ["featurize.corpora", "featurize.inputs", "featurize.runtime"],
        ["featurize.encoders"],
        ["featurize.asr", "featurize.views"],
        ["featurize.extraction"],
    ],
    "fusion": [
        ["fusion.arrays"],
        ["fusion.head_config"],
        ["fusion.head", "fusion.config", "fusion.fingerprint", "fusion.csv_cells", "fusion.evaluation"],
        ["fusion.data", "fusion.nn", "fusion.protocols", "fusion.pictures"],
        ["fusion.losses", "fusion.training", "fusion.recipes"],
        ["fusion.heads"],
        ["fusion.end_to_end.learning"],
        ["fusion.experiment"],
        ["fusion.run"],
        ["fusion.grid"],
        ["fusion.end_to_end"],
        ["fusion.report"],
    ],
}
DOOR = "fusion/end_to_end"  # the only room of one wing that imports the other
NOT_IN_CACHE = {"torch", "transformers", "click", "librosa", "soundfile", "dask"}
FILES = [ROOT / "mmer.py", *sorted(path for folder in MAY_IMPORT for path in (ROOT / folder).rglob("*.py"))]


@functools.cache
def statements(path: Path) -> list[ast.Import | ast.ImportFrom]:
    """Lists the imports of a file, which several tests read; expressions, which hold none, are not walked through."""
    found: list[ast.Import | ast.ImportFrom] = []
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.append(node)
        for block in ("body", "orelse", "finalbody", "handlers", "cases"):
            waiting += getattr(node, block, [])
    return found


def imported(path: Path) -> set[str]:
    """Names the top-level packages that a file imports, at its top or inside a function."""
    names = set()
    for node in statements(path):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names.add((node.module or "").split(".")[0])
    return names


def imported_modules(path: Path) -> set[str]:
    """Names the modules that a file imports, ``package.module`` for names of a package."""
    names = set()
    for node in statements(path):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room_of(module: str, rows: list[list[str]]) -> str:
    """Finds the room that a module lies in."""
    found = [room for row in rows for room in row if f"{module}.".startswith(f"{room}.")]
    assert found, f"{module} lies in no room of {rows[0][0].split('.')[0]}"
    return found[0]


def level(room: str, rows: list[list[str]]) -> int:
    """Counts the rows below a room."""
    return next(place for place, row in enumerate(rows) if room in row)


def below(path: Path) -> set[str] | None:
    """Names the rooms that a file may import: its own and those of earlier rows; None where there are no rows."""
    relative = path.relative_to(ROOT)
    rows = ROOMS.get(relative.parts[0])
    if rows is None or relative.name == "__init__.py":
        return None
    own = room_of(".".join(relative.with_suffix("").parts), rows)
    return {room for row in rows[: level(own, rows)] for room in row} | {own}


def test_imports_point_down() -> None:
    wrong = dict[str, set[str]]()
    for path in FILES:
        relative = path.relative_to(ROOT)
        door = {"featurize"} if path.is_relative_to(ROOT / DOOR) else set()
        allowed = MAY_IMPORT[relative.parts[0].removesuffix(".py")] | door
        wrong[str(relative)] = (imported(path) & set(MAY_IMPORT)) - allowed
    assert len(wrong) > 300
    assert not {path: found for path, found in wrong.items() if found}


def test_the_ground_needs_neither_torch_nor_click() -> None:
    files = [path for path in FILES if path.is_relative_to(ROOT / "cache")]
    assert len(files) > 20
    assert not {path.name: found for path in files if (found := imported(path) & NOT_IN_CACHE)}


def test_rooms_import_downwards() -> None:
    """A room imports itself and the rooms of earlier rows; `fusion` and `featurize` have such rows."""
    wrong, judged = list[str](), 0
    for path in FILES:
        rooms, top = below(path), path.relative_to(ROOT).parts[0]
        if rooms is None:
            continue
        judged += 1
        own = [module for module in imported_modules(path) if module.split(".")[0] == top]
        wrong += [f"{path.relative_to(ROOT)} imports {name}" for name in own if room_of(name, ROOMS[top]) not in rooms]
    assert judged > 200
    assert not wrong


def test_no_command_file_hides_a_folder() -> None:
    assert not {path.stem for path in (ROOT / "cli").glob("*.py")} & set(MAY_IMPORT)
