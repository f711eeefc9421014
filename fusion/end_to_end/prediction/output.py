"""Output of predictions: a table, CSV, JSON lines; and a file of rows that a killed run continues."""

import csv
import json
import math
from collections.abc import Collection, Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, TypeAlias

from cache.errors import MmerError
from cache.files import writable
from fusion.csv_cells import plain_cells, restored_cell
from fusion.end_to_end.prediction.predictor import Prediction
from fusion.end_to_end.prediction.recordings import Recording
from fusion.evaluation.task import OUTPUT

COLUMNS = ("file", "start_s", "end_s", "text", "label")  # of CSV, before probabilities and error
ERROR = "error"
PROBABILITIES, VALUES = "probabilities", "values"  # keys of JSON, of classes and of dimensions
CSV, JSON = "csv", "jsonl"
FORMATS = {".csv": CSV, ".jsonl": JSON, ".ndjson": JSON}  # ending of a file of rows -> its format
Key: TypeAlias = tuple[str, float | None, float | None]  # file, start and end of a row


def key_of(row: Recording | Prediction) -> Key:
    """Returns the key of a recording and of its row."""
    return row.file, row.start_s, row.end_s


def json_line(prediction: Prediction) -> str:
    """Formats a prediction as one JSON object without a line break."""
    row = {name: getattr(prediction, name) for name in COLUMNS}
    # a prediction without a label has values of dimensions, or an error
    outputs = VALUES if prediction.probabilities and not prediction.label else PROBABILITIES
    return json.dumps({**row, outputs: dict(prediction.probabilities), ERROR: prediction.error}, ensure_ascii=True)


def csv_header(classes: Sequence[str]) -> str:
    """Formats the header of CSV."""
    return _csv_text([*COLUMNS, *(OUTPUT + name for name in classes), ERROR])


def csv_line(prediction: Prediction, classes: Sequence[str]) -> str:
    """Formats a prediction as a record of CSV."""
    cells = [_cell(getattr(prediction, name)) for name in COLUMNS]
    return _csv_text([*cells, *(prediction.probabilities.get(name, "") for name in classes), prediction.error])


def table_of(predictions: Sequence[Prediction], classes: Sequence[str]) -> tuple[list[str], list[list[object]]]:
    """Returns the header and the rows of a table; start and end are left out if no row has them."""
    timed = any(row.start_s is not None or row.end_s is not None for row in predictions)
    labelled = any(row.label for row in predictions) or not any(row.probabilities for row in predictions)
    label = ["label"] if labelled else []
    header = ["file", *(["start", "end"] if timed else []), *label, *map(_printable, classes)]
    failed = any(row.error for row in predictions)
    rows: list[list[object]] = []
    for row in predictions:
        times = [_seconds(row.start_s, "start"), _seconds(row.end_s, "end")] if timed else []
        values = [f"{row.probabilities[name]:.3f}" if row.probabilities else "-" for name in classes]
        labels = [_printable(row.label) or "-"] if labelled else []
        cells = [_printable(row.file or row.text), *times, *labels, *values]
        rows.append([*cells, _printable(row.error)] if failed else [*cells])
    return [*header, *([ERROR] if failed else [])], rows


class RowFile:
    """A file of rows, written recording by recording; the recordings that it already has are skipped.

    The rows of a recording are complete when that of the whole is there; a kill can cut them, and the next run writes
    them again.

    Args:
        path: file that ends in .csv or .jsonl.
        classes: names of the classes.

    Raises:
        MmerError: if the ending is unknown, or the file has rows of another run.
    """

    def __init__(self, path: Path, classes: Sequence[str]) -> None:
        if path.suffix.lower() not in FORMATS:
            raise MmerError(f"--resume {path}: unknown ending {path.suffix!r}; known: {', '.join(FORMATS)}")
        self.path = path
        self.classes = classes
        self.format = FORMATS[path.suffix.lower()]
        self.failed = 0

    def begin(self, recordings: Sequence[Recording]) -> set[Key]:
        """Removes rows of recordings that are not complete; returns the keys of those that are.

        Args:
            recordings: all recordings of the run.
        """
        wanted = {key_of(recording) for recording in recordings}
        kept, done = self._complete(wanted)
        with writable(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("r+b" if self.path.exists() else "w+b") as file:
                file.truncate(kept)
                if not kept and self.format == CSV:
                    file.seek(0)
                    file.write(csv_header(self.classes).encode())
        return done

    def add(self, predictions: Sequence[Prediction]) -> None:
        """Appends the rows of one recording, that of the whole last."""
        lines = [csv_line(row, self.classes) if self.format == CSV else f"{json_line(row)}\n" for row in predictions]
        with writable(self.path), self.path.open("ab") as file:
            file.write("".join(lines).encode(errors="backslashreplace"))

    def _complete(self, wanted: Collection[Key]) -> tuple[int, set[Key]]:
        """Returns the number of bytes of complete recordings, and their keys; counts those with an error."""
        if not self.path.exists():
            return 0, set()
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise MmerError(f"cannot read {self.path}: {error.strerror}") from error
        kept, done = 0, set()
        for end, row in self._rows(content):
            if row is None:
                kept = end
                continue
            if row[0] in wanted:
                kept = end
                done.add(row[0])
                self.failed += bool(row[1])
        return kept, done

    def _rows(self, content: bytes) -> Iterator[tuple[int, tuple[Key, str] | None]]:
        """Yields the end of each whole row in bytes, with its key and its error; None for the header."""
        records = _csv_records(content) if self.format == CSV else _lines(content)
        for number, (end, record) in enumerate(records):
            if self.format == CSV and not number:
                if record != csv_header(self.classes).encode():
                    raise MmerError(f"{self.path} has the rows of another run or format; choose another --resume FILE")
                yield end, None
                continue
            yield end, self._parsed(record)

    def _parsed(self, record: bytes) -> tuple[Key, str]:
        try:
            if self.format == CSV:
                (cells,) = csv.reader(StringIO(record.decode(), newline=""))
                names = [*COLUMNS, *self.classes, ERROR]
                row: dict[str, Any] = dict(zip(names, map(restored_cell, cells), strict=True))
                return (row["file"], _number(row["start_s"]), _number(row["end_s"])), str(row[ERROR])
            row = json.loads(record)
            outputs = row[VALUES] if VALUES in row else row[PROBABILITIES]
            if outputs and list(outputs) != list(self.classes):
                raise ValueError("other classes")
            return (row["file"], row["start_s"], row["end_s"]), str(row[ERROR])
        except (KeyError, TypeError, ValueError) as error:
            raise MmerError(
                f"{self.path} has a row that is not of this run ({error}); choose another --resume FILE"
            ) from error


def _csv_text(cells: Sequence[object]) -> str:
    text = StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow(plain_cells(cells))
    return text.getvalue()


def _lines(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields the end and the bytes of each line that a line break ends."""
    start = 0
    while (end := content.find(b"\n", start) + 1) > 0:
        yield end, content[start:end]
        start = end


def _csv_records(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields the end and the bytes of each record that a line break outside quotes ends."""
    start = 0
    for end, _ in _lines(content):
        if not content[start:end].count(b'"') % 2:
            yield end, content[start:end]
            start = end


def _cell(value: object) -> object:
    return "" if value is None else value


def _number(cell: str) -> float | None:
    number = float(cell) if cell else None
    if number is not None and not math.isfinite(number):
        raise ValueError(f"not a time: {cell}")
    return number


def _seconds(value: float | None, name: str) -> str:
    return name if value is None else f"{value:.2f}"


def _printable(text: str) -> str:
    """Escapes characters that a terminal would interpret."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
