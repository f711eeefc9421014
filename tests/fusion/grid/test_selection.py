from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.errors import MmerError
from fusion.grid.combinations import ModelScores
from fusion.grid.selection import (
    fold_winners,
    hide_unselected_tests,
    nested_scores,
    rank,
    select_winners,
    shows_unselected_tests,
    single_best,
    tied_with_best,
    tied_with_winners,
)
from tests.support.scored import COMBINATIONS, DEV, diverged, grid, opened, ranked, result

# By combination, fold and seed.
SEEDED = np.array([[[0.5, 0.7], [0.4, 0.2], [0.6, 0.6]], [[0.1, 0.3], [0.9, 0.8], [0.2, 0.4]]])
TENTHS = st.none() | st.integers(0, 9).map(lambda tenths: tenths / 10)


def seeded(scores: np.ndarray = SEEDED) -> list[ModelScores]:
    return [result(place, str(fold), float(score), seed=seed) for (place, fold, seed), score in np.ndenumerate(scores)]


def test_the_mean_over_seeds_of_the_mean_over_folds_and_the_spread_over_folds() -> None:
    first = rank(COMBINATIONS[:2], seeded(), "wf1")[0]
    assert first.combination == 0
    assert first.dev is not None
    assert first.dev.mean["wa"] == pytest.approx(SEEDED[0].mean(axis=0).mean())
    assert first.dev.std["wa"] == pytest.approx(SEEDED[0].mean(axis=1).std(ddof=1))
    assert first.dev.mean["loss"] == pytest.approx(1 - SEEDED[0].mean())
    assert (first.models, first.expected, first.failures, first.seconds) == (6, 6, 0, 9.0)


def test_a_single_fold_has_no_spread() -> None:
    dev = rank(COMBINATIONS[:2], seeded(SEEDED[:, :1]), "wf1")[0].dev
    assert dev is not None
    assert set(dev.std.values()) == {None}


def test_incomplete_combinations_come_after_complete_ones_and_failed_ones_last() -> None:
    order = ranked(grid())
    assert [one.combination for one in order] == [1, 2, 0, 3, 4]  # 3 has the best mean, over half of the folds
    assert [one.rank for one in order] == [1, 2, 3, None, None]
    assert [(one.models, one.expected, one.failures) for one in order[-2:]] == [(1, 2, 1), (0, 2, 2)]
    assert order[-1].failure == "the loss total is nan in batch 7 of epoch 4"
    assert order[-1].dev is None


def test_a_model_that_is_not_there_makes_a_combination_incomplete() -> None:
    lacking = [one for one in grid() if (one.combination, one.fold) != (1, "2")]
    order = ranked(lacking)
    assert [one.combination for one in order] == [2, 0, 3, 1, 4]
    assert (order[3].models, order[3].failures, order[3].complete) == (1, 0, False)


def test_folds_that_nothing_was_trained_on_make_all_incomplete() -> None:
    order = rank(COMBINATIONS, grid(), "wf1", folds=("1", "2", "3"))
    assert {one.expected for one in order} == {3}
    assert single_best(order) is None


@pytest.mark.parametrize(("monitor", "first"), [("wf1", 1), ("ua", 1), ("mf1", 1), ("loss", 1)])
def test_the_monitor_says_whether_more_is_better(monitor: str, first: int) -> None:
    results = grid({0: (0.5, 0.5), 1: (0.6, 0.6), 2: (0.4, 0.4)})
    assert [one.combination for one in ranked(results, monitor)] == [1, 0, 2]
    assert select_winners(results, monitor) == {"1": first, "2": first}


def test_the_loss_alone_may_decide() -> None:
    results = [replace(one, dev={**one.dev, "loss": one.dev["wa"]}) for one in grid({0: (0.5, 0.5), 1: (0.6, 0.6)})]
    assert [one.combination for one in ranked(results, "loss")] == [0, 1]
    assert select_winners(results, "loss") == {"1": 0, "2": 0}


def test_a_score_that_is_no_number_is_the_worst() -> None:
    results = grid({0: (0.5, 0.5), 1: (0.6, 0.6), 2: (0.4, 0.4)})
    lost = [replace(one, dev={**one.dev, "loss": float("nan")}) if one.combination == 1 else one for one in results]
    assert [one.combination for one in ranked(lost, "loss")] == [0, 2, 1]
    assert select_winners(lost, "loss") == {"1": 0, "2": 0}


def test_a_score_that_an_older_version_did_not_write_is_the_worst_and_has_no_mean() -> None:
    results = grid({0: (0.5, 0.5), 1: (0.6, 0.6), 2: (0.4, 0.4)})
    older = [
        replace(one, dev={name: value for name, value in one.dev.items() if name != "mf1"})
        if (one.combination, one.fold) == (1, "2")
        else one
        for one in results
    ]
    order = ranked(older, "mf1")
    assert [one.combination for one in order] == [0, 2, 1]
    assert [list(one.dev.mean) for one in order if one.dev] == [
        ["wa", "ua", "wf1", "mf1", "loss"],
        ["wa", "ua", "wf1", "mf1", "loss"],
        ["wa", "ua", "wf1", "loss"],
    ]
    assert select_winners(older, "mf1") == {"1": 1, "2": 0}
    assert select_winners(older, "wf1") == {"1": 1, "2": 1}


def with_losses(scores: list[ModelScores], losses: Mapping[int, float]) -> list[ModelScores]:
    return [replace(model, dev={**model.dev, "loss": losses[model.combination]}) for model in scores]


def test_of_equal_scores_the_lower_loss_on_dev_wins_and_ties_are_listed() -> None:
    results = with_losses(grid({0: (0.5, 0.5), 1: (0.5, 0.5), 2: (0.5, 0.4)}), {0: 0.9, 1: 0.8, 2: 0.1})
    order = ranked(results)
    assert [row.combination for row in order] == [1, 0, 2]
    assert [row.combination for row in tied_with_best(order, "wf1")] == [1, 0]
    won = select_winners(results, "wf1")
    assert won == {"1": 2, "2": 1}
    assert tied_with_winners(results, won, "wf1") == {"1": [0, 1, 2], "2": [0, 1]}


def test_losses_that_differ_by_rounding_alone_keep_the_order_of_the_grid() -> None:
    results = with_losses(grid({0: (0.5, 0.5), 1: (0.5, 0.5)}), {0: 0.8 + 1e-8, 1: 0.8})
    assert [row.combination for row in ranked(results)] == [0, 1]
    assert select_winners(results, "wf1") == {"1": 0, "2": 0}


def test_a_best_score_of_its_own_is_no_tie() -> None:
    results = grid({0: (0.5, 0.5), 1: (0.6, 0.6)})
    assert tied_with_best(ranked(results), "wf1") == []
    assert tied_with_winners(results, select_winners(results, "wf1"), "wf1") == {}


def test_ties_keep_the_order_of_the_grid_whatever_that_of_the_results() -> None:
    results = grid({0: (0.1, 0.7), 1: (0.7, 0.1), 2: (0.4, 0.4)})
    for told in (results, results[::-1]):
        assert [one.combination for one in ranked(told)] == [0, 1, 2]
    assert select_winners(grid({0: (0.5, 0.5), 1: (0.5, 0.6)})[::-1], "wf1") == {"2": 1, "1": 0}


@given(st.lists(st.lists(TENTHS, min_size=3, max_size=3), min_size=1, max_size=6))
def test_each_fold_is_won_by_the_best_of_those_that_succeeded_on_it(scores: list[list[float | None]]) -> None:
    folds = ("a", "b", "c")
    results = grid(dict(enumerate(scores)), folds)
    columns = [[score for score in column if score is not None] for column in zip(*scores, strict=True)]
    if not all(columns):
        with pytest.raises(MmerError, match="no combination was trained on fold"):
            select_winners(results, "wa")
        return
    won = select_winners(results, "wa")
    assert list(won) == list(folds)
    for place, (fold, column) in enumerate(zip(folds, columns, strict=True)):
        assert scores[won[fold]][place] == max(column)
        assert all(row[place] != max(column) for row in scores[: won[fold]])


def test_a_winner_succeeded_with_every_seed() -> None:
    results = [result(0, "1", 0.5), result(0, "1", 0.5, seed=1), result(1, "1", 0.9), diverged(1, "1", seed=1)]
    assert select_winners(results, "wf1") == {"1": 0}
    with pytest.raises(MmerError, match=r"no combination was trained on fold 1 .*\(first: the loss total is nan"):
        select_winners(results[2:], "wf1")


def test_a_fold_without_results_has_no_winner() -> None:
    with pytest.raises(MmerError, match=r"on fold 3 with every seed \(no model is trained\)"):
        select_winners(grid(), "wf1", folds=("1", "3"))


def test_the_single_best_is_complete() -> None:
    best = single_best(ranked(grid()))
    assert best is not None
    assert best.combination == 1
    assert single_best(ranked(grid({0: (0.5, None)}))) is None
    assert single_best([]) is None


def test_the_nested_score_is_that_of_each_winner_on_its_own_fold() -> None:
    won = select_winners(grid(), "wf1", folds=("1", "2"))
    assert won == {"1": 3, "2": 0}  # 3 failed on the other fold, which has no say here
    score = nested_scores(opened(grid(), won), won)
    assert list(score.mean) == ["wa", "ua", "wf1", "mf1"]
    assert score.mean["wa"] == pytest.approx(np.mean([0.8, 0.5]))
    assert score.mean["ua"] == pytest.approx(np.mean([0.4, 0.25]))
    assert score.std["wa"] == pytest.approx(np.std([0.8, 0.5], ddof=1))
    assert nested_scores(opened(grid(), won), {"1": 3}).std["wa"] is None


def test_a_winner_has_the_mean_over_seeds_of_its_fold() -> None:
    results = [replace(one, test=one.dev) for one in seeded()]
    told = fold_winners(results, select_winners(results, "wf1"))
    assert [(one.fold, one.combination) for one in told] == [("0", 0), ("1", 1), ("2", 0)]
    assert [one.dev["wa"] for one in told] == pytest.approx([0.6, 0.85, 0.6])
    assert nested_scores(results, select_winners(results, "wf1")).mean["wa"] == pytest.approx(np.mean([0.6, 0.85, 0.6]))


def test_a_winner_whose_test_is_closed_for_one_seed_has_no_test() -> None:
    results = [replace(one, test=one.dev if one.seed else None) for one in seeded()]
    won = select_winners(results, "wf1")
    assert [one.test for one in fold_winners(results, won)] == [None] * 3
    with pytest.raises(ValueError, match="not scored on fold 0, 1, 2"):
        nested_scores(results, won)


def test_the_test_of_a_combination_needs_all_its_parts_open() -> None:
    won = {"1": 1, "2": 0}
    assert [one.test for one in ranked(opened(grid(), won))] == [None] * 5
    every = {one.combination: one.test for one in ranked(opened(grid()))}
    assert [place for place in every if every[place] is None] == [3, 4]
    assert every[1] is not None
    assert every[1].mean["wa"] == pytest.approx(np.mean([0.6, 0.45]))


def test_tests_that_another_grid_opened_can_be_closed() -> None:
    won = {"1": 1, "2": 0}
    results = opened(grid())
    assert shows_unselected_tests(results, won)
    closed = hide_unselected_tests(results, won)
    assert closed == opened(grid(), won)
    assert not shows_unselected_tests(closed, won)
    assert len([one for one in closed if one.test]) == len(won) < len(DEV)
