import math
from dataclasses import replace

import pytest

from fusion.grid.report.scale import plot_data
from tests.support.scored import grid, ranked


def test_complete_combinations_are_shown_the_best_first_in_percent() -> None:
    shown = plot_data(ranked(grid()), "wf1")
    assert [one.combination for one in shown.ranked] == [1, 2, 0]
    assert shown.scores == pytest.approx((62.5, 59, 55))
    assert shown.spreads == pytest.approx((10.6066, 1.41421, 7.07107), rel=1e-4)
    assert shown.left_out == 2


def test_a_loss_is_no_percentage_and_less_of_it_is_better() -> None:
    shown = plot_data(ranked(grid(), "loss"), "loss")
    assert shown.scores == pytest.approx((0.375, 0.41, 0.45))
    assert shown.label == "mean dev loss (lower is better)"


def test_a_score_that_is_not_finite_is_left_out() -> None:
    results = [
        replace(one, dev={**one.dev, "loss": math.inf}) if one.combination == 1 else one
        for one in grid({0: (0.5, 0.5), 1: (0.6, 0.6)})
    ]
    shown = plot_data(ranked(results, "loss"), "loss")
    assert ([one.combination for one in shown.ranked], shown.left_out) == ([0], 1)
    assert shown.title("by lr") == "dev loss by lr, 1 combination, 1 failed left out"


def test_a_single_fold_has_no_spread() -> None:
    assert plot_data(ranked(grid({0: (0.5,)}, ("1",))), "ua").spreads == (0.0,)


def test_a_score_is_called_by_its_title_with_its_unit_and_direction() -> None:
    assert plot_data(ranked(grid()), "mf1").label == "mean dev M-F1 (%)"
    assert plot_data(ranked(grid()), "loss").label == "mean dev loss (lower is better)"
