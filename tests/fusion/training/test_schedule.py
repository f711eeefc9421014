import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR

from fusion.training.config import SCHEDULES, Schedule


def rates(shape: str, *, warmup_steps: int = 0, steps: int = 8) -> list[float]:
    schedule = Schedule(lr=0.8, shape=shape, warmup_steps=warmup_steps, steps=steps)
    return [schedule.rate(step) for step in range(steps)]


def test_the_rate_rises_in_a_line_and_stays() -> None:
    assert rates("constant", warmup_steps=4, steps=6) == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8])
    assert rates("constant") == [0.8] * 8


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_the_rate_falls_as_by_torch(shape: str) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.8)
    reference = (
        LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=8)
        if shape == "linear"
        else CosineAnnealingLR(optimizer, T_max=8)
    )
    expected = []
    for _ in range(8):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()
    assert rates(shape) == pytest.approx(expected)


@given(shape=st.sampled_from(sorted(SCHEDULES)), steps=st.integers(1, 200), warmup=st.floats(0, 0.99))
def test_no_step_is_taken_at_no_rate_or_beyond_the_greatest(shape: str, steps: int, warmup: float) -> None:
    warmup_steps = round(warmup * steps)
    rising = rates(shape, warmup_steps=warmup_steps, steps=steps)
    assert all(0 < rate <= 0.8 for rate in rising)
    assert rising[max(0, warmup_steps - 1)] == pytest.approx(0.8)
    assert rising[:warmup_steps] == sorted(rising[:warmup_steps])
    assert rising[warmup_steps:] == sorted(rising[warmup_steps:], reverse=True)
