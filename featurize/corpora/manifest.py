"""Manifest: the user's own corpus as a table of utterances in CSV, TSV or JSON lines, in UTF-8.

Expects: the columns of `NEEDED`, of which all except ``id`` may have empty cells. Optional: the columns of `OPTIONAL`.
Audio: paths relative to the folder of the manifest, which is the root of the corpus.
Text: unchanged. Bytes that are not UTF-8 become lone surrogates, which a later stage removes, as it removes NULs.
"""

import codecs
import csv
import difflib
import json
import math
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path, PurePath

from cache.errors import MmerError
from cache.utterance import Utterance
from featurize.corpora.base import CorpusReading

NEEDED = ("id", "audio", "text", "label", "speaker", "session")
TIMES_AND_RATINGS = ("start_s", "end_s", "valence", "activation", "dominance")
OPTIONAL = ("dialogue", "turn", "split", "style", "channel", *TIMES_AND_RATINGS, "sentiment")
DELIMITERS: Mapping[str, str] = {".csv": ",", ".tsv": "\t"}
JSON_SUFFIXES = (".jsonl", ".json", ".ndjson")


def read_manifest(path: Path, *, allow_outside: bool = False) -> CorpusReading:
    """Reads a table of utterances; recordings are not opened.

    Args:
        path: a .csv or .tsv file with a header, or a .jsonl, .json or .ndjson file with one object per line.
        allow_outside: accept recordings outside the manifest's folder.

    Returns:
        One utterance per row, in the order of the file; a note lists unknown columns.

    Raises:
        MmerError: if the file cannot be read, lacks a needed column or has an invalid row; the message states the line.
    """
    text = _text_of(path)
    rows = _csv_rows(path, text) if path.suffix.lower() in DELIMITERS else _json_rows(path, text)
    unknown: dict[str, None] = {}  # a set that keeps the order of the file
    utterances = []
    for row in rows:
        unknown |= dict.fromkeys(name for name in row.cells if name not in NEEDED + OPTIONAL)
        utterances.append(_utterance(row, allow_outside=allow_outside))
    if not utterances:
        raise MmerError(
            f"{path}: no utterance found; expected the columns {', '.join(NEEDED)} and one row per utterance"
        )
    notes = [_unknown_note(unknown)] if unknown else []
    return CorpusReading(root=path.parent, utterances=utterances, notes=notes)


@dataclass(frozen=True, kw_only=True)
class _Row:
    """One row, with its file and line for error messages."""

    path: Path
    line: int
    cells: Mapping[str, object]

    def error(self, problem: str) -> MmerError:
        return _line_error(self.path, self.line, problem)

    def text(self, name: str) -> str:
        value = self.cells.get(name)
        if value is None:
            return ""
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise self.error(f"{name} must be a text or a number, got {json.dumps(value)}")
        if name != "text" and any(0xDC80 <= ord(character) <= 0xDCFF for character in str(value)):
            raise self.error(f"{name} holds bytes that are not UTF-8; save the table as UTF-8")
        return str(value)

    def number(self, name: str) -> float | None:
        cell = self.text(name)
        if not cell.strip():
            return None
        try:
            number = float(cell)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise self.error(f"{name} must be a finite number or empty, got {cell!r}")
        return number

    def count(self, name: str) -> int | None:
        number = self.number(name)
        if number is None:
            return None
        # 2.0 is valid: tables with gaps are often saved that way. Above 2**53, floats skip whole numbers.
        if not number.is_integer() or not 0 <= number < 2**53:
            raise self.error(f"{name} must be a whole number of at least 0 or empty, got {self.text(name)!r}")
        return int(number)


def _line_error(path: Path, line: int, problem: str) -> MmerError:
    # An id may hold line breaks; the message may not.
    return MmerError(f"{path}: line {line}: {' '.join(problem.splitlines())}")


def _listed(names: Collection[str]) -> str:
    return ", ".join(name if name.isprintable() and name else ascii(name) for name in names) or "none"


def _text_of(path: Path) -> str:
    known = (*DELIMITERS, *JSON_SUFFIXES)
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise MmerError(f"the manifest {path} {problem}; expected a file ({', '.join(known)})")
    if path.suffix.lower() not in known:
        raise MmerError(f"the manifest {path} has an unknown ending {path.suffix!r}; known: {', '.join(known)}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MmerError(f"cannot read the manifest {path}: {error.strerror}") from error
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise MmerError(f"the manifest {path} is in UTF-16; save it as UTF-8")
    return content.decode("utf-8-sig", errors="surrogateescape")


def _csv_rows(path: Path, text: str) -> Iterator[_Row]:
    records = _csv_records(path, text)
    line, cells = next(records, (1, []))
    header = [name.strip() for name in cells]
    if header:
        _check_columns(path, line, header)
    for line, cells in records:
        if len(cells) != len(header):
            raise _line_error(path, line, f"{len(cells)} cells, but the header has {len(header)} columns")
        yield _Row(path=path, line=line, cells=dict(zip(header, cells, strict=True)))


def _csv_records(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Yields the non-blank records, each with the number of its first line."""
    # Strict, since a lenient reader would take the rows after a stray quote as part of one cell.
    reader = csv.reader(StringIO(text, newline=""), delimiter=DELIMITERS[path.suffix.lower()], strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise _line_error(path, line, f"not readable as {path.suffix.lower()[1:].upper()}: {error}") from None
        if cells and (len(cells) > 1 or cells[0].strip()):
            yield line, cells


def _json_rows(path: Path, text: str) -> Iterator[_Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            cells = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _line_error(path, number, f"not readable as JSON: {getattr(error, 'msg', error)}") from None
        if not isinstance(cells, dict):
            raise _line_error(path, number, f"expected one JSON object per line, got a {type(cells).__name__}")
        _check_columns(path, number, list(cells))
        yield _Row(path=path, line=number, cells=cells)


def _check_columns(path: Path, line: int, found: list[str]) -> None:
    missing = [name for name in NEEDED if name not in found]
    if missing:
        problem = f"missing columns {', '.join(missing)}; found {_listed(found)}; {_suggestion(missing, found)}"
        raise _line_error(path, line, problem)
    repeated = [name for name in NEEDED + OPTIONAL if found.count(name) > 1]
    if repeated:
        raise _line_error(path, line, f"the column {repeated[0]} occurs more than once")


def _suggestion(missing: Collection[str], found: Sequence[str]) -> str:
    if len(found) == 1 and any(separator in found[0] for separator in ";\t,"):
        return "separate columns by commas in .csv and by tabs in .tsv"
    if {name.lower() for name in found} & set(missing):
        return "write their names in lower case"
    return "add them; their cells may be empty (null in JSON)"


def _unknown_note(unknown: Collection[str]) -> str:
    near = {name: difflib.get_close_matches(name.lower(), NEEDED + OPTIONAL, n=1) for name in unknown}
    meant = [f"{name} for {found[0]}" for name, found in near.items() if found]
    return f"unknown columns are ignored: {_listed(unknown)}" + (f" (meant {', '.join(meant)}?)" if meant else "")


def _utterance(row: _Row, *, allow_outside: bool) -> Utterance:
    if not row.text("id").strip():
        raise row.error("the id is empty; every utterance needs a unique id")
    try:
        return Utterance(
            id=row.text("id"),
            audio=_audio(row, allow_outside=allow_outside),
            start_s=row.number("start_s"),
            end_s=row.number("end_s"),
            text=row.text("text"),
            label=row.text("label"),
            speaker=row.text("speaker"),
            session=row.text("session"),
            dialogue=row.text("dialogue"),
            turn=row.count("turn"),
            split=row.text("split"),
            style=row.text("style"),
            channel=row.text("channel"),
            valence=row.number("valence"),
            activation=row.number("activation"),
            dominance=row.number("dominance"),
            sentiment=row.text("sentiment"),
        )
    except ValueError as error:
        raise row.error(str(error)) from None


def _audio(row: _Row, *, allow_outside: bool) -> str:
    """Returns the recording's path, relative to the manifest's folder if it lies inside."""
    named = row.text("audio")
    if not named:
        return ""
    # Compares the written paths without resolving symlinks: the check guards against a table that refers to files
    # outside its folder, while links to recordings on another disk are common and the user's choice.
    folder = os.path.normpath(row.path.parent.absolute())
    target = PurePath(os.path.normpath(Path(folder, named)))
    if target.is_relative_to(folder):
        return target.relative_to(folder).as_posix()
    if not allow_outside:
        raise row.error(f"audio {named!r} lies outside the manifest's folder; pass --allow-outside to accept it")
    return PurePath(os.path.normpath(named)).as_posix()
