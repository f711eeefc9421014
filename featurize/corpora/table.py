"""Table of records: CSV, TSV or JSON lines, decoded to text and read row by row with the number of each line.

UTF-8 with or without a byte order mark, and UTF-16 and UTF-32 with one, are read; another encoding must be named, since
every byte is a letter in many of them and a wrong guess destroys text without a trace.
"""

import codecs
import csv
import json
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from cache.errors import MmerError

DELIMITERS: Mapping[str, str] = {".csv": ",", ".tsv": "\t"}
OTHER_DELIMITERS = (",", ";", "\t")  # spreadsheets write ; where the comma separates decimals
JSON_SUFFIXES = (".jsonl", ".json", ".ndjson")
ABSENT = frozenset({"nan", "NaN", "<NA>"})  # pandas writes these for a missing value
# Longer marks first: that of UTF-32 begins with that of UTF-16.
MARKS: Mapping[bytes, str] = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
LONGEST = 600  # characters of a message
USUAL = "cp1252"  # of Western European spreadsheets, the most common encoding that is not Unicode


@dataclass(frozen=True, kw_only=True)
class Row:
    """One record of a table.

    Attributes:
        path: the table.
        line: number of its first line, from 1.
        cells: column -> text of CSV or value of JSON.
        decimal_comma: numbers may be written as 0,5.
    """

    path: Path
    line: int
    cells: Mapping[str, Any]
    decimal_comma: bool = False

    def error(self, problem: str) -> MmerError:
        """Returns an error that states the file and the line."""
        return line_error(self.path, self.line, problem)

    def is_absent(self, name: str) -> bool:
        """Returns True if a cell has no value: null, NaN, or the word that pandas writes for it."""
        value = self.cells.get(name)
        return value is None or value != value or (isinstance(value, str) and value.strip() in ABSENT)  # noqa: PLR0124 - NaN alone differs from itself

    def text(self, name: str) -> str:
        """Returns a cell as text, empty if it has no value.

        Raises:
            MmerError: if it is neither a text nor a finite number, or holds a character that no file can store.
        """
        if self.is_absent(name):
            return ""
        value = self.cells[name]
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise self.error(f"{name} must be a text or a number, got {json.dumps(value)}")
        if isinstance(value, float) and math.isinf(value):
            raise self.error(f"{name} must be a text or a finite number, got {value}")
        if name != "text" and (odd := next(filter(_is_odd, str(value)), "")):
            raise self.error(f"{name} holds the character {odd!a}, which cannot be stored; remove it")
        return str(value)

    def number(self, name: str) -> float | None:
        """Returns a cell as a number, None if it has no value.

        Raises:
            MmerError: if it is not a finite number.
        """
        cell = self.text(name)
        if not cell.strip():
            return None
        plain = cell.replace(",", ".") if self.decimal_comma and cell.count(",") == 1 and "." not in cell else cell
        try:
            number = float(plain)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise self.error(f"{name} must be a finite number or empty, got {cell!r}")
        return number

    def count(self, name: str) -> int | None:
        """Returns a cell as a whole number, None if it has no value.

        Raises:
            MmerError: if it is not a whole number of at least 0.
        """
        number = self.number(name)
        if number is None:
            return None
        # 2.0 is valid: tables with gaps are often saved that way. Above 2**53, floats skip whole numbers.
        if not number.is_integer() or not 0 <= number < 2**53:
            raise self.error(f"{name} must be a whole number of at least 0 or empty, got {self.text(name)!r}")
        return int(number)


def read_rows(path: Path, *, known: Collection[str], encoding: str | None = None) -> Iterator[Row]:
    """Reads the records of a table.

    Args:
        path: a .csv or .tsv file with a header, or a .jsonl, .json or .ndjson file with one object per line.
        known: columns that a table may have; they decide the delimiter of a .csv or .tsv file.
        encoding: encoding of the file; None for Unicode.

    Yields:
        The header of a .csv or .tsv file as a row without cells that differ from their names, then every record.

    Raises:
        MmerError: if the file cannot be read or decoded, or a record is invalid; the message states the line.
    """
    text = decoded(path, encoding)
    return _csv_rows(path, text, known) if path.suffix.lower() in DELIMITERS else _json_rows(path, text)


def read_released(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Reads the records of a table of a release.

    Args:
        path: as for `read_rows`.
        columns: columns that it must have.

    Raises:
        MmerError: if the file cannot be read or decoded, lacks a column, or has an invalid record.
    """
    for number, row in enumerate(read_rows(path, known=[column.lower() for column in columns])):
        lacking = [column for column in columns if column not in row.cells]
        if lacking:
            raise MmerError(f"{path} lacks the columns {', '.join(map(repr, lacking))}; use the table of the release")
        if number or path.suffix.lower() not in DELIMITERS:  # the first row is the header
            yield row


def nearest_file(root: Path, *names: str) -> Path | None:
    """Returns the file of one of these names that is nearest to a folder; None if it has none, at any depth."""
    found = [path for name in names for path in root.rglob(name) if path.is_file()]
    return min(found, key=lambda path: len(path.parts), default=None)


def decoded(path: Path, encoding: str | None = None) -> str:
    """Reads a file of text and decodes it, without its byte order mark.

    Args:
        path: any file.
        encoding: name of its encoding; None for Unicode.

    Raises:
        MmerError: if the file cannot be read, or has bytes that its encoding does not; the message states the line.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MmerError(f"cannot read {path}: {error.strerror}") from error
    found = encoding or next((name for mark, name in MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(checked_encoding(found))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise line_error(path, line, _undecodable(content, error.start, encoding, found)) from None
    if not encoding and text.count("\0") > len(text) // 4:
        order = "le" if content[1:2] == b"\0" else "be"
        raise MmerError(f"{path} seems to be in UTF-16 without a byte order mark; pass --encoding utf-16-{order}")
    return text.removeprefix("\ufeff")


def checked_encoding(name: str) -> str:
    """Returns the name of an encoding of text.

    Raises:
        MmerError: if Python knows no such encoding.
    """
    try:
        is_text = codecs.lookup(name)._is_text_encoding
    except (LookupError, ValueError):
        is_text = False
    if not is_text:
        raise MmerError(
            f"unknown encoding {name!r}; expected a name such as utf-8, utf-16, {USUAL}, latin-1 or shift_jis"
        )
    return name


def line_error(path: Path, line: int, problem: str) -> MmerError:
    """Returns an error about one line of a table."""
    # An id or a header may hold line breaks, or be as long as the file; the message may not.
    text = " ".join(problem.splitlines())
    return MmerError(f"{path}: line {line}: {text if len(text) <= LONGEST else f'{text[:LONGEST]}...'}")


def _is_odd(character: str) -> bool:
    """Returns True for NUL and lone surrogates, which HDF5 does not store as text."""
    return character == "\0" or 0xD800 <= ord(character) <= 0xDFFF


def _undecodable(content: bytes, start: int, encoding: str | None, found: str) -> str:
    byte = f"byte 0x{content[start]:02X}"
    if encoding:
        return f"{byte} is not {encoding}; pass another --encoding"
    if found != "utf-8":
        return (
            f"{byte} is not {found.removesuffix('-sig')}, which the byte order mark says; save the table again as UTF-8"
        )
    before = re.search(rb"[^\s,;\"']*\Z", content[max(0, start - 24) : start])
    after = re.match(rb"[^\s,;\"']*", content[start : start + 24])
    word = (before[0] if before else b"") + (after[0] if after else b"")
    read = word.decode(USUAL, "replace")
    return (
        f"{byte} is not UTF-8; save the table as UTF-8, or name its encoding, as in --encoding {USUAL} "
        f"(which reads {read!r} here)"
    )


def _csv_rows(path: Path, text: str, known: Collection[str]) -> Iterator[Row]:
    delimiter = _delimiter(path, text, known)
    records = _csv_records(path, text, delimiter)
    line, cells = next(records, (1, []))
    header = [name.strip() for name in cells]
    if header:
        yield Row(path=path, line=line, cells=_unique(path, line, [(name, name) for name in header]))
    for line, cells in records:
        if len(cells) != len(header):
            raise line_error(path, line, f"{len(cells)} cells, but the header has {len(header)} columns")
        cells_of = dict(zip(header, cells, strict=True))
        yield Row(path=path, line=line, cells=cells_of, decimal_comma=delimiter == ";")


def _delimiter(path: Path, text: str, known: Collection[str]) -> str:
    """Returns the delimiter that finds most known columns in the header, by default that of the ending."""
    usual = DELIMITERS[path.suffix.lower()]
    header = next((line for line in text.splitlines() if line.strip()), "")
    names = {sign: {name.strip(' "') for name in header.split(sign)} for sign in (usual, *OTHER_DELIMITERS)}
    scores = {sign: len({name.lower() for name in found} & {*known}) for sign, found in names.items()}
    if not any(scores.values()):  # a header of other names, which an error will list
        scores = {sign: len(found) for sign, found in names.items()}
    return max(scores, key=scores.__getitem__)


def _csv_records(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yields the non-blank records, each with the number of its first line."""
    # Strict, since a lenient reader would take the rows after a stray quote as part of one cell.
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise line_error(path, line, f"not readable as {path.suffix.lower()[1:].upper()}: {error}") from None
        if cells and (len(cells) > 1 or cells[0].strip()):
            yield line, cells


def _json_rows(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            pairs = json.loads(line, object_pairs_hook=_Pairs)
        except (ValueError, RecursionError) as error:
            raise line_error(path, number, f"not readable as JSON: {getattr(error, 'msg', error)}") from None
        if not isinstance(pairs, _Pairs):
            raise line_error(path, number, f"expected one JSON object per line, got a {type(pairs).__name__}")
        yield Row(path=path, line=number, cells=_unique(path, number, pairs))


class _Pairs(list[tuple[str, Any]]):
    """The names and values of a JSON object, repeated names included."""


def _unique(path: Path, line: int, pairs: Collection[tuple[str, Any]]) -> dict[str, Any]:
    cells = dict(pairs)
    if len(cells) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        if repeated:  # spreadsheets leave columns without a name at the end
            raise line_error(path, line, f"the column {repeated} occurs more than once")
    return cells
