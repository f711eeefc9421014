from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fusion.heads.rescmfa import EXPANSION, KERNEL, GlobalAware, LocalGate, SlotGate, gated_channels

DIM = 4


def valid(rows: int, *lengths: int) -> Tensor:
    return torch.arange(rows) < torch.tensor(lengths)[:, None]


def randomized(gate: nn.Module) -> nn.Module:
    """The gate with spatial weights that matter, double."""
    generator = torch.Generator().manual_seed(1)
    for parameter in gate.parameters():
        nn.init.normal_(parameter, generator=generator)
    return gate.double()


def rows(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def slot_gate(slots: Sequence[int] = (6, 9), activation: str = "identity") -> nn.Module:
    return randomized(SlotGate(slots, activation=activation))


def test_the_block_has_the_printed_sizes_and_parameters() -> None:
    with torch.device("meta"):
        block = GlobalAware(768, SlotGate([128, 1500]))
    expand, project = block.expand, block.project
    assert (expand.in_features, expand.out_features) == (768, 3072)
    assert (project.in_features, project.out_features, block.gate_norm.normalized_shape) == (1536, 768, (1536,))
    spatial = sum(parameter.numel() for parameter in block.gate.parameters())
    assert spatial == 1628**2 + 1628 == 2_652_012
    assert sum(parameter.numel() for parameter in block.parameters()) - spatial == 3_547_392


@pytest.mark.parametrize("local", [False, True])
def test_with_spatial_weights_at_0_and_bias_1_the_block_adds_the_projected_first_half(local: bool) -> None:
    gate = LocalGate(gated_channels(DIM)) if local else SlotGate([5, 7])
    nn.init.zeros_(gate.convolution.weight if isinstance(gate, LocalGate) else gate.weight)
    block = GlobalAware(DIM, gate).double()
    x, masks = rows(2, 8, DIM), [valid(3, 3, 1), valid(5, 2, 5)]
    half = functional.gelu(block.expand(block.norm(x)))[..., : EXPANSION // 2 * DIM]
    torch.testing.assert_close(block(x, masks), x + block.project(half))
    block.residual = False
    torch.testing.assert_close(block(x, masks), block.project(half))


def test_a_gate_starts_near_1() -> None:
    x, masks = rows(1, 30, 8).float(), [valid(10, 10), valid(20, 20)]
    for gate in (SlotGate([10, 20]), LocalGate(8)):
        torch.testing.assert_close(gate(x, masks), torch.ones_like(x), rtol=0, atol=5e-3)
        assert bool((gate(x, masks) != 1).any())


def test_the_slot_gate_is_the_whole_projection_over_zero_filled_slots() -> None:
    gate = slot_gate()
    x, masks = rows(2, 3 + 5, 4), [valid(3, 3, 2), valid(5, 0, 5)]
    filled = torch.zeros(2, 15, 4, dtype=torch.float64)
    filled[:, :3], filled[:, 6:11] = x[:, :3] * masks[0][..., None], x[:, 3:] * masks[1][..., None]
    assert isinstance(gate, SlotGate)
    expected = gate.weight @ filled + gate.bias[:, None]
    torch.testing.assert_close(gate(x, masks), torch.cat([expected[:, :3], expected[:, 6:11]], dim=1))


def test_one_stream_alone_fills_its_slots() -> None:
    gate = slot_gate([9])
    x = rows(1, 4, 4)
    assert isinstance(gate, SlotGate)
    torch.testing.assert_close(gate(x, [valid(4, 4)]), gate.weight[:4, :4] @ x + gate.bias[:4, None])


@pytest.mark.parametrize("activation", ["identity", "tanh"])
def test_rows_beyond_the_slots_get_gate_1_and_are_not_seen(activation: str) -> None:
    gate = slot_gate(activation=activation)
    x, masks = rows(1, 8 + 10, 4), [valid(8, 8), valid(10, 10)]
    inside = [*range(6), *range(8, 17)]
    given = gate(x, masks)
    torch.testing.assert_close(given[:, [6, 7, 17]], torch.ones(1, 3, 4, dtype=torch.float64))
    torch.testing.assert_close(given[:, inside], gate(x[:, inside], [valid(6, 6), valid(9, 9)]))


def test_tanh_bounds_the_gate() -> None:
    x, masks = rows(1, 8, 4), [valid(3, 3), valid(5, 5)]
    torch.testing.assert_close(slot_gate(activation="tanh")(x, masks), slot_gate()(x, masks).tanh())


def changed_rows(gate: nn.Module) -> list[int]:
    """The rows whose gate the last audio frame reaches, of 10 tokens padded to 12 and 50 frames padded to 53."""
    x, masks = rows(1, 65, 4), [valid(12, 10), valid(53, 50)]
    other = x.clone()
    other[0, 61] += 1
    reached = (gate(x, masks) != gate(other, masks)).any(dim=-1)[0] & torch.cat(masks, dim=1)[0]
    return [row for row, changed in enumerate(reached.tolist()) if changed]


def test_the_dense_gate_reaches_from_the_last_frame_to_the_first_token() -> None:
    assert changed_rows(slot_gate([12, 60])) == [*range(10), *range(12, 62)]


def test_the_convolution_reaches_15_rows() -> None:
    assert KERNEL == 31
    assert changed_rows(randomized(LocalGate(4))) == list(range(61 - 15, 62))


def test_the_convolution_runs_over_the_packed_rows_of_both_streams() -> None:
    gate = randomized(LocalGate(4))
    assert isinstance(gate, LocalGate)
    x, masks = rows(2, 12, 4), [valid(4, 3, 0), valid(8, 8, 6)]
    given = gate(x, masks)
    for row, kept in enumerate(torch.cat(masks, dim=1)):
        expected = gate.convolution(x[row, kept].T[None])[0].T
        torch.testing.assert_close(given[row, kept], expected)


@pytest.mark.parametrize("gate", [slot_gate([40, 90]), randomized(LocalGate(8))])
def test_padding_is_not_seen(gate: nn.Module) -> None:
    x = rows(1, 4 + 6, 8)
    alone = gate(x, [valid(4, 4), valid(6, 6)])
    noise = torch.full((1, 20, 8), 1e3, dtype=torch.float64)
    padded = torch.cat([x[:, :4], noise, x[:, 4:], noise, noise, noise], dim=1)
    given = gate(padded, [valid(24, 4), valid(66, 6)])
    torch.testing.assert_close(torch.cat([given[:, :4], given[:, 24:30]], dim=1), alone, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("gate", "mixed"), [(SlotGate([6, 9]), 15), (LocalGate(8), KERNEL)])
def test_spatial_weights_start_within_a_thousandth_of_the_rows_they_mix(gate: nn.Module, mixed: int) -> None:
    weight, bias = (parameter for _, parameter in sorted(gate.named_parameters(), reverse=True))
    assert 0.5e-3 / mixed < weight.abs().max() <= 1e-3 / mixed
    assert torch.equal(bias, torch.ones_like(bias))
