"""Runs that predict rated dimensions: values on the scale of the corpus, from training to loaded models."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cache.errors import MmerError
from cache.joined import open_cache
from fusion.data.features import CachedFeatures
from fusion.evaluation.calibration import calibration_error
from fusion.evaluation.dimensions import TargetScale
from fusion.evaluation.ratings import DIMENSIONS
from fusion.experiment.plan import RunPlan, plan_run
from fusion.experiment.request import ExperimentRequest
from fusion.grid.run import run_grid
from fusion.grid.space import GridRequest, grid_space, parse_search
from fusion.heads.catalog import HEADS
from fusion.run.compare import compare_runs
from fusion.run.cross_corpus import cross_table, plan_other_corpus, score_other_corpus
from fusion.run.folder import RunFolder
from fusion.run.load import load_model, load_scale
from fusion.run.score_fusion import fuse_scores
from fusion.run.train import TrainedRun, train_run
from fusion.training.evaluate import predict_probabilities
from tests.support.grids import planned, trained
from tests.support.heads import samples
from tests.support.runs import QUICK, SMALL, reader_of, utterances, write_cache

TARGET = "valence,activation"
MONITOR: dict[str, object] = {"monitor": "ccc"}


@pytest.fixture(scope="module")
def rated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache whose valence is that of its classes, on a scale around 100; the last utterance has no activation."""
    random = np.random.default_rng(1)
    drawn = samples(72)
    told = [
        replace(
            utterance,
            valence=100 + 10 * sample.label + float(random.normal()),
            activation=None if index == len(drawn) - 1 else float(random.uniform(1, 5)),
        )
        for index, (utterance, sample) in enumerate(zip(utterances(drawn), drawn, strict=True))
    ]
    return write_cache(tmp_path_factory.mktemp("rated") / "rated.h5", utterances=told)


def run_of(
    cache: Path, out: Path, fusion: str = "concat", *, target: str = TARGET, final: bool = False, **fields: Any
) -> TrainedRun:
    opened = reader_of(cache)
    request = ExperimentRequest(fusion=fusion, fields={**QUICK, **SMALL.get(fusion, {}), **fields}, target=target)
    return train_run(request.experiment(opened), opened, out=out, final=final)


@pytest.fixture(scope="module")
def run(rated: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """A finished run with a final model; tests only read it."""
    return run_of(rated, tmp_path_factory.mktemp("runs") / "run", final=True)


def planned_source(plan: RunPlan) -> CachedFeatures:
    return CachedFeatures(plan.cache, plan.selection.streams, plan.split.classes)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_scores_are_those_of_the_predictions_on_the_scale_of_the_corpus(run: TrainedRun) -> None:
    rows = rows_of(run.folder / "1-seed0" / "predictions.csv")
    assert list(rows[0]) == ["id", "valence", "activation", "p_valence", "p_activation"]
    truth, guess = DIMENSIONS.parse(rows, ["valence", "activation"])
    assert 90 < guess[:, 0].mean() < 140
    assert {name: run.folds[0][name] for name in DIMENSIONS.names} == pytest.approx(
        DIMENSIONS.evaluate(truth, guess, 2)
    )
    assert run.results["task"] == "dimensions"
    assert run.results["target"] == TARGET
    assert run.results["interval"]["ccc"][0] < run.results["pooled"]["ccc"] < run.results["interval"]["ccc"][1]
    each = [run.results["dimensions"][name]["pooled"]["mae"] for name in ("valence", "activation")]
    assert run.results["pooled"]["mae"] == pytest.approx(np.mean(each))
    assert (run.folder / "values.png").exists()
    assert not (run.folder / "confusion.csv").exists()


def test_the_scale_is_that_of_the_training_subset(run: TrainedRun) -> None:
    splits = rows_of(run.folder / "splits.csv")
    values = np.array([float(row["valence"]) for row in splits if row["fold 1"] == "train"])
    stored = json.loads((run.folder / "1-seed0" / "scores.json").read_text())["scale"]
    assert stored["mean"][0] == pytest.approx(values.mean())
    assert stored["std"][0] == pytest.approx(values.std())
    everyone = [float(row["valence"]) for row in splits if row["activation"]]
    final = json.loads((run.folder / "final-seed0" / "final.json").read_text())["scale"]
    assert final["mean"][0] == pytest.approx(np.mean(everyone))


def test_an_utterance_without_a_rating_is_left_out_with_a_note(run: TrainedRun) -> None:
    assert "1 of 72 utterances are left out, a rating of valence, activation is absent" in run.results["notes"]
    assert sum(fold["test"] for fold in run.folds) == 71
    assert any(line.startswith("valence: CCC ") for line in run.notes)


def test_a_loaded_model_predicts_what_the_run_wrote(rated: Path, run: TrainedRun) -> None:
    folder = RunFolder(run.folder)
    head = load_model(folder, "2", 0)
    scale = load_scale(folder.model("2", 0), DIMENSIONS, final=False)
    assert isinstance(scale, TargetScale)
    opened = reader_of(rated)
    rows = rows_of(run.folder / "2-seed0" / "predictions.csv")
    from fusion.data.features import CachedFeatures

    streams = {role: name.split()[0] for role, name in folder.identity["streams"].items()}
    source = CachedFeatures(opened, streams, np.zeros(len(opened), dtype=np.int64))
    indices = np.array([opened.ids.index(row["id"]) for row in rows])
    found = predict_probabilities(head, source, indices, task=DIMENSIONS.scaled(scale))
    np.testing.assert_allclose(found[:, 0], [float(row["p_valence"]) for row in rows], rtol=1e-5)


@pytest.mark.parametrize(("fusion", "fields"), [("score", {}), ("rescmfa", {"loss": "mse"}), ("jfm", {"icl": "false"})])
def test_other_heads_train_on_dimensions(rated: Path, tmp_path: Path, fusion: str, fields: dict[str, Any]) -> None:
    found = run_of(rated, tmp_path / "run", fusion, **fields, epochs=1, target="valence")
    assert set(found.mean) == {"ccc", "mae", "pearson"}
    assert found.mean["mae"] < 40


@pytest.mark.parametrize("fusion", sorted(HEADS))
def test_a_head_that_needs_classes_names_the_fields_that_switch_them_off(rated: Path, fusion: str) -> None:
    opened = reader_of(rated)
    request = ExperimentRequest(fusion=fusion, fields=SMALL.get(fusion, {}), target="valence")
    needed = request.experiment(opened).head.needs_classes
    assert bool(needed) == (fusion in {"bimodal", "jfm", "label-guided"})
    off = dict(pair.split("=") for pair in needed.split("--set ")[1:] for pair in [pair.strip()])
    relieved = replace(request, fields={**request.fields, **off}).experiment(opened)
    assert not relieved.head.needs_classes


def test_a_head_that_is_fitted_to_classes_is_refused(rated: Path, tmp_path: Path) -> None:
    with pytest.raises(MmerError, match="head probe is fitted to one class of each utterance, not to --target val"):
        run_of(rated, tmp_path / "run", "probe", target="valence", epochs=1)


def test_a_head_with_contrastive_classes_is_refused_in_one_line(rated: Path, tmp_path: Path) -> None:
    message = "head jfm cannot predict valence: its contrastive loss compares classes; pass --set icl=false"
    with pytest.raises(MmerError, match=message):
        run_of(rated, tmp_path / "run", "jfm", target="valence")


@pytest.mark.parametrize("fusion", ["concat", "score"])
def test_a_stack_predicts_what_single_models_predict(rated: Path, tmp_path: Path, fusion: str) -> None:
    fields: list[dict[str, object]] = [{"lr": rate, **MONITOR} for rate in (0.01, 0.003)]
    scores = []
    for engine in ("shared", "fused"):
        combinations = planned(rated, fusion, *fields, target="valence")
        _, told = trained(tmp_path / engine, combinations, engine=engine, folds=["1"])
        assert not [outcome.failure for outcome in told.outcomes.values() if outcome.failure]
        scores.append([scores.dev["ccc"] for _, scores in sorted(told.epochs, key=lambda one: (one[0], one[1].epoch))])
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-4)


@pytest.mark.parametrize(
    ("options", "fields", "message"),
    [
        ({"labels": "a=b,c=d"}, {}, "--labels selects classes, and --target valence has none; leave one of them out"),
        ({}, {"monitor": "ua"}, "training: monitor must be one of ccc, mae, pearson, loss for dimensions, got 'ua'"),
        ({}, {"class_weights": "true"}, "--target valence has no classes for class_weights; leave them out"),
        ({"target": ""}, {"loss": "mse"}, "training: loss must be one of auto, cross_entropy for classification"),
        ({"target": ""}, {"monitor": "ccc"}, "training: monitor must be one of wf1, ua, wa, mf1, loss for classific"),
    ],
)
def test_options_of_other_targets_are_refused(
    rated: Path, options: dict[str, Any], fields: dict[str, object], message: str
) -> None:
    with pytest.raises(MmerError, match=message):
        ExperimentRequest(fusion="concat", fields=fields, **{"target": "valence", **options}).experiment(
            reader_of(rated)
        )


def test_a_run_of_classes_keeps_its_identity(rated: Path) -> None:
    opened = reader_of(rated)
    plan = plan_run(ExperimentRequest(fusion="concat").experiment(opened), opened)
    assert not {"task", "target"} & plan.identity.keys()
    assert plan.identity_without_defaults["training"] == {}


@pytest.fixture(scope="module")
def second(rated: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """A second run of the same dimensions."""
    return run_of(rated, tmp_path_factory.mktemp("runs") / "second", epochs=1)


def predicted(run: TrainedRun) -> tuple[np.ndarray, np.ndarray]:
    """Rated and predicted values of all folds."""
    rows = [row for fold in "123" for row in rows_of(run.folder / f"{fold}-seed0" / "predictions.csv")]
    return DIMENSIONS.parse(rows, ["valence", "activation"])


def test_runs_of_dimensions_are_compared_on_the_scale_of_the_corpus(run: TrainedRun, second: TrainedRun) -> None:
    found = compare_runs([run.folder, second.folder])
    (pair,) = found.pairs
    expected = [DIMENSIONS.evaluate(*predicted(held), 2) for held in (run, second)]
    assert pair.difference.difference == pytest.approx(
        {name: expected[1][name] - expected[0][name] for name in ("ccc", "mae", "pearson")}
    )
    assert pair.mcnemar is None
    assert found.mcnemar_line(pair) == ""
    _, rows = found.table(pair)
    assert [row[0] for row in rows] == ["CCC", "MAE", "Pearson"]
    assert rows[0][3] == f"{expected[1]['ccc'] - expected[0]['ccc']:+.3f}"
    assert found.json["comparisons"][0]["mcnemar"] is None


def test_fused_values_are_the_mean_of_the_predicted_values(
    rated: Path, run: TrainedRun, second: TrainedRun, tmp_path: Path
) -> None:
    out = RunFolder(tmp_path / "fused")
    results = fuse_scores([RunFolder(run.folder), RunFolder(second.folder)], reader_of(rated), out)
    truth, first = predicted(run)
    mean = (first + predicted(second)[1]) / 2
    assert results["pooled"] == pytest.approx(DIMENSIONS.evaluate(truth, mean, 2))
    assert any(note.startswith("the mean of the predicted values of") for note in results["notes"])
    rows = [row for fold in "123" for row in rows_of(out.path / f"{fold}-seed0" / "predictions.csv")]
    np.testing.assert_allclose(DIMENSIONS.parse(rows, ["valence", "activation"])[1], mean)


def test_runs_of_other_targets_do_not_match(rated: Path, run: TrainedRun, classified: TrainedRun) -> None:
    with pytest.raises(MmerError, match=f"predicts {TARGET} and .* predicts classes; train both with the same"):
        compare_runs([run.folder, classified.folder])
    with pytest.raises(MmerError, match=f"predicts classes and .* predicts {TARGET}; train both with the same"):
        fuse_scores([RunFolder(classified.folder), RunFolder(run.folder)], reader_of(rated), RunFolder(Path("none")))


@pytest.mark.parametrize(
    ("target", "scales"), [("valence=0:1000,activation=0:10", "valence=0:10"), ("", "")], ids=["mapped", "as it is"]
)
def test_models_are_scored_on_the_ratings_of_another_corpus(
    rated: Path, run: TrainedRun, tmp_path: Path, target: str, scales: str
) -> None:
    unit = 0.01 if target else 1.0
    told = [
        replace(held, id=f"x{held.id}", valence=None if held.valence is None else held.valence * unit)
        for held in reader_of(rated).utterances
    ]
    other = open_cache(
        write_cache(
            tmp_path / "other.h5", utterances=told, corpus={"name": "other", "root": ""}, roles=["audio", "text"]
        )
    )
    if target:
        run = run_of(rated, tmp_path / "run", target=target, epochs=1)
    opened = reader_of(rated)
    fields = {**QUICK, **({"epochs": 1} if target else {})}
    request = ExperimentRequest(fusion="concat", fields=fields, target=target or TARGET)
    plan = plan_run(request.experiment(opened), opened)
    joined = plan_other_corpus(plan, other, labels=scales or None)
    scores = score_other_corpus(plan, RunFolder(run.folder), joined, device=torch.device("cpu"))
    assert scores["test"] == len(told) - 1  # one has no activation
    model = load_model(RunFolder(run.folder), "1", 0)
    task = DIMENSIONS.scaled(load_scale(RunFolder(run.folder).model("1", 0), DIMENSIONS, final=False))
    values = predict_probabilities(model, planned_source(plan), joined.chosen, task=task) * [unit, 1]
    assert scores["models"][0] == pytest.approx(
        {"fold": "1", "seed": 0, **DIMENSIONS.evaluate(joined.truth[joined.chosen], values, 2)}
    )
    notes = " ".join(joined.notes)
    assert ("predicted valence is mapped from 0 to 1000 to 0 to 10" in notes) == bool(target)
    assert "activation is compared as it is, since a scale is unknown" in notes
    header, rows = cross_table([{**run.results, "cross": [scores]}])
    assert header[3:] == ["CCC", "MAE", "Pearson"]
    assert [row[:2] for row in rows][:2] == [["rated", "rated"], ["rated", "other"]]
    assert ("final" in scores) == (not target)


@pytest.fixture(scope="module")
def classified(rated: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """A run of classes with focal loss and balanced batches."""
    fields: dict[str, Any] = {"focal_gamma": 2, "balanced_batches": "true"}
    return run_of(rated, tmp_path_factory.mktemp("runs") / "classes", target="", epochs=1, **fields)


def test_results_have_the_calibration_error_with_and_without_the_temperatures_of_dev(classified: TrainedRun) -> None:
    found = classified.results["calibration"]
    assert found["temperature"] == [fold["temperature"] for fold in classified.folds]
    assert all(0.05 <= value <= 20 for value in found["temperature"])
    rows = [row for fold in "123" for row in rows_of(classified.folder / f"{fold}-seed0" / "predictions.csv")]
    names = classified.results["labels"]
    probabilities = np.array([[float(row[f"p_{name}"]) for name in names] for row in rows])
    truth = np.array([names.index(row["label"]) for row in rows])
    assert found["ece"] == calibration_error(probabilities, truth)
    assert 0 <= found["ece_scaled"] <= 1


def test_focal_loss_is_a_column_of_the_curves(classified: TrainedRun) -> None:
    assert "focal_loss" in rows_of(classified.folder / "1-seed0" / "curves.csv")[0]
    with pytest.raises(MmerError, match="focal_gamma and label_smoothing exclude each other"):
        ExperimentRequest(fusion="concat", fields={"focal_gamma": 1, "label_smoothing": 0.1})
    with pytest.raises(MmerError, match="head score does not use class_weights, label_smoothing and focal_gamma"):
        ExperimentRequest(fusion="score", fields={"focal_gamma": 1})


def test_a_report_shows_rated_and_predicted_values(run: TrainedRun, tmp_path: Path) -> None:
    from fusion.report.report import write_report

    page = write_report([run.folder], out=tmp_path / "report.html").path.read_text()
    assert "Rated and predicted values" in page
    assert ">Confusion<" not in page
    assert "CCC" in page


def test_a_grid_of_ratings_refuses_a_probe_before_it_is_trained(rated: Path, tmp_path: Path) -> None:
    cache, base = reader_of(rated), ExperimentRequest(fusion="audio", fields=QUICK, target=TARGET)
    for search in ("grid", "tpe:2"):
        space = grid_space(base, grid=["dropout=0.1,0.2"], cache=cache)
        request = GridRequest(base=base, space=space, search=parse_search(search))
        with pytest.raises(MmerError, match="--with-probe needs one class of each utterance, not --target valence"):
            run_grid(request, cache, out=tmp_path / "grid", engine="shared", with_probe=True)
    assert not list(tmp_path.iterdir())
