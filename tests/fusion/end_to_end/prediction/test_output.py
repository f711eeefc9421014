"""Rows of predictions as a table, CSV and JSON lines, and files of rows that a kill has cut."""

import csv
import json
from io import StringIO
from pathlib import Path

import pytest

from cache.errors import MmerError
from fusion.end_to_end.prediction.output import RowFile, csv_header, csv_line, json_line, key_of, table_of
from fusion.end_to_end.prediction.predictor import Prediction
from fusion.end_to_end.prediction.recordings import Recording

CLASSES = ("calm", "sad")
GOOD = Prediction(
    file="a\x1b[31m.wav",
    start_s=0.0,
    end_s=1.5,
    text='so "what",\nthen',
    label="sad",
    probabilities={"calm": 0.25, "sad": 0.75},
)
BAD = Prediction(file="b.wav", probabilities={}, error="missing")
RECORDINGS = [Recording(file=name, source=Path(name)) for name in ("x.wav", "y.wav", "z.wav")]


def rows_of(name: str, *, windows: int) -> list[Prediction]:
    """The rows of a recording: its windows and the whole."""
    values = {"calm": 0.5, "sad": 0.5}
    times = [(float(number), number + 1.0) for number in range(windows)]
    return [
        Prediction(file=name, start_s=start, end_s=end, text='a "quoted"\nline', label="calm", probabilities=values)
        for start, end in [*times, (None, None)]
    ]


def test_json_has_the_fields_of_a_row_in_one_line() -> None:
    assert json_line(BAD).isprintable()
    assert json.loads(json_line(GOOD)) == {
        "file": GOOD.file,
        "start_s": 0.0,
        "end_s": 1.5,
        "text": GOOD.text,
        "label": "sad",
        "probabilities": {"calm": 0.25, "sad": 0.75},
        "error": "",
    }


def test_csv_is_read_back() -> None:
    text = csv_header(CLASSES) + csv_line(GOOD, CLASSES) + csv_line(BAD, CLASSES)
    good, bad = csv.DictReader(StringIO(text, newline=""))
    assert (good["file"], good["text"], good["end_s"]) == (GOOD.file, GOOD.text, "1.5")
    assert (good["p_calm"], good["p_sad"], good["error"]) == ("0.25", "0.75", "")
    assert (bad["label"], bad["p_sad"], bad["error"]) == ("", "", "missing")


def test_a_table_escapes_what_a_terminal_would_interpret() -> None:
    header, rows = table_of([GOOD, BAD], CLASSES)
    assert header == ["file", "start", "end", "label", "calm", "sad", "error"]
    assert rows[0] == ["a\\x1b[31m.wav", "0.00", "1.50", "sad", "0.250", "0.750", ""]
    assert rows[1] == ["b.wav", "start", "end", "-", "-", "-", "missing"]
    assert table_of([rows_of("x", windows=0)[0]], CLASSES)[0] == ["file", "label", "calm", "sad"]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_file_that_was_cut_anywhere_continues_to_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows{suffix}"

    def write(path: Path) -> set[str]:
        rows = RowFile(path, CLASSES)
        done = rows.begin(RECORDINGS)
        for recording in RECORDINGS:
            if key_of(recording) not in done:
                rows.add(rows_of(recording.file, windows=1))
        return {name for name, _, _ in done}

    assert write(path) == set()
    whole = path.read_bytes()
    assert write(path) == {"x.wav", "y.wav", "z.wav"}
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        done = write(path)
        assert path.read_bytes() == whole
        assert len(done) == sum(size >= end for end in ends(whole, suffix))


def ends(content: bytes, suffix: str) -> list[int]:
    """Where the rows of each recording end in a file."""
    lines = [rows_of(recording.file, windows=1) for recording in RECORDINGS]
    sizes = [
        sum(len(csv_line(row, CLASSES) if suffix == ".csv" else json_line(row) + "\n") for row in rows)
        for rows in lines
    ]
    first = len(content) - sum(sizes)
    return [first + sum(sizes[: number + 1]) for number in range(len(sizes))]


def test_failures_of_the_rows_that_are_there_are_counted(tmp_path: Path) -> None:
    rows = RowFile(tmp_path / "rows.jsonl", CLASSES)
    rows.begin(RECORDINGS)
    rows.add([Prediction(file="x.wav", probabilities={}, error="missing")])
    again = RowFile(tmp_path / "rows.jsonl", CLASSES)
    assert again.begin(RECORDINGS) == {("x.wav", None, None)}
    assert again.failed == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "file,start_s\n", "has the rows of another run or format"),
        ("a.csv", f"{csv_header(CLASSES)}a,b\n", "has a row that is not of this run"),
        ("a.csv", f"{csv_header(CLASSES)}a,nan,,,,,,\n", "has a row that is not of this run"),
        ("a.jsonl", '{"file": "a"}\n', "has a row that is not of this run"),
        ("a.jsonl", "[]\n", "has a row that is not of this run"),
        ("a.jsonl", json_line(GOOD).replace('"calm"', '"glad"') + "\n", r"not of this run \(other classes\)"),
        ("a.txt", "", "unknown ending '.txt'; known: .csv, .jsonl"),
    ],
)
def test_a_file_of_other_rows_is_left_as_it_is(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(MmerError, match=message):
        RowFile(path, CLASSES).begin(RECORDINGS)
    assert path.read_text() == content
