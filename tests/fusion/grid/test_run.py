import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

import pytest

from cache.errors import MmerError
from fusion.experiment.request import ExperimentRequest
from fusion.grid.journal import ENTRY
from fusion.grid.run import estimate_grid, run_grid
from fusion.grid.space import GridRequest, Search, grid_space, parse_search
from tests.support.grids import GridTold
from tests.support.runs import QUICK, TWO_FOLDS, reader_of

AUDIO = ExperimentRequest(fusion="audio", fields=QUICK)


def requested(
    grid: Sequence[str] | Mapping[str, object], *, base: ExperimentRequest = AUDIO, search: str = "grid"
) -> GridRequest:
    return GridRequest(base=base, space=grid_space(base, grid=grid), search=parse_search(search))


def test_a_grid_is_trained_once_and_then_read_again(trainable: Path, tmp_path: Path) -> None:
    cache, request, told = reader_of(trainable), requested({"dropout": [0.1, 0.2]}), GridTold()
    run = run_grid(request, cache, out=tmp_path / "grid", engine="shared", progress=told)
    assert (run.journal, len(told.started), len(run.results["rows"])) == (tmp_path / "grid", 6, 2)
    assert run.winner == run.results["rows"][0]["config"]
    assert run.nested == run.results["nested"]
    assert {path.name for path in run.folder.iterdir()} >= {"grid.csv", "results.json", "ablation.md"}
    again = run_grid(request, cache, out=tmp_path / "grid")
    assert again.results == {
        **run.results,
        "engine": "none: all was in the journal",
        "seconds": again.results["seconds"],
    }


def test_values_in_python_make_the_space_of_the_command_line() -> None:
    base = ExperimentRequest(fusion="rescmfa")
    typed = grid_space(base, grid=["lr=1e-3,3e-3", "layers=2", "dropout=0.1..0.3"], ablate=["alpha=0/sgu=dense"])
    values = {"lr": (1e-3, 3e-3), "layers": 2, "dropout": "0.1..0.3"}
    assert grid_space(base, grid=values, ablate=[{"alpha": 0, "sgu": "dense"}]) == typed
    assert grid_space(base, grid={"layers": range(1, 4)}).axes[0].values == (1, 2, 3)


def test_the_variants_of_a_paper_are_changes() -> None:
    base = ExperimentRequest(recipe="gcf2net-iemocap")
    changes = grid_space(base, ablate=["published", {"dropout": 0.2}]).changes
    assert {"global_aware": False} in changes
    assert {"dropout": 0.2} in changes


@pytest.mark.parametrize(
    ("grid", "ablate", "told"),
    [
        ({"lrr": [0.1]}, [], "no field 'lrr'; did you mean lr"),
        ({"dropout": []}, [], "dropout has no value"),
        ({"dropout": [0.1, 0.1]}, [], "given the value 0.1 twice"),
        ({}, [{"dropout": "0.1..0.2"}], "is a range, which only --grid takes"),
        ({}, ["published"], "choose a --recipe with variants"),
        ({"epochs": [1, 2]}, [], "epochs is both an axis of the grid and set to a single value"),
    ],
)
def test_a_space_that_cannot_be_is_told_in_one_line(
    grid: Mapping[str, object], ablate: Sequence[str | Mapping[str, object]], told: str
) -> None:
    with pytest.raises(MmerError, match=told):
        GridRequest(base=AUDIO, space=grid_space(AUDIO, grid=grid, ablate=ablate))


def test_an_unknown_engine_is_a_bad_argument(trainable: Path, tmp_path: Path) -> None:
    for engine in ("fast", "dask"):
        with pytest.raises(ValueError, match=f"engine must be one of auto, fused, shared, .*got '{engine}'"):
            run_grid(requested({}), reader_of(trainable), out=tmp_path / "grid", engine=engine)


def test_a_recipe_brings_its_published_scores(trainable: Path, tmp_path: Path) -> None:
    base = ExperimentRequest(
        recipe="gcf2net-iemocap",
        fields={**QUICK, "epochs": 1, "dim": 8, "text_slots": 15, "audio_slots": 30},
        streams={"audio": "voice", "text": "words@4"},
        labels="a=happy,b=sad",
    )
    run = run_grid(requested({"layers": 1}, base=base), reader_of(trainable), out=tmp_path / "grid", engine="shared")
    assert any(line.startswith("published: no global-aware block") for line in run.comparison)


def test_an_estimate_trains_nothing_that_is_kept(trainable: Path, tmp_path: Path) -> None:
    cache = reader_of(trainable)
    estimate = estimate_grid(requested({"dropout": [0.1, 0.2]}), cache, out=tmp_path / "grid")
    assert estimate.combinations == ("dropout=0.1", "dropout=0.2")
    assert (estimate.cost.models, estimate.cost.known, estimate.journal) == (6, 0, tmp_path / "grid")
    assert not list(tmp_path.rglob(ENTRY))


def test_a_search_by_scores_is_estimated_by_random_combinations(trainable: Path, tmp_path: Path) -> None:
    request = requested({"dropout": [0.1, 0.2, 0.3]}, search="tpe:2")
    assert request.search == Search(kind="tpe", count=2)
    assert len(estimate_grid(request, reader_of(trainable), out=tmp_path / "grid").combinations) == 2


def test_a_grid_prints_the_probe_on_its_folds(trainable: Path, tmp_path: Path) -> None:
    cache, request = reader_of(trainable), requested({"dropout": [0.1, 0.2]})
    found = run_grid(request, cache, out=tmp_path / "grid", engine="shared", with_probe=True)
    reference = found.results["reference"]
    probe = Path(reference["run"])
    assert (probe.parent, probe.name.rpartition("-")[0]) == (tmp_path, "toy-probe-voice")
    assert reference["streams"] == {"audio": "voice"}
    for fold in reference["folds"]:
        scores = json.loads((probe / f"{fold['fold']}-seed0" / "scores.json").read_text())
        assert (fold["ua"], fold["dev_scores"]["ua"]) == (scores["ua"], scores["dev_scores"]["ua"])
    devs = [fold["dev_scores"]["ua"] for fold in reference["folds"]]
    (header, ranking), (of_folds, rows) = found.report.ranking, found.report.folds
    assert len(ranking) == 3
    assert ranking[-1][0] == "probe"
    assert ranking[-1][header.index("dev UA")] == f"{100 * mean(devs):.2f} ± {100 * stdev(devs):.2f}"
    assert ranking[-1][-1] == "reference on voice"
    test_ua = of_folds.index("test UA")
    assert [row[test_ua] for row in rows[-4:-1]] == [f"{100 * fold['ua']:.2f}" for fold in reference["folds"]]
    assert str(rows[-1][test_ua]).startswith(f"{100 * reference['mean']['ua']:.2f} ± ")
    assert {len(row) for row in rows} == {len(of_folds)}
    assert found.report.latex.splitlines()[-1].startswith("probe & voice & session & ")
    assert len(found.report.folder.read_rows("reference.csv")) == 3
    again = run_grid(request, cache, out=tmp_path / "grid", engine="shared")
    assert again.results["reference"] == reference
    shutil.rmtree(probe)
    assert "reference" not in run_grid(request, cache, out=tmp_path / "grid", engine="shared").results


def test_a_grid_of_probes_has_no_other_and_an_estimate_counts_the_probe(trainable: Path, tmp_path: Path) -> None:
    cache = reader_of(trainable)
    probes = requested({"monitor": ["ua"]}, base=ExperimentRequest(fusion="probe", **TWO_FOLDS))
    found = run_grid(probes, cache, out=tmp_path / "grid", engine="shared", with_probe=True)
    assert "reference" not in found.results
    estimate = estimate_grid(requested({"dropout": [0.1, 0.2]}), cache, out=tmp_path / "other", with_probe=True)
    assert estimate.probe is not None
    assert estimate.probe.models == 3
    assert Path(estimate.probe.folder).name.startswith("toy-probe-voice-")


def test_grids_of_one_journal_have_the_probe_of_their_own_streams(trainable: Path, tmp_path: Path) -> None:
    cache = reader_of(trainable)
    base = ExperimentRequest(fusion="concat", fields={**QUICK, "epochs": 1}, **TWO_FOLDS)
    found = [
        run_grid(requested(grid, base=base), cache, out=tmp_path / "grid", engine="shared", with_probe=True)
        for grid in ({"modalities": ["audio"]}, {"modalities": ["text"]})
    ]
    references = [run.results["reference"] for run in found]
    assert [reference["streams"] for reference in references] == [{"audio": "voice"}, {"text": "words@4"}]
    assert len({reference["run"] for reference in references}) == 2
