"""Contrastive predictive coding: the floor, the formula written with loops, and what may be drawn."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor
from torch.nn import functional

from fusion.losses.cpc import cpc_loss, draw_anchors, draw_negatives, info_nce

LENGTHS = st.lists(st.integers(0, 9), min_size=1, max_size=4).map(torch.tensor)


def numbers(rows: int, columns: int, seed: int) -> Tensor:
    return torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed))


def loss_of(encoded: Tensor, mask: Tensor, predicted: Tensor, *, seed: int = 0, negatives: int = 8) -> Tensor:
    steps, anchors = predicted.shape[2], predicted.shape[1]
    places, drawn = draw_anchors(mask.sum(dim=1), numbers(len(mask), mask.shape[1], seed), steps=steps, anchors=anchors)
    uniform = numbers(len(mask), negatives, seed + 1)
    return cpc_loss(predicted, encoded, mask, positions=places, drawn=drawn, uniform=uniform)


def example(lengths: list[int], *, steps: int = 2, anchors: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return torch.randn(*mask.shape, 4), mask, torch.randn(len(lengths), anchors, steps, 4)


def test_equal_scores_cost_the_logarithm_of_the_number_of_candidates() -> None:
    encoded, mask, predicted = example([40, 30], steps=12, anchors=32)
    loss = loss_of(encoded, mask, torch.zeros_like(predicted), negatives=128)
    assert loss.item() == pytest.approx(4.859812, abs=1e-5)


def test_info_nce_is_the_cross_entropy_of_the_positive() -> None:
    scores = torch.randn(5, 7)
    expected = functional.cross_entropy(scores, torch.zeros(5, dtype=torch.int64), reduction="none")
    torch.testing.assert_close(info_nce(scores[:, 0], scores[:, 1:]), expected)


@given(LENGTHS, st.integers(1, 3), st.integers(1, 6), st.integers(0, 99))
def test_anchors_have_all_their_steps_and_are_drawn_once(lengths: Tensor, steps: int, anchors: int, seed: int) -> None:
    places, drawn = draw_anchors(lengths, numbers(len(lengths), 9, seed), steps=steps, anchors=anchors)
    for length, chosen, counted in zip(lengths.tolist(), places, drawn, strict=True):
        found = chosen[counted].tolist()
        assert len(set(found)) == len(found) == (min(anchors, length - steps) if length >= steps + 2 else 0)
        assert all(place + steps < length for place in found)


@given(LENGTHS, st.integers(1, 12), st.integers(0, 99))
def test_negatives_are_half_of_the_utterance_and_half_of_others(lengths: Tensor, negatives: int, seed: int) -> None:
    total, starts = int(lengths.sum()), (lengths.cumsum(0) - lengths).tolist()
    first, own, rank = draw_negatives(lengths, numbers(len(lengths), negatives, seed))
    for place, (length, start) in enumerate(zip(lengths.tolist(), starts, strict=True)):
        if length < 2:
            continue
        alone = total == length
        assert own[place].sum() == (negatives if alone else negatives // 2)
        within = (first[place] >= start) & (first[place] < start + length)
        assert within.tolist() == own[place].tolist()
        assert (rank[place][own[place]] < length - 1).all()
        assert ((first[place] >= 0) & (first[place] < total)).all()


def test_every_other_frame_may_be_drawn() -> None:
    lengths = torch.tensor([3, 4, 2])
    uniform = torch.cat([torch.arange(32) / 32] * 2).repeat(3, 1)
    first, own, _ = draw_negatives(lengths, uniform)
    assert set(first[1][~own[1]].tolist()) == {0, 1, 2, 7, 8}
    assert set(first[1][own[1]].tolist()) == {3, 4, 5}  # one fewer than there are: one is to be told


def test_the_loss_is_the_mean_over_anchors_and_steps() -> None:
    lengths = [7, 5, 3]  # the last is too short for two steps
    encoded, mask, predicted = example(lengths)
    places, drawn = draw_anchors(mask.sum(dim=1), numbers(3, 7, 0), steps=2, anchors=3)
    first, own, rank = draw_negatives(mask.sum(dim=1), numbers(3, 8, 1))
    frames, starts, terms = encoded[mask], [0, 7, 12], []
    for i in range(3):
        for a in drawn[i].nonzero().flatten().tolist():
            for k in (1, 2):
                target = int(places[i, a]) + k
                passed = own[i] & (rank[i] >= target)
                at = (first[i] + passed).tolist()
                assert starts[i] + target not in at
                scores = [float(predicted[i, a, k - 1] @ frames[place]) for place in [starts[i] + target, *at]]
                terms.append(math.log(sum(math.exp(score) for score in scores)) - scores[0])
    assert len(terms) == 2 * (3 + 3)
    assert loss_of(encoded, mask, predicted).item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_padding_is_never_a_candidate() -> None:
    encoded, mask, predicted = example([9, 4, 6])
    spoilt = encoded.masked_fill(~mask[..., None], 1e3)
    assert loss_of(spoilt, mask, predicted) == loss_of(encoded, mask, predicted)


@pytest.mark.parametrize("lengths", [[3, 2], [3, 0], [1]])
def test_without_an_anchor_the_loss_is_nought_and_so_is_its_gradient(lengths: list[int]) -> None:
    encoded, mask, predicted = example(lengths)
    predicted = predicted[:, : mask.shape[1]].requires_grad_()
    loss = loss_of(encoded, mask, predicted)
    assert loss == 0
    assert not torch.autograd.grad(loss, predicted)[0].any()
