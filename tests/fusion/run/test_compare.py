import csv
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from cache.errors import MmerError
from fusion.evaluation.metrics import METRICS
from fusion.evaluation.paired import mcnemar
from fusion.evaluation.statistics import Predictions, compare
from fusion.experiment.request import ExperimentRequest
from fusion.run.compare import RunComparison, compare_runs
from fusion.run.folder import PREDICTIONS, RUN
from fusion.run.train import fuse_runs, train_run
from tests.support.runs import QUICK, reader_of, write_cache

SEEDS = (1, 2)


def trained(cache: Path, out: Path, fusion: str = "audio", **asked: object) -> Path:
    """Trains a quick run and returns its folder."""
    request = ExperimentRequest(fusion=fusion, **{"fields": {**QUICK, "epochs": 1}, "seeds": (0,), **asked})  # type: ignore[arg-type]
    return train_run(request.experiment(reader_of(cache)), reader_of(cache), out=out).folder


@pytest.fixture(scope="module")
def runs(trainable: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of two heads with one and with two seeds, and their sum."""
    folder = tmp_path_factory.mktemp("runs")
    made = {head: trained(trainable, folder / head, head) for head in ("audio", "text")}
    made |= {f"{head}2": trained(trainable, folder / f"{head}2", head, seeds=SEEDS) for head in ("audio", "text")}
    made["sum"] = fuse_runs([made["audio"], made["text"]], reader_of(trainable), out=folder / "sum").folder
    return made


def rows_of(run: Path) -> dict[tuple[str, str], dict[str, str]]:
    """Returns the rows of all predictions, by model and utterance."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for path in sorted(run.glob(f"*/{PREDICTIONS}")):
        with path.open(newline="") as file:
            found |= {(path.parent.name, row["id"]): row for row in csv.DictReader(file)}
    return found


def written(run: Path) -> Mapping[str, dict[str, float]]:
    results = json.loads((run / "results.json").read_text())
    return {"pooled": results["pooled"]}


def predictions_of(run: Path, cache: Path) -> Predictions:
    """Reads the predictions of a run without the code that is tested."""
    classes = list(json.loads((run / RUN).read_text())["decides"]["labels"])
    speakers = {utterance.id: utterance.speaker for utterance in reader_of(cache).utterances}
    rows = rows_of(run)
    return Predictions(
        ids=np.array([row["id"] for row in rows.values()]),
        truth=np.array([classes.index(row["label"]) for row in rows.values()]),
        guess=np.array([classes.index(row["guess"]) for row in rows.values()]),
        clusters=np.array([speakers[row["id"]] for row in rows.values()]),
        classes=len(classes),
    )


def test_a_comparison_has_the_pooled_scores_their_difference_and_a_clustered_test(
    runs: dict[str, Path], trainable: Path
) -> None:
    found = compare_runs([runs["audio"], runs["text"]])
    (pair,) = found.pairs
    assert found.reference.scores == pytest.approx(written(runs["audio"])["pooled"])
    assert pair.run.scores == pytest.approx(written(runs["text"])["pooled"])
    expected = compare(predictions_of(runs["text"], trainable), predictions_of(runs["audio"], trainable))
    assert pair.difference == expected
    assert pair.difference.difference == pytest.approx(
        {name: pair.run.scores[name] - found.reference.scores[name] for name in METRICS}
    )


def test_mcnemar_counts_the_utterances_that_only_one_run_has_right(runs: dict[str, Path]) -> None:
    (pair,) = compare_runs([runs["audio"], runs["text"]]).pairs
    first, second = (rows_of(runs[name]) for name in ("audio", "text"))
    right = [np.array([rows[key]["label"] == rows[key]["guess"] for key in first]) for rows in (first, second)]
    assert pair.mcnemar == mcnemar(right[0], right[1])
    assert pair.mcnemar.first_only + pair.mcnemar.second_only > 0


@pytest.mark.parametrize("ending", ["", "2"], ids=["one seed", "two seeds"])
def test_the_t_test_pairs_the_scores_of_every_fold_and_seed(runs: dict[str, Path], ending: str) -> None:
    first, second = runs[f"audio{ending}"], runs[f"text{ending}"]
    (pair,) = compare_runs([first, second]).pairs
    folds = [json.loads((run / "results.json").read_text())["folds"] for run in (first, second)]
    by_model = [{(fold["fold"], fold["seed"]): fold["ua"] for fold in run} for run in folds]
    assert by_model[0].keys() == by_model[1].keys()
    assert len(by_model[0]) == 3 * (len(SEEDS) if ending else 1)
    expected = stats.ttest_rel(*([scores[key] for key in by_model[0]] for scores in by_model)).pvalue
    assert pair.t_test["ua"] == pytest.approx(expected)


def test_with_several_seeds_mcnemar_takes_the_mean_probability(runs: dict[str, Path]) -> None:
    found = compare_runs([runs["audio2"], runs["text2"]])
    right = []
    for name in ("audio2", "text2"):
        summed: dict[str, dict[str, float]] = {}
        labels = {}
        for (_, utterance), row in rows_of(runs[name]).items():
            labels[utterance] = row["label"]
            totals = summed.setdefault(utterance, {})
            for column, value in row.items():
                if column.startswith("p_"):
                    totals[column[2:]] = totals.get(column[2:], 0.0) + float(value)
        right.append(
            np.array([max(summed[u], key=lambda label: summed[u][label]) == labels[u] for u in sorted(summed)])
        )
    assert found.pairs[0].mcnemar == mcnemar(right[0], right[1])
    assert any("mean probability over the seeds" in note for note in found.notes)


def test_runs_of_other_seeds_have_no_t_test_and_say_so(runs: dict[str, Path]) -> None:
    found = compare_runs([runs["audio"], runs["text2"]])
    assert set(found.pairs[0].t_test.values()) == {None}
    assert f"no t-test: {runs['audio']} and {runs['text2']} have different folds or seeds" in found.notes


def test_a_run_against_its_copy_has_no_difference(runs: dict[str, Path], tmp_path: Path) -> None:
    from shutil import copytree

    copy = Path(copytree(runs["audio"], tmp_path / "copy"))
    (pair,) = compare_runs([runs["audio"], copy]).pairs
    assert set(pair.difference.difference.values()) == {0.0}
    assert set(pair.difference.p.values()) == {1.0}
    assert set(pair.t_test.values()) == {None}
    assert pair.mcnemar is not None
    assert (pair.mcnemar.first_only, pair.mcnemar.second_only, pair.mcnemar.p) == (0, 0, 1.0)


def test_several_runs_are_compared_with_the_first(runs: dict[str, Path]) -> None:
    found = compare_runs([runs["audio"], runs["text"], runs["sum"]])
    assert [pair.run.fusion for pair in found.pairs] == ["text", "score"]
    assert found.json["reference"] == str(runs["audio"])
    assert [row["fusion"] for row in found.json["runs"]] == ["audio", "text", "score"]
    assert json.loads(json.dumps(found.json)) == found.json
    assert any("not corrected" in note for note in found.notes)
    first = found.json["comparisons"][0]
    assert list(first) == ["run", "difference", "interval", "p_permutation", "p_t_test", "mcnemar"]


def test_the_table_has_a_row_for_each_score_in_points(runs: dict[str, Path]) -> None:
    found = compare_runs([runs["audio"], runs["text"]])
    header, rows = found.table(found.pairs[0])
    assert list(header[:4]) == ["score", str(runs["audio"]), str(runs["text"]), "difference"]
    assert [row[0] for row in rows] == ["WA", "UA", "W-F1", "M-F1"]
    for row, name in zip(rows, METRICS, strict=True):
        assert row[3] == f"{100 * found.pairs[0].difference.difference[name]:+.2f}"
        assert row[5] == f"{found.pairs[0].difference.p[name]:.4f}"


def starred(found: RunComparison, p: float) -> list[bool]:
    """Returns the stars of the LaTeX row of a run whose p-values are replaced by one value."""
    from dataclasses import replace

    pair = found.pairs[0]
    changed = replace(pair, difference=replace(pair.difference, p=dict.fromkeys(METRICS, p)))
    row = replace(found, pairs=(changed,)).latex.splitlines()[1]
    return ["$^{*}$" in cell for cell in row.split("&")[3:]]


def test_latex_has_a_star_where_the_permutation_test_is_below_5_percent(runs: dict[str, Path]) -> None:
    found = compare_runs([runs["audio"], runs["text"]])
    reference, row, legend = found.latex.splitlines()
    assert reference.startswith("audio (audio) & voice & session & ")
    assert reference.endswith(r" \\")
    assert "*" not in reference
    assert row.count("$^{*}$") == sum(p < 0.05 for p in found.pairs[0].difference.p.values())
    assert legend.startswith("% $^{*}$: p < 0.05 against ")
    assert starred(found, 0.049) == [True] * 4
    assert starred(found, 0.05) == [False] * 4


def test_six_speakers_allow_no_p_value_below_2_of_64(runs: dict[str, Path]) -> None:
    found = compare_runs([runs["audio"], runs["text"]])
    assert "6 speakers (dialogues in MELD)" in found.notes[0]
    assert found.notes[0].endswith("no p-value is below 0.0312")
    assert min(found.pairs[0].difference.p.values()) >= 2 / 2**6


def test_runs_that_cannot_be_compared_are_refused_with_what_differs(
    runs: dict[str, Path], trainable: Path, tmp_path: Path
) -> None:
    audio = runs["audio"]
    some = trained(trainable, tmp_path / "some", only={"session": ("1", "2")})
    message = f"{audio} and {some} have different test utterances .24 only in {audio}, such as u48"
    with pytest.raises(MmerError, match=message):
        compare_runs([audio, some])
    with pytest.raises(MmerError, match=f"24 only in {audio}, such as u48"):
        compare_runs([some, audio])
    labels = trained(trainable, tmp_path / "labels", labels="loud=angry+happy,low=sad+calm")
    with pytest.raises(MmerError, match=r"different label sets .*; loud=angry\+happy,low=sad\+calm.; only runs"):
        compare_runs([audio, labels])
    with pytest.raises(MmerError, match="needs two or more finished runs, got 1"):
        compare_runs([audio])
    with pytest.raises(MmerError, match="is given twice"):
        compare_runs([audio, runs["text"], audio])
    with pytest.raises(MmerError, match="is not a run folder, it does not exist"):
        compare_runs([audio, tmp_path / "nowhere"])


def test_other_labels_of_an_utterance_are_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    from dataclasses import replace

    from tests.support.heads import samples
    from tests.support.runs import COUNT, utterances

    named = utterances(samples(COUNT))
    named[0] = replace(named[0], label=next(u.label for u in named if u.label != named[0].label))
    other = trained(write_cache(tmp_path / "other.h5", utterances=named, roles=["audio"]), tmp_path / "run")
    with pytest.raises(MmerError, match="have different labels of u00 "):
        compare_runs([runs["audio"], other])


def test_a_cache_that_has_moved_is_named_with_the_option(trainable: Path, tmp_path: Path) -> None:
    from shutil import copy

    moved = Path(copy(trainable, tmp_path / "before.h5"))
    pair = [trained(moved, tmp_path / head, head) for head in ("audio", "text")]
    moved.rename(tmp_path / "after.h5")
    with pytest.raises(MmerError, match=r"before\.h5, the cache of .*audio, is not found; pass it as --cache FILE"):
        compare_runs(pair)
    assert compare_runs(pair, cache=tmp_path / "after.h5").pairs
