import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score, recall_score

from cache.errors import MmerError
from cache.joined import open_cache
from fusion.evaluation.classes import CLASSIFICATION
from fusion.run.artifacts import read_probabilities
from fusion.run.folder import RunFolder
from fusion.run.latex import latex_header, latex_row
from fusion.run.results import collect_results, total_cost
from fusion.run.score_table import definitions, score_header, score_table
from tests.support.runs import finish, plan, reader_of

KEYS = ["fusion", "cache", "corpus", "streams", "protocol", "protocol_name", "labels", "run", "folds"]
KEYS += ["mean", "std", "std_seeds", "interval", "pooled"]
BESIDE = ["recall", "f1", "calibration", "notes"]
FOLD_KEYS = {"fold": str, "seed": int, "epoch": int, "train": int, "dev": int, "test": int}
SCORES = ["wa", "ua", "wf1", "mf1"]


@pytest.fixture(scope="module")
def run(trainable: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], RunFolder]:
    folder = tmp_path_factory.mktemp("results") / "run"
    return finish(plan(trainable, "concat", seeds=(1, 2)), folder), RunFolder(folder)


def test_the_object_is_that_of_the_contract(run: tuple[dict[str, Any], RunFolder]) -> None:
    results, folder = run
    assert list(results) == [*KEYS, *BESIDE]
    assert json.loads(json.dumps(results)) == results == folder.read("results.json")
    assert [(one["fold"], one["seed"]) for one in results["folds"]] == [(str(f), s) for s in (1, 2) for f in (1, 2, 3)]
    for one in results["folds"]:
        assert {name: type(one[name]) for name in FOLD_KEYS} == FOLD_KEYS
        assert all(0 <= one[metric] <= 1 for metric in SCORES)
        assert one["train"] + one["dev"] + one["test"] == 72
    for name in ("mean", "std", "std_seeds", "pooled"):
        assert list(results[name]) == SCORES
        assert all(isinstance(value, float) and 0 <= value <= 1 for value in results[name].values())
    for low, high in results["interval"].values():
        assert low <= high
    assert list(results["interval"]) == SCORES


def test_scores_agree_with_scikit_learn_on_what_was_predicted(run: tuple[dict[str, Any], RunFolder]) -> None:
    results, folder = run
    rows = [row for part in folder.models(folder.identity) for row in part.read_rows("predictions.csv")]
    truth, guess = [row["label"] for row in rows], [row["guess"] for row in rows]
    assert results["pooled"]["wa"] == pytest.approx(accuracy_score(truth, guess))
    assert results["pooled"]["ua"] == pytest.approx(balanced_accuracy_score(truth, guess))
    assert results["pooled"]["wf1"] == pytest.approx(f1_score(truth, guess, average="weighted"))
    assert results["pooled"]["mf1"] == pytest.approx(f1_score(truth, guess, average="macro"))
    by_seed = np.array([one["ua"] for one in results["folds"]]).reshape(2, 3)
    assert results["mean"]["ua"] == pytest.approx(by_seed.mean())
    assert results["std"]["ua"] == pytest.approx(by_seed.mean(axis=0).std(ddof=1))
    told = folder.read_rows("confusion.csv")
    counts = [[int(row[name]) for name in results["labels"]] for row in told]
    assert counts == confusion_matrix(truth, guess, labels=results["labels"]).tolist()
    assert [row["truth"] for row in told] == results["labels"]
    recalls = recall_score(truth, guess, labels=results["labels"], average=None)
    assert list(results["recall"].values()) == pytest.approx(recalls.tolist())
    f1 = f1_score(truth, guess, labels=results["labels"], average=None)
    assert list(results["f1"].values()) == pytest.approx(f1.tolist())
    of_seeds = by_seed.mean(axis=1)
    assert results["std_seeds"]["ua"] == pytest.approx(of_seeds.std(ddof=1))


def test_every_guess_has_the_highest_of_probabilities_that_sum_to_one(run: tuple[dict[str, Any], RunFolder]) -> None:
    results, folder = run
    part, names = folder.model("2", 1), results["labels"]
    for row in part.read_rows("predictions.csv"):
        probabilities = read_probabilities(part, names)[row["id"]]
        assert probabilities.sum() == pytest.approx(1, abs=1e-6)
        assert names[int(probabilities.argmax())] == row["guess"]


def test_the_table_has_a_row_for_each_model_and_five_for_all(run: tuple[dict[str, Any], RunFolder]) -> None:
    results, _ = run
    table = score_table(results)
    assert {len(row) for row in table} == {len(score_header(results))}
    titles = ["mean", "std over folds", "std over seeds", "pooled", "95% of pooled"]
    assert [row[0] for row in table[-5:]] == titles
    assert table[0][:2] == ["1", 1]
    assert table[-5][-3] == f"{100 * results['mean']['ua']:.2f}"


def test_a_denominator_stands_in_the_table_where_utterances_are_missing(run: tuple[dict[str, Any], RunFolder]) -> None:
    results = json.loads(json.dumps(run[0]))
    results["folds"][0]["test_of"] += 1
    assert [row[5] for row in score_table(results)[:2]] == ["24 of 25", 24]


def test_an_interval_over_few_speakers_is_noted(run: tuple[dict[str, Any], RunFolder]) -> None:
    assert run[0]["notes"] == ["the interval is over 6 speakers or dialogues: too few to say much"]


def test_a_single_fold_has_no_spread(run: tuple[dict[str, Any], RunFolder], trainable: Path, tmp_path: Path) -> None:
    folder = RunFolder(Path(shutil.copytree(run[1].path, tmp_path / "run")))
    described = folder.identity
    alone = collect_results(folder, reader_of(trainable), {**described, "folds": ["1"], "seeds": [1]})
    assert json.dumps(alone["std"]) == '{"wa": null, "ua": null, "wf1": null, "mf1": null}'
    assert [row[0] for row in score_table(alone)] == ["1", "mean", "pooled", "95% of pooled"]
    assert r"\pm" not in latex_row(alone)


def test_a_single_fold_with_two_seeds_has_a_spread_over_seeds(
    run: tuple[dict[str, Any], RunFolder], trainable: Path, tmp_path: Path
) -> None:
    folder = RunFolder(Path(shutil.copytree(run[1].path, tmp_path / "run")))
    alone = collect_results(folder, reader_of(trainable), {**folder.identity, "folds": ["1"]})
    by_seed = [one["ua"] for one in alone["folds"]]
    assert (alone["std"]["ua"], alone["std_seeds"]["ua"]) == (None, pytest.approx(np.std(by_seed, ddof=1)))
    (row,) = (row for row in score_table(alone) if row[0] == "std over seeds")
    assert row[-3] == f"{100 * np.std(by_seed, ddof=1):.2f}"
    assert f"\\pm$ {row[-3]} [" in latex_row(alone)


def test_what_training_took_is_told_apart_from_the_results(run: tuple[dict[str, Any], RunFolder]) -> None:
    results, folder = run
    seconds, peak_bytes = total_cost(folder, folder.identity)
    assert seconds > 0
    assert peak_bytes > 1e6
    assert not {"seconds", "peak_bytes"} & results["folds"][0].keys()
    assert results["folds"][0]["parameters"] > 100


def test_a_run_that_is_not_finished_has_no_results(run: tuple[dict[str, Any], RunFolder], trainable: Path) -> None:
    folder = run[1]
    described = {**folder.identity, "seeds": [1, 9]}
    with pytest.raises(MmerError, match=r"1-seed9/scores.json cannot be read .*; repeat the command of the run"):
        collect_results(folder, reader_of(trainable), described)


def test_the_cache_of_another_corpus_is_refused(run: tuple[dict[str, Any], RunFolder], toy: tuple[Path, Any]) -> None:
    with pytest.raises(MmerError, match="has no utterance u00 of this run"):
        collect_results(run[1], open_cache(toy[0]), run[1].identity)


def test_the_page_has_every_score_class_and_note_of_the_table(run: tuple[dict[str, Any], RunFolder]) -> None:
    results, folder = run
    page = (folder.path / "results.md").read_text()
    assert page.startswith("# concat on toy, protocol session\n\nStreams: audio voice, text words@4.\n")
    cells = [str(cell) for row in score_table(results) for cell in row if cell != ""]
    assert not [cell for cell in cells if f"| {cell} |" not in page]
    for name in results["labels"]:
        assert f"| {name} | {100 * results['recall'][name]:.2f} | {100 * results['f1'][name]:.2f} |" in page
    assert f"{definitions(CLASSIFICATION)}." in page
    assert [line for line in page.splitlines() if line.startswith("- ")] == [f"- {note}" for note in results["notes"]]


def test_a_latex_row_says_what_was_run_and_has_as_many_cells_as_the_header(
    run: tuple[dict[str, Any], RunFolder],
) -> None:
    results = run[0]
    row, header = latex_row(results), latex_header(CLASSIFICATION)
    assert row.startswith("concat & voice, words@4 & session & ")
    assert row.count(" & ") == header.count(" & ") == 6
    low, high = results["interval"]["wa"]
    assert f" [{100 * low:.2f}, {100 * high:.2f}]" in row
