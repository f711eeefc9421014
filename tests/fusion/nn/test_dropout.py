import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call, vmap

from fusion.nn.dropout import SITE, STEP, Dropout, seed_dropout, set_step


def dropout(rate: float = 0.3, *, seed: int = 0, step: int = 0, site: int = 1) -> Dropout:
    made = Dropout(rate).train()
    made.site = site
    made.seed.fill_(seed)
    made.step.fill_(step)
    return made


def dropped(x: Tensor, **where: int) -> Tensor:
    zero: Tensor = dropout(**where)(x) == 0
    return zero


def test_it_keeps_the_mean_and_drops_at_its_rate() -> None:
    for rate in (0.05, 0.1, 0.5, 0.9):
        kept = dropout(rate)(torch.ones(1000, 1000))
        assert float((kept == 0).float().mean()) == pytest.approx(rate, abs=2e-3)
        assert float(kept.mean()) == pytest.approx(1.0, abs=1e-2)
        assert len(kept.unique()) == 2


def test_eval_mode_and_a_rate_of_0_pass_everything() -> None:
    x = torch.randn(5, 7)
    assert dropout(0.5).eval()(x) is x
    assert dropout(0.0)(x) is x


def test_a_mask_follows_from_seed_step_and_site_alone() -> None:
    x = torch.ones(64, 64)
    torch.manual_seed(1)
    first = dropped(x, seed=3, step=5)
    torch.manual_seed(2)
    assert torch.equal(first, dropped(x, seed=3, step=5))
    for other in ({"seed": 4, "step": 5}, {"seed": 3, "step": 6}, {"seed": 3, "step": 5, "site": 2}):
        both = float((first & dropped(x, **other)).float().mean())
        assert both == pytest.approx(0.09, abs=0.02)  # as of independent masks


@given(st.floats(0.01, 0.9), st.integers(0, 1 << 40), st.integers(0, 1 << 40), st.integers(1, 60))
def test_a_mask_is_the_hash_of_its_positions(rate: float, seed: int, step: int, site: int) -> None:
    def lowbias32(x: int) -> int:
        x = (x ^ x >> 16) * 0x7FEB352D & 0xFFFFFFFF
        x = (x ^ x >> 15) * 0x846CA68B & 0xFFFFFFFF
        return x ^ x >> 16

    key = lowbias32((seed + STEP * step ^ SITE * site) & 0xFFFFFFFF)
    halves = [half for position in range(4) for half in divmod(lowbias32(position ^ key), 1 << 16)[::-1]]
    signed = [half - (half >> 15 << 16) for half in halves]  # the bits of a half as an integer with a sign
    share = np.float32(rate)
    expected = np.where(np.array(signed) >= np.rint(share * 65536 - 32768), 1 / (1 - share), np.float32(0))
    assert dropout(rate, seed=seed, step=step, site=site)(torch.ones(8)).numpy() == pytest.approx(expected, abs=0)


def test_neighbours_are_independent_of_each_other() -> None:
    kept = (dropout(0.5)(torch.ones(1_000_000)) > 0).float() - 0.5
    for distance in (1, 2, 3, 64, 768):
        assert abs(float((kept[:-distance] * kept[distance:]).mean()) * 4) < 5e-3


@given(st.lists(st.integers(0, 5), min_size=1, max_size=3), st.integers(0, 1 << 40), st.integers(0, 1 << 40))
def test_any_shape_any_seed_and_any_step_will_do(shape: list[int], seed: int, step: int) -> None:
    x = torch.ones(*shape)
    assert dropout(seed=seed, step=step)(x).shape == x.shape


def test_gradients_pass_where_elements_stay() -> None:
    x = torch.ones(50, requires_grad=True)
    kept = dropout(0.5)(x)
    kept.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, kept.detach())


def test_models_in_one_stack_get_the_masks_that_each_gets_alone() -> None:
    x, module = torch.ones(9, 11), dropout()
    alone = [dropout(rate, seed=seed, step=2) for rate, seed in ((0.1, 0), (0.5, 7), (0.5, 8))]
    names = [name for name, _ in module.named_buffers()]
    buffers = {name: torch.stack([one.get_buffer(name) for one in alone]) for name in names}

    def one(buffers: dict[str, Tensor]) -> Tensor:
        result: Tensor = functional_call(module, buffers, (x,))
        return result

    for together, single in zip(vmap(one)(buffers), alone, strict=True):
        assert torch.equal(together, single(x))


def test_every_dropout_of_a_head_gets_a_site_of_its_own() -> None:
    head = nn.Sequential(Dropout(0.5), nn.Linear(3, 3), nn.Sequential(Dropout(0.5)))
    seed_dropout(head, 4)
    set_step(head, 9)
    found = [(one.site, int(one.seed), int(one.step)) for one in head.modules() if isinstance(one, Dropout)]
    assert found == [(1, 4, 9), (2, 4, 9)]
    assert head.state_dict().keys() == {"1.weight", "1.bias"}


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_a_rate_is_a_share(rate: float) -> None:
    with pytest.raises(ValueError, match="dropout rate must lie in"):
        Dropout(rate)
