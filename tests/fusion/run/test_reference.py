"""The probe on the streams and folds of a run stays in its results."""

import json
from pathlib import Path

from fusion.evaluation.classes import CLASSIFICATION
from fusion.experiment.request import ExperimentRequest
from fusion.run.train import TrainedRun, train_run
from tests.support.runs import QUICK, TWO_FOLDS, reader_of

TITLES = ["probe mean", "probe pooled", "probe 95% of pooled"]


def trained(cache: Path, out: Path, *, seeds: tuple[int, ...] = (0,), with_probe: bool = False) -> TrainedRun:
    request = ExperimentRequest(fusion="audio", fields={**QUICK, "epochs": 1}, seeds=seeds, **TWO_FOLDS)
    return train_run(request.experiment(reader_of(cache)), reader_of(cache), out=out, with_probe=with_probe)


def test_a_repeated_run_keeps_the_probe_that_an_earlier_command_computed(trainable: Path, tmp_path: Path) -> None:
    first = trained(trainable, tmp_path / "run", with_probe=True)
    assert [row[0] for row in first.table[1][-3:]] == TITLES
    again = trained(trainable, tmp_path / "run")
    assert again == first
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == first.results
    page = (tmp_path / "run" / "results.md").read_text()
    assert all(f"| {title} |" in page for title in TITLES)
    more = trained(trainable, tmp_path / "run", seeds=(0, 1))  # nothing in a probe is random
    assert (len(more.folds), more.results["reference"]) == (4, first.results["reference"])


def test_the_reference_has_the_scores_of_the_probe_by_fold(trainable: Path, tmp_path: Path) -> None:
    found = trained(trainable, tmp_path / "run", with_probe=True).results["reference"]
    for fold in found["folds"]:
        scores = json.loads((tmp_path / "run-probe" / f"{fold['fold']}-seed0" / "scores.json").read_text())
        assert [fold[name] for name in CLASSIFICATION.names] == [scores[name] for name in CLASSIFICATION.names]
        assert fold["dev_scores"].items() <= scores["dev_scores"].items()
