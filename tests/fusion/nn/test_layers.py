import pytest
import torch
from torch import nn

from fusion.nn.layers import (
    Adapter,
    InputProjection,
    LayerMix,
    Pool,
    RowScores,
    masked_max,
    masked_mean,
    masked_statistics,
)

X = torch.tensor([[[1.0, -2.0], [3.0, -4.0], [9.0, 9.0]], [[5.0, 5.0], [7.0, 7.0], [8.0, 8.0]]])
MASK = torch.tensor([[True, True, False], [False, False, False]])


def test_pooling_takes_the_valid_rows_only() -> None:
    assert masked_mean(X, MASK)[0].tolist() == [2.0, -3.0]
    assert masked_max(X, MASK)[0].tolist() == [3.0, -2.0]
    assert masked_mean(X, MASK)[1].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_the_greatest_row_may_lie_far_below_0(dtype: torch.dtype) -> None:
    low = torch.tensor([[[-6e4], [-5e4], [0.0]]], dtype=dtype)
    assert masked_max(low, torch.tensor([[True, True, False]])).item() == low[0, 1].item()


@pytest.mark.parametrize("kind", ["mean", "max"])
def test_an_absent_modality_pools_to_its_own_vector(kind: str) -> None:
    learned, fixed = Pool(2, kind=kind, learned=True), Pool(2, kind=kind, learned=False)
    nn.init.constant_(learned.absent, 4.0)
    assert learned(X, MASK)[1].tolist() == [4.0, 4.0]
    assert fixed(X, MASK)[1].tolist() == [0.0, 0.0]
    assert [len(list(pool.parameters())) for pool in (learned, fixed)] == [1, 0]
    learned(X, MASK).sum().backward()
    assert learned.absent.grad is not None
    assert learned.absent.grad.tolist() == [1.0, 1.0]


def test_mean_and_deviation_are_those_of_the_valid_rows() -> None:
    random = torch.Generator().manual_seed(0)
    x, lengths = torch.randn(3, 7, 4, generator=random), (7, 3, 1)
    mask = torch.arange(7) < torch.tensor(lengths)[:, None]
    found = masked_statistics(x.masked_fill(~mask[..., None], float("nan")), mask)
    for row, values, length in zip(found, x, lengths, strict=True):
        deviation = values[:length].std(dim=0, correction=0).clamp(min=1e-4)
        assert torch.allclose(row, torch.cat([values[:length].mean(dim=0), deviation]), atol=1e-6)


def test_attentive_statistics_weigh_valid_rows_and_learn() -> None:
    torch.manual_seed(0)
    pool, x = Pool(4, kind="attention", learned=False), torch.randn(2, 5, 4)
    mask = torch.arange(5) < torch.tensor([5, 2])[:, None]
    assert isinstance(pool.scores, RowScores)
    shares = pool.scores(x, mask)
    assert torch.allclose(shares.sum(dim=1), torch.ones(2))
    assert shares[1, 2:].tolist() == [0.0, 0.0, 0.0]
    alone = pool(x[1:, :2], mask[1:, :2])
    found = pool(x.masked_fill(~mask[..., None], float("nan")), mask)
    assert torch.allclose(found[1:], alone, atol=1e-6)
    weighted = (x[1, :2] * shares[1, :2, None]).sum(dim=0)
    spread = ((x[1, :2] - weighted) ** 2 * shares[1, :2, None]).sum(dim=0).sqrt()
    assert torch.allclose(found[1], torch.cat([weighted, spread]), atol=1e-6)
    found.sum().backward()
    gradients = [parameter.grad for parameter in pool.parameters()]
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients)
    assert gradients[0] is not None
    assert gradients[0].abs().sum() > 0


def test_the_deviation_of_a_single_row_has_a_gradient() -> None:
    x = torch.ones(1, 1, 2, requires_grad=True)
    masked_statistics(x, torch.ones(1, 1, dtype=torch.bool)).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_pooling_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="pooling must be one of mean, max, meanstd, attention, got 'sum'"):
        Pool(2, kind="sum", learned=False)


def test_an_adapter_is_the_identity_at_step_0_and_as_large_as_specified() -> None:
    adapter, x = Adapter(768, 0.1).eval(), torch.randn(2, 3, 768)
    assert torch.equal(adapter(x), x)
    # half of the two adapters of docs/decisions.md#parameter-counts
    assert sum(parameter.numel() for parameter in adapter.parameters()) == 2 * 590_592 + 1_536
    nn.init.normal_(adapter.outer.weight)
    assert not torch.equal(adapter(x), x)


def test_layers_are_mixed_by_the_softmax_of_their_scores() -> None:
    mix, x = LayerMix(3), torch.randn(2, 4, 3, 5)
    torch.testing.assert_close(mix(x), x.mean(dim=2))
    mix.scores.data = torch.tensor([0.0, 100.0, 0.0])
    torch.testing.assert_close(mix(x), x[:, :, 1])


def test_a_front_projects_only_where_the_width_differs() -> None:
    plain = InputProjection((32,), dim=32, adapter=False, dropout=0.1)
    assert not list(plain.parameters())
    wide = InputProjection((3, 32), dim=8, adapter=True, dropout=0.1)
    assert wide(torch.randn(2, 5, 3, 32)).shape == (2, 5, 8)
    assert {name.split(".")[0] for name, _ in wide.named_parameters()} == {"mix", "project", "adapter"}
