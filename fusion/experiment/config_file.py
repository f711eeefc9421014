"""Configuration file of a run or grid: the options that give it back, as TOML.

A person edits it, so it is TOML: it has comments, and a word is never read as a number or as false. Its keys are the
names of the options without dashes in front; options of pairs, such as ``--set FIELD=VALUE``, are tables.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cache.errors import MmerError
from cache.files import check_regular, replacing
from cache.near_names import nearest

CONFIG = "config.toml"  # in the folder of a run or grid
COMMAND, GRID_COMMAND = "command", "mmer-grid"
# Options that a run and a grid do not give to each other.
OF_ONE_KIND = frozenset(
    {"out", "final", "with-probe", "run", "grid", "ablate", "grid-file", "search", "search-seed", "report-all-tests"}
)
TABLES = ("set", "stream", "only", "encoder")  # options of pairs
MOST_BYTES = 1_000_000  # of a file: a thousand times what a run writes
BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}

Scalar = str | int | float | bool
Value = Scalar | tuple[Scalar, ...]


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The content of a configuration file.

    Attributes:
        path: the file.
        command: command that wrote it; empty if it was written by hand.
        values: option -> value, a tuple for an option that is repeated.
        tables: option of pairs -> its pairs.
    """

    path: Path
    command: str = ""
    values: Mapping[str, Value] = field(default_factory=dict)
    tables: Mapping[str, Mapping[str, Scalar]] = field(default_factory=dict)

    def texts(self, table: str) -> dict[str, str]:
        """Returns the pairs of a table as texts."""
        return {name: _text(value) for name, value in self.tables.get(table, {}).items()}


def read_config(
    path: Path, kinds: Mapping[str, tuple[type, ...]], repeated: Iterable[str] = (), *, grid: bool = False
) -> RunConfig:
    """Reads a configuration file.

    Args:
        path: the file.
        kinds: option that a command has, without dashes in front -> types of its values.
        repeated: options that may be given several times; their values are lists.
        grid: the command trains a grid: the folder of a run, and what only a run has, are left out, and vice versa.

    Raises:
        MmerError: if the file cannot be read, is not TOML, or has an unknown option or a value of another type.
    """
    content, several = dict(_parsed(path)), frozenset(repeated)
    command = content.pop(COMMAND, "")
    if not isinstance(command, str):
        raise MmerError(f"{path}: {COMMAND} must be a text, got {command!r:.100}")
    if command and (command == GRID_COMMAND) != grid:
        content = {name: value for name, value in content.items() if name not in OF_ONE_KIND}
    values: dict[str, Value] = {}
    tables: dict[str, Mapping[str, Scalar]] = {}
    for name, value in content.items():
        if name in TABLES:
            tables[name] = _pairs(path, name, value)
        elif name not in kinds:
            raise MmerError(f"{path}: unknown option {name!r}; {nearest(name, [*kinds, *TABLES])}")
        else:
            values[name] = _value(path, name, value, kinds[name], several=name in several)
    return RunConfig(path=path, command=command, values=values, tables=tables)


def config_text(options: Mapping[str, object], *, command: str, path: Path) -> str:
    """Returns the content of a configuration file.

    Args:
        options: option -> value, or table of an option of pairs; values that are None, empty or False are left out.
        command: command that reads it.
        path: the file, for its comment.

    Example:
        >>> print(config_text({"fusion": "audio", "set": {"lr": 0.1}}, command="mmer-train", path=Path("c.toml")))
        # Options of this run: `mmer-train --config c.toml` gives it back; options on the command line replace them.
        command = "mmer-train"
        fusion = "audio"
        <BLANKLINE>
        [set]
        lr = 0.1
        <BLANKLINE>
    """
    first = (
        f"# Options of this run: `{command} --config {path}` gives it back; options on the command line replace them."
    )
    kept = {name: value for name, value in options.items() if value not in (None, (), [], {}, "", False)}
    plain = [f"{_key(name)} = {_toml(value)}" for name, value in kept.items() if not isinstance(value, Mapping)]
    comment = "".join(sign if sign.isprintable() else "?" for sign in first)
    lines = [comment, f"{COMMAND} = {_toml(command)}", *plain]
    for name, table in kept.items():
        if isinstance(table, Mapping):
            lines += ["", f"[{name}]", *(f"{_key(str(key))} = {_toml(value)}" for key, value in table.items())]
    return "\n".join([*lines, ""])


def write_config(folder: Path, options: Mapping[str, object], *, command: str) -> None:
    """Writes the configuration file of a run or grid, unless its folder has it already."""
    path = folder / CONFIG
    if not path.exists():
        content = config_text(options, command=command, path=path).encode("utf-8", "replace")
        with replacing(path) as fresh:
            fresh.write_bytes(content)


def _parsed(path: Path) -> Mapping[str, object]:
    try:
        check_regular(path)
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise MmerError(f"{path} has {size:,} bytes; a configuration file has at most {MOST_BYTES:,}")
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise MmerError(f"cannot read the configuration {path} ({error.strerror}); name a file for --config") from error
    except (ValueError, RecursionError) as error:  # no UTF-8, no TOML, or nested too deeply
        reason = " ".join(str(error).split())[:200] or "nested too deeply"
        raise MmerError(f"{path} is not a configuration in TOML ({reason})") from error


def _pairs(path: Path, name: str, value: object) -> dict[str, Scalar]:
    """Checks a table of pairs."""
    if not isinstance(value, dict):
        raise MmerError(f"{path}: {name} must be a table, as in [{name}], got {value!r:.100}")
    for key, item in value.items():
        if not isinstance(item, (str, int, float, bool)):
            raise MmerError(f"{path}: {key} of [{name}] must be a text, a number, true or false, got {item!r:.100}")
    return value


def _value(path: Path, name: str, value: object, kinds: tuple[type, ...], *, several: bool) -> Value:
    """Checks the value of an option."""
    items: list[Any] = value if several and isinstance(value, list) else [value]
    for item in items:
        if type(item) not in kinds:
            allowed = " or ".join(KINDS[kind] for kind in kinds)
            raise MmerError(f"{path}: {name} must be {'a list, each ' if several else ''}{allowed}, got {item!r:.100}")
    checked: tuple[Scalar, ...] = tuple(items)
    return checked if several else checked[0]


KINDS: Mapping[type, str] = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def _text(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _key(name: str) -> str:
    return name if BARE_KEY.fullmatch(name) else _quoted(name)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(_toml, value))}]"
    return _quoted("none" if value is None else str(value))


def _quoted(text: str) -> str:
    """Returns a text as a basic string of TOML."""
    escaped = (
        ESCAPES.get(sign, sign if sign.isprintable() or ord(sign) > 0x9F else f"\\u{ord(sign):04x}") for sign in text
    )
    return f'"{"".join(escaped)}"'
