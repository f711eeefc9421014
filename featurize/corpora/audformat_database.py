"""audformat databases (https://audeering.github.io/audformat) as records of a manifest: tables joined by recording.

Columns keep their names. A value that stands for a text (such as the code of a transcription) is that text; what
the scheme says of a value (such as the gender of a speaker) becomes further columns. Segments are cut from their
recordings. Splits are those of the tables.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cache.errors import MmerError

Key = tuple[str, float | None, float | None, bool]  # recording, start and end in seconds; False for a whole recording


def read_audformat(source: str, splits: Sequence[str], folder: Path) -> Iterator[dict[str, Any]]:
    """Reads a database.

    Args:
        source: folder with db.yaml, or ``FOLDER:TABLE,TABLE`` for some of its tables.
        splits: names of the splits; empty for all.
        folder: not used; the recordings stay where they are.

    Yields:
        One record for each segment, or for each recording where no table has segments.

    Raises:
        MmerError: if `audformat` is not installed, the database or a table cannot be read, or two tables contradict
            each other.
    """
    try:
        import audformat
    except ImportError:
        raise MmerError("audformat: needs the package; install it by pip install audformat") from None
    home, _, names = (source, "", "") if Path(source).is_dir() else source.rpartition(":")
    if not (Path(home) / "db.yaml").is_file():
        raise MmerError(f"audformat:{source}: no db.yaml in {home or source}; name the folder of a database")
    try:
        database = audformat.Database.load(home)
    except Exception as error:  # of the library and of its file formats
        raise MmerError(f"audformat:{source} cannot be read: {' '.join(str(error).split())[:300]}") from error
    unknown = [name for name in names.split(",") if name and name not in database.tables]
    if unknown:
        raise MmerError(f"audformat:{home} has no table {unknown[0]!r}; its tables: {', '.join(database.tables)}")
    cells: dict[Key, dict[str, Any]] = {}
    for name in names.split(",") if names else list(database.tables):
        for key, row in _rows(audformat, database, name):
            held = cells.setdefault(key, {})
            for column, value in row.items():
                if held.setdefault(column, value) != value:
                    raise MmerError(
                        f"audformat:{home}: {column} of {key[0]} is {held[column]!r} in one table and {value!r} in "
                        f"{name}; choose tables, as in audformat:{home}:{name} (tables: {', '.join(database.tables)})"
                    )
    return _records(Path(home).absolute(), cells, splits, source)


def _rows(audformat: Any, database: Any, name: str) -> Iterator[tuple[Key, dict[str, Any]]]:
    table = database.tables[name]
    split = database.splits[table.split_id].type if table.split_id else ""
    labels = {
        column: database.schemes[held.scheme_id].labels
        for column, held in table.columns.items()
        if held.scheme_id and isinstance(database.schemes[held.scheme_id].labels, dict)
    }
    frame = table.df
    index = audformat.utils.to_segmented_index(frame.index)
    for (file, start, end), (_, values) in zip(index, frame.iterrows(), strict=True):
        row: dict[str, Any] = {"split": split} if split else {}
        for column, value in values.items():
            meaning = labels.get(column, {}).get(value)
            row[column] = _plain(meaning if isinstance(meaning, str) else value)
            if isinstance(meaning, dict):
                row |= {more: _plain(held) for more, held in meaning.items() if more not in values}
        yield (str(file), _seconds(start) or None, _seconds(end), table.is_segmented), row


def _records(
    home: Path, cells: dict[Key, dict[str, Any]], splits: Sequence[str], source: str
) -> Iterator[dict[str, Any]]:
    """Yields the records of all segments, with the cells of their whole recordings."""
    keys = [key for key in cells if key[3]] or list(cells)
    stems = Counter(Path(key[0]).stem for key in keys)
    found = {str(row.get("split", "")) for row in cells.values()} - {""}
    if unknown := [name for name in splits if name not in found]:
        known = ", ".join(sorted(found)) or "none"
        raise MmerError(f"audformat:{source} has no split {unknown[0]!r}; its splits: {known}")
    numbers: Counter[str] = Counter()
    for key in keys:
        file, start_s, end_s, _ = key
        row = {**cells.get((file, None, None, False), {}), **cells[key]}
        numbers[file] += 1
        name = Path(file).stem if stems[Path(file).stem] == 1 else f"{Path(file).with_suffix('')}-{numbers[file]}"
        if not splits or row.get("split") in splits:
            yield {"id": name, "audio": str(home / file), "start_s": start_s, "end_s": end_s, **row}


def _seconds(time: Any) -> float | None:
    seconds = float(time.total_seconds())
    return None if seconds != seconds else seconds  # noqa: PLR0124 - NaN alone differs from itself


def _plain(value: Any) -> Any:
    """Returns a value as text, number or None."""
    if hasattr(value, "total_seconds"):
        return _seconds(value)
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bool):
        return str(value).lower()
    if value is None or isinstance(value, str | int) or (isinstance(value, float) and value == value):  # noqa: PLR0124
        return value
    return None if value != value or str(value) in {"<NA>", "NaT"} else str(value)  # noqa: PLR0124
