import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fusion.evaluation.paired import mcnemar, paired_t_test


def right(first_only: int, second_only: int, both: int = 5, neither: int = 3) -> tuple[np.ndarray, np.ndarray]:
    counts = (first_only, second_only, both, neither)
    columns = (np.repeat(values, counts) for values in ([True, False, True, False], [False, True, True, False]))
    first, second = columns
    return first, second


def test_mcnemar_counts_what_only_one_run_has_right() -> None:
    found = mcnemar(*right(10, 2))
    assert (found.first_only, found.second_only) == (10, 2)
    # 2 * P(at most 2 of 12 fair coins)
    assert found.p == pytest.approx(2 * (1 + 12 + 66) / 2**12)


@given(st.integers(0, 30), st.integers(0, 30))
def test_mcnemar_is_the_two_sided_binomial_test_and_symmetric(first_only: int, second_only: int) -> None:
    found = mcnemar(*right(first_only, second_only))
    total = first_only + second_only
    tail = sum(math.comb(total, count) for count in range(min(first_only, second_only) + 1)) / 2**total
    assert found.p == pytest.approx(min(1.0, 2 * tail))
    assert mcnemar(*right(second_only, first_only)).p == pytest.approx(found.p)


def test_runs_that_agree_everywhere_have_p_1() -> None:
    assert mcnemar(*right(0, 0)).p == 1.0


def test_mcnemar_needs_the_same_utterances() -> None:
    with pytest.raises(ValueError, match="same utterances, got 3 and 2"):
        mcnemar(np.ones(3, bool), np.ones(2, bool))


def test_the_t_test_is_that_of_the_differences() -> None:
    first, second = [0.70, 0.65, 0.72, 0.68, 0.75], [0.66, 0.66, 0.69, 0.61, 0.70]
    differences = np.subtract(first, second)
    statistic = differences.mean() / (differences.std(ddof=1) / math.sqrt(5))
    assert paired_t_test(first, second) == pytest.approx(2 * stats.t.sf(abs(statistic), df=4))


@pytest.mark.parametrize(("first", "second"), [([0.5], [0.4]), ([0.5, 0.6], [0.4, 0.5]), ([0.5, 0.6], [0.5, 0.6])])
def test_differences_without_spread_have_no_t_test(first: list[float], second: list[float]) -> None:
    assert paired_t_test(first, second) is None


def test_the_t_test_needs_the_same_folds_and_seeds() -> None:
    with pytest.raises(ValueError, match="same folds and seeds, got 2 and 1 scores"):
        paired_t_test([0.1, 0.2], [0.1])
