import time
import tracemalloc
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.errors import MmerError
from fusion.evaluation.metrics import METRICS, Scores, compute_scores
from fusion.evaluation.statistics import Predictions, bootstrap_interval, clusters_of, compare, pooled_scores, summarize
from tests.support.rosters import dyads, show


def predicted(
    *, right: float = 0.6, clusters: int = 24, each: int = 60, classes: int = 4, seed: int = 0
) -> Predictions:
    """Predictions of which a share is right, more of one cluster than of another."""
    generator = np.random.default_rng(seed)
    count = clusters * each
    truth = np.arange(count) % classes
    skill = np.repeat(generator.uniform(right - 0.2, right + 0.2, clusters), each)
    guess = np.where(generator.random(count) < skill, truth, (truth + 1) % classes)
    return Predictions(
        ids=np.array([f"u{place}" for place in range(count)]),
        truth=truth,
        guess=guess,
        clusters=np.array([f"s{place // each:02}" for place in range(count)]),
        classes=classes,
    )


def chosen(predictions: Predictions, places: npt.NDArray[np.int64]) -> Predictions:
    parts = {name: getattr(predictions, name)[places] for name in ("ids", "truth", "guess", "clusters")}
    return Predictions(**parts, classes=predictions.classes)


def scored(*values: float) -> list[Scores]:
    return [Scores(wa=value, ua=value / 2, wf1=value / 4, mf1=value / 8) for value in values]


def test_the_mean_is_over_seeds_of_the_mean_over_folds_and_std_over_folds() -> None:
    summary = summarize({1: scored(0.4, 0.8), 2: scored(0.6, 0.8)}, predicted())
    assert summary.mean == pytest.approx({"wa": 0.65, "ua": 0.325, "wf1": 0.1625, "mf1": 0.08125})
    assert summary.std == pytest.approx(
        {name: np.std([0.5, 0.8], ddof=1) / part for name, part in (("wa", 1), ("ua", 2), ("wf1", 4), ("mf1", 8))}
    )


def test_a_single_fold_has_no_spread() -> None:
    assert summarize({1: scored(0.4)}, predicted()).std == {"wa": None, "ua": None, "wf1": None, "mf1": None}


@pytest.mark.parametrize("scores", [{}, {1: []}, {1: scored(0.4), 2: scored(0.4, 0.5)}])
def test_seeds_without_the_same_folds_are_refused(scores: dict[int, list[Scores]]) -> None:
    with pytest.raises(ValueError, match="every seed must have the same folds"):
        summarize(scores, predicted())


def test_pooled_scores_are_those_of_all_predictions_together() -> None:
    run = predicted()
    expected = compute_scores(run.truth, run.guess, 4).as_dict()
    assert pooled_scores(run) == pytest.approx(expected)
    assert summarize({1: scored(0.1)}, run).pooled == pytest.approx(expected)


def test_the_interval_agrees_with_a_bootstrap_written_out() -> None:
    run = predicted(clusters=12)
    members = [np.flatnonzero(run.clusters == name) for name in np.unique(run.clusters)]
    generator = np.random.default_rng(1)
    draws = []
    for _ in range(200):
        places = np.concatenate([members[place] for place in generator.integers(0, 12, 12)])
        draws.append(compute_scores(run.truth[places], run.guess[places], 4).ua)
    interval = bootstrap_interval(run)["ua"]
    assert interval == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.02)


def test_clusters_widen_the_interval_where_speakers_differ() -> None:
    run = predicted(each=200)
    alone = replace(run, clusters=run.ids)

    def width(predictions: Predictions) -> float:
        interval = bootstrap_interval(predictions, resamples=500)["wa"]
        assert interval is not None
        return interval[1] - interval[0]

    assert width(run) > 2 * width(alone)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 100), st.integers(2, 12))
def test_an_interval_is_ordered_within_0_and_1_and_the_same_for_the_same_seed(seed: int, clusters: int) -> None:
    run = predicted(clusters=clusters, each=10, seed=seed)
    intervals = bootstrap_interval(run, resamples=100, seed=seed)
    assert intervals == bootstrap_interval(run, resamples=100, seed=seed)
    for interval in intervals.values():
        assert interval is not None
        assert 0 <= interval[0] <= interval[1] <= 1


def test_predictions_of_several_seeds_do_not_narrow_the_interval() -> None:
    run = predicted()
    thrice = chosen(run, np.tile(np.arange(len(run.ids)), 3))
    assert bootstrap_interval(thrice)["ua"] == pytest.approx(bootstrap_interval(run)["ua"])


def test_a_single_cluster_has_no_interval() -> None:
    run = predicted(clusters=1)
    nothing = {"wa": None, "ua": None, "wf1": None, "mf1": None}
    assert bootstrap_interval(run) == nothing
    found = compare(run, replace(run, guess=run.truth))
    assert found.interval == nothing
    # exchanging everything gives the same absolute difference
    assert found.p == {"wa": 1, "ua": 1, "wf1": 1, "mf1": 1}


@pytest.mark.parametrize("right", [True, False])
def test_predictions_without_any_spread_have_an_interval_of_no_width(right: bool) -> None:
    run = predicted(clusters=2)
    same = replace(run, guess=run.truth if right else (run.truth + 1) % 4)
    expected = float(right)
    assert bootstrap_interval(same) == dict.fromkeys(("wa", "ua", "wf1", "mf1"), (expected, expected))


def test_a_resample_without_a_class_has_the_ua_of_the_classes_it_contains() -> None:
    run = predicted(clusters=2, each=8)
    halves = replace(run, truth=np.repeat([0, 1], 8), guess=np.repeat([0, 0], 8))  # a class for each cluster
    assert bootstrap_interval(halves)["ua"] == (0, 1)


def test_the_batch_size_changes_neither_interval_nor_memory_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    run, other = predicted(clusters=16), predicted(clusters=16, seed=1)
    interval, found = bootstrap_interval(run), compare(run, other)
    # 7 resamples at once, and 5 in the last batch
    monkeypatch.setattr("fusion.evaluation.statistics.BATCH_VALUES", 16 * 7)
    for name, ends in bootstrap_interval(run).items():
        assert ends == pytest.approx(interval[name])
    assert compare(run, other).p == pytest.approx(found.p, abs=0.05)
    own = replace(run, clusters=run.ids)  # 1,440 clusters
    monkeypatch.setattr("fusion.evaluation.statistics.BATCH_VALUES", 1440 * 10)
    tracemalloc.start()
    bootstrap_interval(own)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000  # all resamples at once would take 23 MB for the indices alone


def test_two_thousand_draws_of_a_corpus_take_well_under_a_second() -> None:
    run = predicted(clusters=280, each=9, classes=7)  # the test part of MELD
    started = time.process_time()
    bootstrap_interval(run)
    assert time.process_time() - started < 1.0


def test_a_run_does_not_differ_from_itself() -> None:
    run = predicted()
    same = compare(run, chosen(run, np.random.default_rng(0).permutation(len(run.ids))))
    assert same.difference == {"wa": 0, "ua": 0, "wf1": 0, "mf1": 0}
    assert same.interval == {"wa": (0, 0), "ua": (0, 0), "wf1": (0, 0), "mf1": (0, 0)}
    assert same.p == {"wa": 1, "ua": 1, "wf1": 1, "mf1": 1}


@pytest.mark.parametrize("clusters", [8, 24])
def test_a_better_run_is_better_beyond_chance(clusters: int) -> None:
    first, second = predicted(right=0.8, clusters=clusters), predicted(right=0.4, clusters=clusters, seed=1)
    found = compare(first, second)
    expected = pooled_scores(first)["ua"] - pooled_scores(second)["ua"]
    assert found.difference["ua"] == pytest.approx(expected)
    interval = found.interval["ua"]
    assert interval is not None
    assert 0 < interval[0] < expected < interval[1]
    assert found.p["ua"] < 0.03
    back = compare(second, first)
    assert back.difference["ua"] == pytest.approx(-expected)
    assert back.p["ua"] == pytest.approx(found.p["ua"])


def test_few_clusters_are_exchanged_in_every_way() -> None:
    run = predicted(clusters=3, each=8)
    right, wrong = replace(run, guess=run.truth), replace(run, guess=(run.truth + 1) % 4)
    assert compare(right, wrong).p == dict.fromkeys(METRICS, 2 / 8)  # all kept, and all exchanged


def test_exchanges_that_tie_but_for_rounding_count_as_ties() -> None:
    run = predicted(clusters=10, each=7, classes=3)
    first = np.where(np.arange(70) % 7 < 3, run.truth, (run.truth + 1) % 3)
    second = np.where(np.arange(70) % 7 < 2, run.truth, (run.truth + 1) % 3)  # one more error in every cluster
    found = compare(replace(run, guess=first), replace(run, guess=second))
    assert found.p["wa"] == 2 / 2**10


def test_a_run_of_three_seeds_compares_with_a_run_of_one() -> None:
    first, second = predicted(right=0.75), predicted(right=0.5, seed=1)
    thrice = chosen(first, np.tile(np.arange(len(first.ids)), 3))
    many, one = compare(thrice, second), compare(first, second)
    assert many.difference == pytest.approx(one.difference)
    assert many.p == pytest.approx(one.p)


def test_runs_on_other_utterances_or_labels_are_not_compared() -> None:
    run = predicted()
    with pytest.raises(MmerError, match=r"different utterances: 2 are in only one of them \(first: u0\)"):
        compare(run, chosen(run, np.arange(2, len(run.ids))))
    with pytest.raises(MmerError, match="have different labels or speakers"):
        compare(run, replace(run, truth=(run.truth + 1) % 4))


def test_columns_of_unequal_length_are_refused() -> None:
    run = predicted()
    with pytest.raises(ValueError, match=r"equally long and not empty, got \[3, 1440\]"):
        replace(run, guess=run.guess[:3])


def test_speakers_cluster_and_dialogues_do_in_meld() -> None:
    assert clusters_of(dyads(), "iemocap")[0] == "Ses01F"
    assert clusters_of(show(), "meld")[0] == "train_dia0"
    assert clusters_of([replace(dyads()[0], speaker="")], "iemocap").tolist() == ["utterance Ses01_d0_0"]
