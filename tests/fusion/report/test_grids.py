from pathlib import Path

import pytest

from cache.errors import MmerError
from fusion.grid.combinations import FieldValues
from fusion.grid.report.export import grid_json, write_csv
from fusion.grid.selection import rank
from fusion.report.given import find_grid
from fusion.report.grids import read_grid
from fusion.report.report import write_report
from fusion.run.folder import RESULTS, Folder
from tests.support.scored import result

FIELDS: list[FieldValues] = [{}, {"alpha": 0.5}, {"layers": 2}, {"name": "<script>alert(1)</script>"}]


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an ablation of three changes on two folds."""
    folder = Folder(tmp_path_factory.mktemp("journal") / "grids" / "0123abcd")
    scores = [
        result(index, fold, 0.5 + 0.02 * index, 0.4 if index == 3 else None)
        for index in range(4)
        for fold in ("1", "2")
    ]
    ranked, winners = rank(FIELDS, scores, "wf1"), {"1": 3, "2": 3}
    write_csv(folder, ranked, scores, ["alpha", "layers", "name"], winners)
    found = grid_json(ranked, scores, winners, engine="shared", seconds=1.0)
    more = {"fusion": "audio", "cache": "cache/toy.h5", "protocol": "session", "labels": ["a", "b"], "monitor": "wf1"}
    equal = dict.fromkeys(("wa", "ua", "wf1", "mf1"), 0.7125)
    reference = {"fusion": "probe", "folds": [{"fold": fold, **equal, "dev_scores": equal} for fold in ("1", "2")]}
    folder.write(RESULTS, {**found, **more, "nested_interval": {}, "skipped": [], "reference": reference})
    return folder.path


def test_a_grid_is_read_from_its_files(grid: Path) -> None:
    found = read_grid(grid)
    assert [dict(row.fields) for row in found.ranked] == [FIELDS[index] for index in (3, 2, 1, 0)]
    assert [row.combination for row in found.ranked] == [3, 2, 1, 0]
    assert len(found.scores) == 8
    assert find_grid(grid.parents[1]) == grid  # the folder of the journal will do
    assert find_grid(grid.parent) is None


def test_the_page_of_an_ablation_has_its_changes_and_no_averages(grid: Path, tmp_path: Path) -> None:
    page = write_report([grid], out=tmp_path / "report.html").path.read_text()
    assert "Dev score of the base and of each change" in page
    assert "Dev score by alpha" not in page
    assert "<script" not in page
    assert "alpha=0.5" in page
    assert page.count("71.25 (0.00)") == 8  # dev and test of the probe, below the combinations


def test_a_grid_is_reported_alone(grid: Path, reported: Path) -> None:
    with pytest.raises(MmerError, match="a report has one grid or several runs, got 2 folders"):
        write_report([grid, reported])
