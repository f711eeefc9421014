"""The cells of docs/quickstart.ipynb run in their order and print what the notebook shows."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "quickstart.ipynb"
NUMBER = re.compile(r"\d\.\d+")  # scores and probabilities, whose last digits depend on the machine


def code_cells() -> list[dict[str, Any]]:
    return [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]


def numbers(text: str) -> list[float]:
    return [float(number) for number in NUMBER.findall(text)]


def test_every_cell_prints_what_the_notebook_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], demo_caches: Path
) -> None:
    shutil.copytree(demo_caches, tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for cell in code_cells():
        exec(compile("".join(cell["source"]), str(NOTEBOOK), "exec"), names)
        shown = "".join(line for output in cell["outputs"] for line in output["text"])
        printed = capsys.readouterr().out
        assert NUMBER.sub("#", printed) == NUMBER.sub("#", shown)
        assert numbers(printed) == pytest.approx(numbers(shown), abs=0.05)


def test_the_cells_count_up_and_lead_to_files_that_are_there() -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert [cell["execution_count"] for cell in code_cells()] == list(range(1, len(code_cells()) + 1))
    text = "".join(line for cell in cells if cell["cell_type"] == "markdown" for line in cell["source"])
    links = re.findall(r"\]\(([^)#]+)", text)
    assert links
    assert all((NOTEBOOK.parent / link).exists() for link in links)
