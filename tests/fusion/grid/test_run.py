from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from cache.errors import MmerError
from cache.joined import open_cache
from fusion.experiment.request import ExperimentRequest
from fusion.grid.journal import ENTRY
from fusion.grid.run import estimate_grid, run_grid
from fusion.grid.space import GridRequest, Search, grid_space, parse_search
from tests.support.grids import GridTold
from tests.support.runs import QUICK

AUDIO = ExperimentRequest(fusion="audio", fields=QUICK)


def requested(
    grid: Sequence[str] | Mapping[str, object], *, base: ExperimentRequest = AUDIO, search: str = "grid"
) -> GridRequest:
    return GridRequest(base=base, space=grid_space(base, grid=grid), search=parse_search(search))


def test_a_grid_is_trained_once_and_then_read_again(trainable: Path, tmp_path: Path) -> None:
    cache, request, told = open_cache(trainable), requested({"dropout": [0.1, 0.2]}), GridTold()
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
            run_grid(requested({}), open_cache(trainable), out=tmp_path / "grid", engine=engine)


def test_a_recipe_brings_its_published_scores(trainable: Path, tmp_path: Path) -> None:
    base = ExperimentRequest(
        recipe="gcf2net-iemocap",
        fields={**QUICK, "epochs": 1, "dim": 8},
        streams={"audio": "voice", "text": "words@4"},
        labels="a=happy,b=sad",
    )
    run = run_grid(requested({"layers": 1}, base=base), open_cache(trainable), out=tmp_path / "grid", engine="shared")
    assert any(line.startswith("published: no global-aware block") for line in run.comparison)


def test_an_estimate_trains_nothing_that_is_kept(trainable: Path, tmp_path: Path) -> None:
    cache = open_cache(trainable)
    estimate = estimate_grid(requested({"dropout": [0.1, 0.2]}), cache, out=tmp_path / "grid")
    assert estimate.combinations == ("dropout=0.1", "dropout=0.2")
    assert (estimate.cost.models, estimate.cost.known, estimate.journal) == (6, 0, tmp_path / "grid")
    assert not list(tmp_path.rglob(ENTRY))


def test_a_search_by_scores_is_estimated_by_random_combinations(trainable: Path, tmp_path: Path) -> None:
    request = requested({"dropout": [0.1, 0.2, 0.3]}, search="tpe:2")
    assert request.search == Search(kind="tpe", count=2)
    assert len(estimate_grid(request, open_cache(trainable), out=tmp_path / "grid").combinations) == 2
