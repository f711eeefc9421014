"""A run is estimated from its own plan and a few real batches, and leaves nothing behind."""

import re
from pathlib import Path
from typing import Any

import pytest

from cache.errors import MmerError
from fusion.experiment.experiment import Experiment
from fusion.experiment.fields import configure
from fusion.heads.probe import Probe
from fusion.run.estimate import RunEstimate, estimate_run
from fusion.run.folder import RunFolder
from fusion.run.train import train_run
from tests.support.runs import QUICK, finish, plan, reader_of


def experiment_of(fusion: str, *, seeds: tuple[int, ...] = (0,), refit: bool = False) -> Experiment:
    head, training = configure(fusion, {**QUICK, "epochs": "40", "patience": "4", "refit": refit})
    return Experiment(fusion=fusion, head=head, training=training, seeds=seeds)


def estimated(cache: Path, out: Path, fusion: str = "concat", **asked: Any) -> RunEstimate:
    experiment = experiment_of(fusion, seeds=asked.pop("seeds", (0,)), refit=asked.pop("refit", False))
    return estimate_run(experiment, reader_of(cache), out=out, **asked)


@pytest.fixture(scope="module")
def found(trainable: Path, tmp_path_factory: pytest.TempPathFactory) -> RunEstimate:
    out = tmp_path_factory.mktemp("estimated") / "run"
    found = estimated(trainable, out, seeds=(1, 2), final=True)
    assert not out.exists()
    return found


def test_the_subsets_are_those_that_the_run_trains_on(trainable: Path, found: RunEstimate) -> None:
    split = plan(trainable, "concat").split
    sizes = [(fold.name, name, len(subset)) for fold in split.folds for name, subset in fold.subsets.items()]
    assert [(one.fold, one.subset, one.utterances) for one in found.members] == sizes
    assert all(sum(one.classes.values()) == one.utterances for one in found.members)
    utterances = reader_of(trainable).utterances
    test = split.folds[0].test.tolist()
    assert found.members[2].speakers == tuple(sorted({utterances[index].speaker for index in test}))
    assert not set(found.members[0].speakers) & set(found.members[2].speakers)


def test_models_of_folds_seeds_and_final_models_are_counted(found: RunEstimate) -> None:
    assert (found.models, found.finished) == (3 * 2 + 2, 0)


def test_parameters_are_those_of_a_trained_model(trainable: Path, tmp_path: Path, found: RunEstimate) -> None:
    results = finish(plan(trainable, "concat", {"epochs": 1}), tmp_path / "run")
    assert found.parameters == results["folds"][0]["parameters"]
    assert found.disk_bytes == 8 * found.parameters * 4


def test_the_shortest_time_follows_patience_and_the_longest_all_epochs(found: RunEstimate) -> None:
    assert re.match(r"\d steps? of 21 utterances took ", found.measured)
    assert found.measured.endswith("a model needs 5 to 40 epochs")
    # scoring of the test subset is the only part that does not grow with the epochs
    assert 6 < found.longest_s / found.shortest_s <= 8
    assert found.peak_bytes > found.features_bytes > 0


def test_finished_models_are_known_and_another_run_in_the_folder_is_an_error(trainable: Path, tmp_path: Path) -> None:
    finish(plan(trainable, "audio", {"epochs": 1, "patience": 4}), tmp_path / "run")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    head, training = configure("audio", {**QUICK, "epochs": "1", "patience": "4"})
    experiment = Experiment(fusion="audio", head=head, training=training)
    found = estimate_run(experiment, reader_of(trainable), out=tmp_path / "run")
    assert (found.models, found.finished, found.longest_s) == (3, 3, 0)
    with pytest.raises(MmerError, match="already holds a different run"):
        estimated(trainable, tmp_path / "run")
    assert estimated(trainable, tmp_path / "run", replace=True).finished == 0
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert RunFolder(tmp_path / "run").identity["fusion"] == "audio"


def test_a_fitted_head_is_timed_by_one_fit(trainable: Path, tmp_path: Path) -> None:
    found = estimated(trainable, tmp_path / "run", "probe")
    assert found.measured == f"by one fit of fold {found.members[0].fold}"
    assert found.shortest_s == found.longest_s > 0


def test_the_fits_of_a_refit_and_of_final_models_are_counted(
    trainable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock counts fits, in place of seconds."""
    fits: list[float] = []
    fit = Probe.fit

    def counted(self: Probe, vectors: Any, labels: Any, candidate: float, *, balanced: bool) -> None:
        fits.append(candidate)
        fit(self, vectors, labels, candidate, balanced=balanced)

    monkeypatch.setattr(Probe, "fit", counted)
    monkeypatch.setattr("fusion.run.estimate.time.monotonic", lambda: float(len(fits)))
    folds, each = 3, len(Probe.candidates)
    for refit, final in ((False, False), (True, False), (False, True)):
        found = estimated(trainable, tmp_path / "run", "probe", refit=refit, final=final)
        assert found.longest_s == folds * (each + refit) + final
        assert found.measured.endswith(", and one on its train and dev") == (refit or final)
    fits.clear()
    train_run(experiment_of("probe", refit=True), reader_of(trainable), out=tmp_path / "run")
    assert len(fits) == folds * (each + 1)


def test_a_seed_that_the_run_lacks_is_estimated_and_not_added(trainable: Path, tmp_path: Path) -> None:
    values = {"epochs": "1", "patience": "4"}
    finish(plan(trainable, "audio", values), tmp_path / "run")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    head, training = configure("audio", {**QUICK, **values})
    experiment = Experiment(fusion="audio", head=head, training=training, seeds=(0, 1))
    found = estimate_run(experiment, reader_of(trainable), out=tmp_path / "run")
    assert (found.models, found.finished) == (6, 3)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
