"""Inter-class contrastive learning: values by hand, and against the formula written with loops."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor

from fusion.losses.contrastive import supervised_contrastive_loss

CORNERS = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
PAIRS = torch.tensor([0, 0, 1, 1])


def by_loops(features: Tensor, labels: list[int], temperature: float) -> float:
    directions = [(one / one.norm()).tolist() for one in features]
    scores = [
        [sum(a * b for a, b in zip(one, two, strict=True)) / temperature for two in directions] for one in directions
    ]
    losses = []
    for i, mine in enumerate(labels):
        positives = [j for j, other in enumerate(labels) if other == mine and j != i]
        below = sum(math.exp(scores[i][j]) for j in range(len(labels)) if j != i)
        if positives:
            losses.append(-sum(scores[i][p] - math.log(below) for p in positives) / len(positives))
    return sum(losses) / len(losses) if losses else 0.0


@pytest.mark.parametrize(("temperature", "expected"), [(1.0, 0.551445), (0.5, 0.239545)])
def test_two_pairs_at_right_angles_have_the_closed_form(temperature: float, expected: float) -> None:
    loss = supervised_contrastive_loss(CORNERS, PAIRS, temperature=temperature)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("count", [1, 4])
def test_without_a_pair_the_loss_and_its_gradient_are_0(count: int) -> None:
    features = CORNERS[:count].clone().requires_grad_()
    loss = supervised_contrastive_loss(features, torch.arange(count), temperature=0.07)
    torch.autograd.backward(loss)
    assert loss.item() == 0
    assert features.grad is not None
    assert not features.grad.any()


def test_lengths_of_vectors_do_not_matter() -> None:
    scaled = CORNERS * torch.tensor([[10.0], [10.0], [1e4], [1e-3]])
    first, second = (supervised_contrastive_loss(one, PAIRS, temperature=0.07) for one in (CORNERS, scaled))
    torch.testing.assert_close(first, second)


@given(st.lists(st.integers(0, 3), min_size=2, max_size=9), st.sampled_from([0.07, 0.3, 1.0]), st.integers(0, 99))
def test_any_labels_agree_with_the_formula(labels: list[int], temperature: float, seed: int) -> None:
    features = torch.randn(len(labels), 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    loss = supervised_contrastive_loss(features, torch.tensor(labels), temperature=temperature)
    assert loss.item() == pytest.approx(by_loops(features, labels, temperature), abs=1e-9)


def test_utterances_without_a_pair_push_but_are_not_counted() -> None:
    features, labels = torch.randn(5, 6, dtype=torch.float64), [0, 0, 1, 1, 2]
    with_single = supervised_contrastive_loss(features, torch.tensor(labels), temperature=0.3)
    without = supervised_contrastive_loss(features[:4], torch.tensor(labels[:4]), temperature=0.3)
    assert with_single > without
    assert with_single.item() == pytest.approx(by_loops(features, labels, 0.3))


def test_a_small_temperature_stays_finite() -> None:
    assert torch.isfinite(supervised_contrastive_loss(CORNERS, torch.tensor([0, 1, 0, 1]), temperature=1e-3))
