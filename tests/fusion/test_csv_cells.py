"""Cells that a spreadsheet shows as text, and the texts that they were made of."""

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion.csv_cells import plain_cell, restored_cell
from fusion.run.folder import Folder
from fusion.run.latex import escape_latex

STARTS = "=+-@\t\r"
HOSTILE = ['=HYPERLINK("http://x","y")', "+1+1", "-2+3|cmd", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''+x"]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_cell_of_a_file_starts_a_formula_and_reading_restores_the_text(tmp_path: Path, text: str) -> None:
    folder = Folder(tmp_path)
    folder.write_rows("a.csv", ["id", text], [[text, "anna"], ["-1.5", -2]])
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert all(cell[0] not in STARTS or cell in {"-1.5", "-2"} for cell in cells)
    assert folder.read_rows("a.csv") == [{"id": text, text: "anna"}, {"id": "-1.5", text: "-2"}]


@given(st.text(alphabet="'=+-@\t\ra1.", max_size=6))
def test_every_text_is_restored(text: str) -> None:
    cell = plain_cell(text)
    assert isinstance(cell, str)
    assert restored_cell(cell) == text


@pytest.mark.parametrize("number", ["-0.5", "+1", "-1e-3", "-inf", 0.5, -3, None])
def test_numbers_stay_as_they_are(number: object) -> None:
    assert plain_cell(number) == number


def test_a_line_break_in_a_name_ends_no_row_of_latex() -> None:
    assert escape_latex("a\n\nb\x1b\\input{x}") == r"a  b \textbackslash{}input\{x\}"
