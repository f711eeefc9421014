"""Paired tests of two runs: McNemar's test of the accuracy, and the t-test over folds and seeds that papers print.

McNemar (1947, doi:10.1007/BF02295996) compares which utterances only one of the runs classifies correctly; the exact
form is a binomial test. The t-test (`scipy.stats.ttest_rel`) pairs the scores of each fold and seed. Both treat what
they pair as independent, which utterances of one speaker and folds with common training data are not: the clustered
test of `fusion.evaluation.statistics` is the more careful one (Dietterich, 1998, doi:10.1162/089976698300017197).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fusion.evaluation.statistics import ROUNDING


@dataclass(frozen=True, kw_only=True)
class McNemar:
    """The result of McNemar's test.

    Attributes:
        first_only: number of utterances that only the first run classifies correctly.
        second_only: number of utterances that only the second run classifies correctly.
        p: two-sided p-value of the exact test; 1 if no utterance distinguishes the runs.
    """

    first_only: int
    second_only: int
    p: float


def mcnemar(first_right: npt.NDArray[np.bool_], second_right: npt.NDArray[np.bool_]) -> McNemar:
    """Computes McNemar's exact test.

    Args:
        first_right: True where the first run is correct, bool ``(n,)``.
        second_right: the same for the second run, in the same order of utterances.

    Raises:
        ValueError: if the runs have different numbers of utterances.

    Example:
        >>> mcnemar(np.array([True, True, True, False]), np.array([True, False, False, False]))
        McNemar(first_only=2, second_only=0, p=0.5)
    """
    from scipy.stats import binomtest  # imported here, since it takes longer than most commands

    if first_right.shape != second_right.shape:
        raise ValueError(f"both runs must have the same utterances, got {len(first_right)} and {len(second_right)}")
    first, second = int((first_right & ~second_right).sum()), int((second_right & ~first_right).sum())
    p = float(binomtest(first, first + second).pvalue) if first + second else 1.0
    return McNemar(first_only=first, second_only=second, p=p)


def paired_t_test(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Computes the two-sided p-value of the paired t-test; None if the differences have no spread.

    Args:
        first: scores of the first run, one for each fold and seed.
        second: scores of the second run in the same order.

    Raises:
        ValueError: if the numbers of scores differ.

    Example:
        >>> round(paired_t_test([0.5, 0.6, 0.7], [0.4, 0.55, 0.55]), 4)
        0.0742
    """
    from scipy.stats import ttest_rel

    if len(first) != len(second):
        raise ValueError(f"both runs must have the same folds and seeds, got {len(first)} and {len(second)} scores")
    if len(first) < 2 or np.ptp(np.subtract(first, second)) <= ROUNDING:
        return None
    return float(ttest_rel(first, second).pvalue)
