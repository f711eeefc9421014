import json
from pathlib import Path
from typing import Any

import pytest

from fusion.experiment.request import ExperimentRequest
from fusion.protocols.filters import Filters
from fusion.run.score_table import reference_rows
from fusion.run.train import TrainedRun, train_run
from tests.support.runs import TWO_FOLDS, reader_of


def trained(
    cache: Path,
    out: Path,
    *,
    with_probe: bool = False,
    fusion: str = "audio",
    only: Filters | None = None,
    **fields: object,
) -> TrainedRun:
    quick: dict[str, object] = {"epochs": 1, "batch_size": 32, **fields}
    request = ExperimentRequest(fusion=fusion, fields=quick, streams={"audio": "voice"}, only=only or {})
    return train_run(request.experiment(reader_of(cache)), reader_of(cache), out=out, with_probe=with_probe)


def test_a_first_loss_far_above_chance_is_a_note_with_a_setting(trainable: Path, tmp_path: Path) -> None:
    plain: dict[str, Any] = {"standardize": False, "hidden": 0}
    run = trained(trainable, tmp_path / "high", lr=300.0, warmup=0.0, clip=0.0, optimizer="adam", **plain)
    (note,) = [note for note in run.results["notes"] if note.startswith("the loss of the first epoch")]
    assert "where chance has 1.4: features have large values; pass --set standardize=true" in note
    scaled = trained(trainable, tmp_path / "scaled", lr=300.0, warmup=0.0, clip=0.0, standardize=True, hidden=0)
    (note,) = [note for note in scaled.results["notes"] if note.startswith("the loss of the first epoch")]
    assert note.endswith("the learning rate of 300 is high; pass --lr 30")


def test_predictions_of_a_single_class_are_a_note(trainable: Path, tmp_path: Path) -> None:
    run = trained(trainable, tmp_path / "one", lr=1e-9, dropout=0.0, standardize=False, hidden=0, pooling="mean")
    guesses = [
        {line.split(",")[2] for line in path.read_text().splitlines()[1:]}
        for path in sorted((tmp_path / "one").rglob("predictions.csv"))
    ]
    single = sum(len(names) == 1 for names in guesses)
    notes = [note for note in run.results["notes"] if "predict a single class" in note]
    assert len(notes) == (single > 0)
    assert all(
        note.startswith(f"{single} of {len(guesses)} models") and "--set class_weights=true" in note for note in notes
    )


def test_a_training_that_learns_has_no_such_note(trainable: Path, tmp_path: Path) -> None:
    run = trained(trainable, tmp_path / "fine", epochs=3)
    assert not [note for note in run.results["notes"] if "first epoch" in note or "single class" in note]


@pytest.mark.parametrize("fusion", ["audio", "concat"])
def test_the_probe_stands_in_the_table_and_in_the_results(trainable: Path, tmp_path: Path, fusion: str) -> None:
    run = trained(trainable, tmp_path / "run", with_probe=True, fusion=fusion, **TWO_FOLDS)
    alone = trained(
        trainable, tmp_path / "alone", fusion="probe", modalities="audio" if fusion == "audio" else "both", **TWO_FOLDS
    )
    written = json.loads((tmp_path / "run" / "results.json").read_text())["reference"]
    assert written["mean"] == alone.results["mean"]
    assert any(note.startswith("C is selected on dev by wf1, and column epoch") for note in alone.results["notes"])
    assert written["interval"] == alone.results["interval"]
    assert written["run"] == str(tmp_path / "run-probe")
    assert [fold["ua"] for fold in written["folds"]] == [fold["ua"] for fold in alone.folds]
    assert list(run.table[1][-3:]) == reference_rows(run.results)
    assert run.table[1][-3][0] == "probe mean"
    page = (tmp_path / "run" / "results.md").read_text()
    assert f"| probe pooled |  |  |  |  |  | {100 * written['pooled']['wa']:.2f} |" in page
