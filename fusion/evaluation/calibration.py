"""Calibration: expected calibration error, and the temperature that is fitted on the development subset.

Guo et al., 2017, arXiv:1706.04599: the error is the mean difference of accuracy and confidence over bins of equal
width, weighted by their utterances; the temperature divides all logits and minimizes the cross entropy on held-out
utterances. A temperature changes no guess, so no other score depends on it.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from fusion.arrays import ClassIds

BINS = 15  # as in the paper
LEAST, GREATEST = 0.05, 20.0  # bounds of the temperature; a subset that is classified without an error has no optimum
MIN_PROBABILITY = 1e-30  # a probability of 0 has no logarithm


def calibration_error(probabilities: npt.NDArray[Any], truth: ClassIds, bins: int = BINS) -> float:
    """Computes the expected calibration error, in [0, 1].

    Args:
        probabilities: ``(n, classes)``.
        truth: class of each utterance, int64 ``(n,)``.
        bins: number of bins of equal width.

    Example:
        >>> calibration_error(np.array([[0.8, 0.2], [0.8, 0.2]]), np.array([0, 1]))
        0.3
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    index = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)  # a bin includes its upper end
    sums = np.bincount(index, weights=right - confidence, minlength=bins)
    return round(float(np.abs(sums).sum() / len(truth)), 12)


def fit_temperature(logits: npt.NDArray[Any], truth: ClassIds) -> float:
    """Computes the temperature with the least cross entropy, within `LEAST` and `GREATEST`.

    Args:
        logits: ``(n, classes)``.
        truth: class of each utterance, int64 ``(n,)``.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    logits = np.asarray(logits, dtype=np.float64)

    def cross_entropy(log_temperature: float) -> float:
        log_p = log_softmax(logits / np.exp(log_temperature), axis=1)
        return float(-log_p[np.arange(len(truth)), truth].mean())

    found = minimize_scalar(cross_entropy, bounds=(np.log(LEAST), np.log(GREATEST)), method="bounded")
    return float(np.exp(found.x))


def with_temperature(probabilities: npt.NDArray[Any], temperature: float) -> npt.NDArray[np.float64]:
    """Returns the probabilities of logits that are divided by a temperature, float64 ``(n, classes)``."""
    from scipy.special import softmax

    logits = np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), MIN_PROBABILITY))
    scaled: npt.NDArray[np.float64] = softmax(logits / temperature, axis=1)
    return scaled
