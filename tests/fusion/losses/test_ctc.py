import math
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fusion.losses.ctc import BLANK, ctc_loss, feasible


def valid(*lengths: int, rows: int) -> Tensor:
    return torch.arange(rows) < torch.tensor(lengths)[:, None]


def uniform(frames: int, targets: list[int], reduction: str = "mean") -> float:
    """The loss of one utterance where both symbols are equally likely."""
    symbols = torch.tensor([targets])
    mask = torch.ones(1, frames, dtype=torch.bool)
    every = torch.ones_like(symbols, dtype=torch.bool)
    return float(ctc_loss(torch.zeros(1, frames, 2), mask, symbols, every, reduction=reduction))


@pytest.mark.parametrize(
    ("frames", "targets", "reduction", "expected"),
    [
        (2, [1], "mean", 0.287682),
        (2, [1, 1], "mean", 0.0),
        (2, [1, 1], "sum", 0.0),
        (3, [1, 1], "sum", 2.079442),
        (3, [1, 1], "mean", 1.039721),
    ],
)
def test_closed_forms_of_the_specification(frames: int, targets: list[int], reduction: str, expected: float) -> None:
    assert uniform(frames, targets, reduction) == pytest.approx(expected, abs=1e-6)


def collapsed(path: tuple[int, ...]) -> list[int]:
    runs = [symbol for place, symbol in enumerate(path) if place == 0 or symbol != path[place - 1]]
    return [symbol for symbol in runs if symbol != BLANK]


@given(st.integers(1, 5), st.lists(st.integers(1, 2), max_size=4), st.integers(0, 99))
def test_the_loss_sums_over_every_path_that_spells_the_target(frames: int, targets: list[int], seed: int) -> None:
    logits = torch.randn(1, frames, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    probabilities = logits[0].softmax(dim=-1)
    likelihood = sum(
        math.prod(float(probabilities[frame, symbol]) for frame, symbol in enumerate(path))
        for path in product(range(3), repeat=frames)
        if collapsed(path) == targets
    )
    symbols = torch.tensor([targets], dtype=torch.int64).view(1, -1)
    every = torch.ones_like(symbols, dtype=torch.bool)
    assert bool(feasible(symbols, every, torch.tensor([frames]))) == (likelihood > 0 and bool(targets))
    expected = -math.log(likelihood) if likelihood and targets else 0.0
    loss = ctc_loss(logits, torch.ones(1, frames, dtype=torch.bool), symbols, every, reduction="sum")
    assert float(loss) == pytest.approx(expected, abs=1e-9)


def test_the_mean_is_that_of_the_feasible_utterances_each_divided_by_its_characters() -> None:
    logits = torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(0))
    mask = valid(6, 5, 2, 6, rows=6)
    targets = torch.tensor([[1, 2, 3], [2, 2, 0], [3, 3, 0], [4, 1, 1]])
    target_mask = valid(3, 2, 2, 0, rows=3)
    assert feasible(targets, target_mask, mask.sum(dim=1)).tolist() == [True, True, False, False]
    alone = [
        float(ctc_loss(logits[[row]], mask[[row]], targets[[row]], target_mask[[row]], reduction="sum"))
        for row in range(4)
    ]
    assert alone[2:] == [0, 0]
    assert float(ctc_loss(logits, mask, targets, target_mask)) == pytest.approx((alone[0] / 3 + alone[1] / 2) / 2)
    assert float(ctc_loss(logits, mask, targets, target_mask, reduction="sum")) == pytest.approx(sum(alone))


def test_padding_has_no_say_and_no_gradient() -> None:
    logits = torch.randn(2, 9, 5, generator=torch.Generator().manual_seed(0))
    targets, target_mask = torch.tensor([[1, 2, 2], [3, 1, 1]]), valid(3, 1, rows=3)
    short = ctc_loss(logits[:, :6], valid(6, 3, rows=6), targets, target_mask)
    logits[0, 6:], logits[1, 3:] = 1e3, -1e3
    logits.requires_grad_()
    noisy = torch.tensor([[1, 2, 2, 200], [3, 255, 0, 200]])
    loss = ctc_loss(logits, valid(6, 3, rows=9), noisy, valid(3, 1, rows=4))
    torch.testing.assert_close(loss, short)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert not gradient[~valid(6, 3, rows=9)].any()


@pytest.mark.parametrize(("frames", "characters"), [(0, 2), (4, 0), (0, 0)])
def test_a_batch_without_frames_or_without_characters_has_loss_zero_and_no_gradient(
    frames: int, characters: int
) -> None:
    logits = torch.zeros(2, frames, 3, requires_grad=True)
    targets = torch.ones(2, characters, dtype=torch.int64)
    loss = ctc_loss(logits, valid(frames, frames, rows=frames), targets, torch.ones_like(targets, dtype=torch.bool))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert float(loss.detach()) == 0
    assert not gradient.any()


def test_an_utterance_without_audio_drops_out() -> None:
    logits = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    targets = torch.ones(2, 2, dtype=torch.int64)
    every = torch.ones(2, 2, dtype=torch.bool)
    loss = ctc_loss(logits, valid(4, 0, rows=4), targets, every)
    torch.testing.assert_close(loss, ctc_loss(logits[:1], valid(4, rows=4), targets[:1], every[:1]))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient[0].any()
    assert not gradient[1].any()


def test_half_precision_is_computed_in_float32() -> None:
    logits = torch.randn(1, 6, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    targets, every = torch.tensor([[1, 2]]), torch.ones(1, 2, dtype=torch.bool)
    loss = ctc_loss(logits, valid(6, rows=6), targets, every)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, ctc_loss(logits.float(), valid(6, rows=6), targets, every))


def test_an_unknown_reduction_is_told_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="reduction must be one of mean, sum, got 'none'"):
        uniform(2, [1], "none")
