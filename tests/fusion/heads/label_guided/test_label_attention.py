import math

import pytest
import torch

from fusion.heads.label_guided.attention import attention_gap, attention_row_gap, label_loss


def test_the_label_loss_has_its_floor_at_a_perfect_cosine() -> None:
    guide = torch.tensor([[[1.0, -1.0, -1.0, -1.0], [1.0, -1.0, -1.0, -1.0], [9.0, 9.0, 9.0, -9.0]]])
    mask = torch.tensor([[True, True, False]])
    loss = label_loss(guide, mask, torch.tensor([0])).item()
    assert loss == pytest.approx(0.340753, abs=1e-6)
    assert loss == pytest.approx(math.log(1 + 3 * math.exp(-2)), abs=1e-6)


def test_utterances_without_a_row_do_not_count() -> None:
    guide = torch.tensor([[[1.0, -1.0, -1.0, -1.0]], [[0.0, 5.0, 0.0, 0.0]]])
    loss = label_loss(guide, torch.tensor([[True], [False]]), torch.tensor([0, 0]))
    assert loss.item() == pytest.approx(0.340753, abs=1e-6)
    assert label_loss(guide, torch.zeros(2, 1).bool(), torch.tensor([0, 0])).item() == 0


def test_the_gap_is_the_mean_square_over_valid_pairs() -> None:
    guided, learned = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.5, 0.5]]])
    assert attention_gap(guided, learned, torch.ones(1, 1, 2).bool()).item() == 0.25
    assert attention_gap(guided, learned * 3, torch.tensor([[[True, False]]])).item() == 0.25


def test_every_pair_of_a_batch_weighs_the_same() -> None:
    guided = torch.tensor([[[2.0, 2.0]], [[1.0, 7.0]]])
    pairs = torch.tensor([[[True, True]], [[True, False]]])
    assert attention_gap(guided, torch.zeros(2, 1, 2), pairs).item() == pytest.approx((4 + 4 + 1) / 3)


def test_the_gap_of_rows_sums_over_frames_and_averages_over_tokens() -> None:
    guided = torch.tensor([[[0.9, 0.1, 0.0], [0.5, 0.5, 0.0], [7.0, 7.0, 7.0]]])
    learned = torch.tensor([[[0.4, 0.6, 9.0], [0.5, 0.5, 9.0], [0.0, 0.0, 0.0]]])
    pairs = torch.tensor([[[True, True, False], [True, True, False], [False, False, False]]])
    assert attention_row_gap(guided, learned, pairs).item() == pytest.approx((0.25 + 0.25) / 2)
