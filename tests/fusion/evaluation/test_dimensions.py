"""CCC, MAE and Pearson against numpy and scipy; their losses, their scale, their sums over clusters."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.stats import pearsonr
from torch.func import vmap

from cache.errors import MmerError
from fusion.evaluation.catalog import with_loss
from fusion.evaluation.dimensions import TargetScale, agreement, ccc_loss, mse_loss, value_moments
from fusion.evaluation.ratings import DIMENSIONS
from fusion.evaluation.statistics import RatedPredictions, bootstrap_interval, compare, pooled_scores

Values = npt.NDArray[np.float64]


def rated(count: int = 60) -> tuple[Values, Values]:
    random = np.random.default_rng(4)
    truth = random.uniform(1, 5, (count, 2)).round(1)
    return truth, 0.4 * truth + random.normal(1.5, 0.5, truth.shape)


def predictions(truth: Values, guess: Values) -> RatedPredictions:
    speakers = np.array([f"s{index % 6}" for index in range(len(truth))])
    ids = np.array([f"u{index}" for index in range(len(truth))])
    return RatedPredictions(ids=ids, truth=truth, guess=guess, clusters=speakers, classes=2)


def test_ccc_of_three_values_is_the_one_computed_by_hand() -> None:
    # means 2 and 3, variances 2/3 and 8/3, covariance 4/3: 2 * 4/3 / (2/3 + 8/3 + 1) = 8/13
    found = agreement(value_moments(np.array([[1.0], [2.0], [3.0]]), np.array([[1.0], [3.0], [5.0]])))
    np.testing.assert_allclose(found[0, 0], [8 / 13, 1.0, 1.0], rtol=1e-12)


def test_every_dimension_agrees_with_numpy_and_scipy_far_from_zero() -> None:
    truth, guess = (values + 1e6 for values in rated())
    found = agreement(value_moments(truth, guess))[0]
    for index in range(2):
        x, y = truth[:, index], guess[:, index]
        ccc = 2 * np.cov(x, y, bias=True)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
        expected = [ccc, np.abs(x - y).mean(), pearsonr(x, y).statistic]
        np.testing.assert_allclose(found[index], expected, rtol=1e-6)


def test_a_constant_guess_has_agreement_zero() -> None:
    truth, _ = rated()
    ccc, mae, pearson = agreement(value_moments(truth, np.full_like(truth, 3.0)))[0, 0]
    assert (ccc, pearson) == (pytest.approx(0), pytest.approx(0, abs=1e-6))
    assert mae == pytest.approx(np.abs(truth[:, 0] - 3).mean())


def test_the_loss_is_one_minus_the_mean_ccc_and_leaves_out_weightless_utterances() -> None:
    truth, guess = rated()
    expected = 1 - agreement(value_moments(truth, guess))[0, :, 0].mean()
    outputs, targets = torch.from_numpy(guess).float(), torch.from_numpy(truth).float()
    assert float(ccc_loss(outputs, targets)) == pytest.approx(expected, abs=1e-6)
    extra = torch.cat([outputs, torch.full((5, 2), 40.0)]), torch.cat([targets, torch.zeros(5, 2)])
    weights = torch.cat([torch.ones(60), torch.zeros(5)])
    assert float(ccc_loss(*extra, weights)) == pytest.approx(expected, abs=1e-6)
    assert float(mse_loss(*extra, weights)) == pytest.approx(float(mse_loss(outputs, targets)), abs=1e-6)
    assert float(mse_loss(outputs, targets)) == pytest.approx(float(torch.nn.functional.mse_loss(outputs, targets)))


def test_the_losses_of_a_stack_are_those_of_its_models() -> None:
    stacked, targets = torch.randn(3, 8, 2), torch.randn(8, 2)
    for name in ("ccc", "mse"):
        task = with_loss(DIMENSIONS, name)
        together = vmap(lambda outputs, task=task: task.loss(outputs, targets))(stacked)
        torch.testing.assert_close(together, torch.stack([task.loss(outputs, targets) for outputs in stacked]))
    with pytest.raises(ValueError, match="loss must be one of auto, ccc, mse for dimensions, got 'cross_entropy'"):
        with_loss(DIMENSIONS, "cross_entropy")


def test_a_scale_has_mean_zero_and_variance_one_and_leads_back() -> None:
    truth, _ = rated()
    scale = TargetScale.of(truth, ("valence", "activation"), "1")
    unit = scale.to_unit(truth)
    np.testing.assert_allclose([unit.mean(axis=0), unit.std(axis=0)], [[0, 0], [1, 1]], atol=1e-6)
    np.testing.assert_allclose(scale.to_corpus(unit), truth, rtol=1e-6)
    assert TargetScale(**{name: tuple(values) for name, values in scale.plain.items()}) == scale
    with pytest.raises(MmerError, match="fold 1: all 9 training utterances have activation 3; leave activation out"):
        TargetScale.of(np.array([[float(i), 3.0] for i in range(9)]), ("valence", "activation"), "1")


def test_scores_add_up_over_clusters_and_have_intervals_around_them() -> None:
    truth, guess = rated()
    found = predictions(truth, guess)
    pooled = pooled_scores(found)
    assert pooled == pytest.approx(DIMENSIONS.evaluate(truth, guess, 2))
    intervals = bootstrap_interval(found, resamples=200)
    assert intervals is not None
    for name, interval in intervals.items():
        assert interval is not None
        assert interval[0] < pooled[name] < interval[1]


def test_better_values_differ_from_worse_ones() -> None:
    truth, guess = rated()
    better = predictions(truth, (truth + guess) / 2)
    difference = compare(better, predictions(truth, guess))
    assert difference.difference["ccc"] > 0 > difference.difference["mae"]
    assert difference.p["ccc"] == pytest.approx(2 / 2**6)
