"""N-pair loss: closed forms, the formula written with loops, and whom it pairs."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor

from fusion.losses.contrastive import n_pair_loss, next_of_class

CORNERS = torch.eye(2)


def of_other_classes(labels: Tensor, others: Tensor) -> Tensor:
    return labels[:, None] != others


def test_one_negative_at_a_right_angle() -> None:
    loss = n_pair_loss(CORNERS, CORNERS, CORNERS, ~torch.eye(2, dtype=torch.bool))
    assert loss.item() == pytest.approx(0.313262, abs=1e-6)  # log(1 + 1 / e)


def test_two_negatives_at_a_right_angle() -> None:
    labels = torch.tensor([0, 0, 1, 1])
    views = CORNERS[labels]
    places, paired = next_of_class(labels)
    negative = of_other_classes(labels, labels) & paired[:, None]
    assert n_pair_loss(views, views[places], views, negative).item() == pytest.approx(0.551445, abs=1e-6)
    doubled = of_other_classes(torch.tensor([0, 1]), torch.tensor([0, 1, 0, 1]))
    loss = n_pair_loss(CORNERS, CORNERS, torch.cat([CORNERS, CORNERS]), doubled)
    assert loss.item() == pytest.approx(0.551445, abs=1e-6)


def test_a_batch_of_one_class_costs_nothing_and_has_no_gradient() -> None:
    anchors = torch.randn(3, 2, requires_grad=True)
    loss = n_pair_loss(anchors, anchors, anchors, torch.zeros(3, 3, dtype=torch.bool), tau=0.1)
    assert loss == 0
    assert not torch.autograd.grad(loss, anchors)[0].any()


def test_the_temperature_scales_the_scores() -> None:
    anchors = torch.randn(4, 3)
    negative = ~torch.eye(4, dtype=torch.bool)
    scaled = anchors / 0.1**0.5
    expected = n_pair_loss(scaled, scaled.flip(0), scaled, negative)
    torch.testing.assert_close(n_pair_loss(anchors, anchors.flip(0), anchors, negative, tau=0.1), expected)


@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 99))
def test_the_formula(batch: int, others: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    anchors, positives, rest = (torch.randn(n, 3, generator=random) for n in (batch, batch, others))
    negative = torch.rand(batch, others, generator=random) > 0.5
    terms = []
    for a, p, which in zip(anchors, positives, negative, strict=True):
        terms.append(math.log(1 + sum(math.exp(float(a @ n - a @ p)) for n in rest[which])))
    assert n_pair_loss(anchors, positives, rest, negative).item() == pytest.approx(sum(terms) / batch, rel=1e-4)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=8))
def test_the_positive_is_the_next_of_the_class_round_the_batch(labels: list[int]) -> None:
    places, paired = next_of_class(torch.tensor(labels))
    for i, label in enumerate(labels):
        after = [(i + step) % len(labels) for step in range(1, len(labels))]
        same = [j for j in after if labels[j] == label]
        assert bool(paired[i]) == bool(same)
        assert int(places[i]) == (same[0] if same else i)
