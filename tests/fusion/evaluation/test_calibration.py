"""Calibration error by hand, and temperatures against a search."""

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from fusion.evaluation.calibration import calibration_error, fit_temperature, with_temperature


def test_the_error_is_the_one_computed_by_hand() -> None:
    # bins of 0.5: one utterance of confidence 0.5 (right), three of 0.9, 0.9 and 0.6 of which one is right
    probabilities = np.array([[0.5, 0.5], [0.9, 0.1], [0.1, 0.9], [0.6, 0.4]])
    found = calibration_error(probabilities, np.array([0, 0, 0, 1]), bins=2)
    assert found == pytest.approx(1 / 4 * abs(1 - 0.5) + 3 / 4 * abs(1 / 3 - 2.4 / 3))


def test_a_temperature_undoes_that_of_the_logits_and_has_the_least_cross_entropy() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(4000, 3))
    truth = np.array([random.choice(3, p=row) for row in softmax(logits, axis=1)])
    temperature = fit_temperature(logits * 4, truth)
    assert temperature == pytest.approx(4, rel=0.15)

    def cross_entropy(value: float) -> float:
        return float(-log_softmax(logits * 4 / value, axis=1)[np.arange(4000), truth].mean())

    assert cross_entropy(temperature) <= min(cross_entropy(value) for value in np.geomspace(0.1, 19, 200)) + 1e-7


def test_scaled_probabilities_are_those_of_the_scaled_logits_and_keep_the_guess() -> None:
    logits = np.random.default_rng(1).normal(size=(50, 4)) * 3
    found = with_temperature(softmax(logits, axis=1), 2.5)
    np.testing.assert_allclose(found, softmax(logits / 2.5, axis=1), rtol=1e-9)
    assert (found.argmax(axis=1) == logits.argmax(axis=1)).all()
    assert with_temperature(np.array([[1.0, 0.0]]), 2.0)[0, 1] == pytest.approx(0, abs=1e-12)
