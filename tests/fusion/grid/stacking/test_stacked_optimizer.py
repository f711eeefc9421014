from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from fusion.grid.stacking.training import StackedAdam, clip_rows
from fusion.training.steps import build_optimizer

RATES, DECAYS, CLIPS = (1e-2, 1e-3, 3e-2), (0.0, 0.1, 0.5), (1.0, 0.0, 1e-3)
MATRIX = 12  # columns of the matrix that comes before a vector


class Toy(nn.Module):
    """A matrix that decays and a vector that does not."""

    def __init__(self, row: Tensor) -> None:
        super().__init__()
        self.matrix = nn.Parameter(row[:MATRIX].view(3, 4).clone())
        self.vector = nn.Parameter(row[MATRIX:].clone())


def start() -> Tensor:
    return torch.randn(3, 20, generator=torch.Generator().manual_seed(0))


def gradients(steps: int) -> list[Tensor]:
    """Of all sizes, one column always 0 as for padding, and one that is 0 now and then."""
    made = torch.randn(steps, 3, 20, generator=torch.Generator().manual_seed(1)) * torch.logspace(-8, 2, 20)
    made[..., 5] = 0
    made[::2, :, 6] = 0
    return list(made)


def alone(place: int, name: str, given: Sequence[Tensor], *, decays: bool = True) -> Tensor:
    toy = Toy(start()[place])
    optimizer = build_optimizer(toy, name=name, lr=RATES[place], weight_decay=DECAYS[place] if decays else 0.0)
    for gradient in given:
        toy.matrix.grad, toy.vector.grad = gradient[place, :MATRIX].view(3, 4), gradient[place, MATRIX:]
        optimizer.step()
    return torch.cat([toy.matrix.detach().flatten(), toy.vector.detach()])


@pytest.mark.parametrize("decays", [True, False])
@pytest.mark.parametrize("name", ["adamw", "adam"])
def test_each_row_moves_as_torch_moves_it_alone(name: str, decays: bool) -> None:
    rows, given = start(), gradients(50)
    optimizer = StackedAdam(rows, name=name, weight_decay=torch.tensor(DECAYS))
    for gradient in given:
        optimizer.step(gradient.clone(), torch.tensor(RATES), [slice(0, MATRIX)] if decays else [])
    for place in range(3):
        torch.testing.assert_close(rows[place], alone(place, name, given, decays=decays), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "adam"])
def test_those_that_stay_go_on_as_if_nothing_had_happened(name: str) -> None:
    rows, given, kept = start(), gradients(30), [2, 1]
    optimizer = StackedAdam(rows, name=name, weight_decay=torch.tensor(DECAYS))
    for gradient in given[:10]:
        optimizer.step(gradient.clone(), torch.tensor(RATES), [slice(0, MATRIX)])
    rows = rows[kept]
    optimizer.keep(rows, kept)
    for gradient in given[10:]:
        optimizer.step(gradient[kept], torch.tensor(RATES)[kept], [slice(0, MATRIX)])
    for row, place in zip(rows, kept, strict=True):
        torch.testing.assert_close(row, alone(place, name, given), atol=1e-6, rtol=1e-6)


def test_each_row_is_clipped_by_its_own_norm() -> None:
    gradient = torch.randn(3, 20, generator=torch.Generator().manual_seed(0))
    gradient[2] *= 1e-5
    expected = gradient.clone()
    for row, clip in zip(expected, CLIPS, strict=True):
        parameter = nn.Parameter(torch.zeros(20))
        parameter.grad = row
        if clip:
            nn.utils.clip_grad_norm_([parameter], clip)
    before = gradient.clone()
    clip_rows(gradient, torch.tensor(CLIPS))
    torch.testing.assert_close(gradient, expected, atol=0, rtol=1e-6)
    assert float(gradient[0].norm()) == pytest.approx(1, rel=1e-4)
    assert torch.equal(gradient[1:], before[1:])  # one without a limit, one below it


def test_a_row_that_is_no_number_leaves_the_others_alone() -> None:
    rows = start()
    optimizer = StackedAdam(rows, name="adamw", weight_decay=torch.tensor(DECAYS))
    given = gradients(5)
    for gradient in given:
        broken = gradient.clone()
        broken[1] = float("nan")
        clip_rows(broken, torch.zeros(3))
        optimizer.step(broken, torch.tensor(RATES), [slice(0, MATRIX)])
    assert not rows[1].isfinite().any()
    for place in (0, 2):
        torch.testing.assert_close(rows[place], alone(place, "adamw", given), atol=1e-6, rtol=1e-6)
