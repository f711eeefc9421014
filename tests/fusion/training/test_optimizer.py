import pytest
import torch
from torch import Tensor, nn

from fusion.training.checkpoint import optimizer_tensors, restore_optimizer
from fusion.training.optimizer import Adam

TORCH = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(size, generator=generator)) for size in ((5, 7), (7,), (2,))]


def groups(held: list[nn.Parameter]) -> list[dict[str, object]]:
    return [
        {"params": held[:1], "weight_decay": 0.3, "lr": 0.02},
        {"params": held[1:], "weight_decay": 0.0},
    ]


def set_gradients(held: list[nn.Parameter], step: int) -> None:
    """Sets the gradients of a step; the last parameter has one in every second step only."""
    generator = torch.Generator().manual_seed(step)
    for number, parameter in enumerate(held):
        gradient = torch.randn(parameter.shape, generator=generator)
        parameter.grad = None if number == 2 and step % 2 else gradient


def equal(ours: list[nn.Parameter], theirs: list[nn.Parameter]) -> bool:
    return all(map(torch.equal, ours, theirs))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", TORCH)
def test_every_step_has_the_bits_of_torch(name: str, fused: bool) -> None:
    ours, theirs = parameters(), parameters()
    optimizer = Adam(groups(ours), name=name, lr=0.01, fused=fused)
    reference = TORCH[name](groups(theirs), lr=0.01, fused=fused)
    for step in range(6):
        set_gradients(ours, step)
        set_gradients(theirs, step)
        optimizer.step()
        reference.step()
        assert equal(ours, theirs)


@pytest.mark.parametrize("name", TORCH)
def test_the_state_of_torch_is_continued_as_by_torch(name: str) -> None:
    theirs = parameters()
    reference = TORCH[name](groups(theirs), lr=0.01, fused=True)
    for step in range(3):
        set_gradients(theirs, step)
        reference.step()
    ours = [nn.Parameter(parameter.detach().clone()) for parameter in theirs]
    optimizer = Adam(groups(ours), name=name, lr=0.01, fused=True)
    states: dict[int, dict[str, Tensor]] = reference.state_dict()["state"]
    stored = {f"{index}.{part}": value.clone() for index, state in states.items() for part, value in state.items()}
    restore_optimizer(optimizer, stored)
    assert {key: value.tolist() for key, value in optimizer_tensors(optimizer).items()} == {
        key: value.tolist() for key, value in stored.items()
    }
    for step in range(3, 6):
        set_gradients(ours, step)
        set_gradients(theirs, step)
        optimizer.step()
        reference.step()
    assert equal(ours, theirs)


def test_gradients_are_removed() -> None:
    held = parameters()
    optimizer = Adam([{"params": held}], name="adam", lr=0.1, fused=True)
    set_gradients(held, 0)
    optimizer.zero_grad()
    assert [parameter.grad for parameter in held] == [None] * 3


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(ValueError, match="optimizer must be one of adamw, adam, got 'sgd'"):
        Adam([{"params": parameters()}], name="sgd", lr=0.1, fused=True)


def test_half_a_state_is_an_error() -> None:
    optimizer = Adam([{"params": parameters()}], name="adam", lr=0.1, fused=True)
    with pytest.raises(ValueError, match="parameter 0 lacks a part of its state"):
        restore_optimizer(optimizer, {"0.step": torch.tensor(1.0)})
