"""Losses under autocast are those without it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fusion.heads.label_guided.attention import attention_gap, attention_row_gap, label_loss
from fusion.losses.contrastive import n_pair_loss, supervised_contrastive_loss
from fusion.losses.cpc import cpc_loss
from fusion.losses.ctc import ctc_loss

LABELS = torch.arange(32) % 4
MASK = torch.arange(20) < torch.arange(20)[:, None].clamp(min=15)  # (20 utterances, 20 rows)
PAIRS = torch.ones(20, 20, 8, dtype=torch.bool)
PLACES, DRAWN = torch.arange(3).expand(20, 3), torch.ones(20, 3, dtype=torch.bool)
UNIFORM = torch.rand(20, 16, generator=torch.Generator().manual_seed(1))
SYMBOLS = torch.randint(1, 8, (20, 5), generator=torch.Generator().manual_seed(2))

# A loss of one tensor -> the shape of that tensor.
LOSSES: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, ...]]] = {
    "icl": (lambda x: supervised_contrastive_loss(x, LABELS, temperature=0.07), (32, 64)),
    "ecl": (lambda x: n_pair_loss(x, x.roll(4, 0), x, LABELS[:, None] != LABELS, tau=1.0), (32, 8)),
    "cpc": (
        lambda x: cpc_loss(
            x[:, :3, None].expand(-1, -1, 2, -1), x, MASK, positions=PLACES, drawn=DRAWN, uniform=UNIFORM
        ),
        (20, 20, 8),
    ),
    "ctc": (lambda x: ctc_loss(x, MASK, SYMBOLS, torch.ones_like(SYMBOLS, dtype=torch.bool)), (20, 20, 8)),
    "l_g": (lambda x: label_loss(x, MASK, LABELS[:20]), (20, 20, 8)),
    "l_c": (lambda x: attention_gap(x, x.roll(1, 0), PAIRS), (20, 20, 8)),
    "l_c by rows": (lambda x: attention_row_gap(x, x.roll(1, 0), PAIRS), (20, 20, 8)),
}


def gradient(loss: Tensor, given: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(loss, given)
    return found.float()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_computed_in_float32_whatever_it_is_given(name: str, dtype: torch.dtype) -> None:
    loss, shape = LOSSES[name]
    given = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    exact = given.detach().float().requires_grad_()
    with torch.autocast("cpu", dtype):
        found = loss(given)
    assert found.dtype == torch.float32
    assert torch.equal(found, loss(exact))
    torch.testing.assert_close(gradient(found, given), gradient(loss(exact), exact), atol=1e-3, rtol=1e-2)


def test_double_precision_stays() -> None:
    assert supervised_contrastive_loss(torch.eye(32).double(), LABELS, temperature=1.0).dtype == torch.float64
