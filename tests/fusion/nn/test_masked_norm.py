import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from fusion.nn.layers import MaskedBatchNorm


def ragged(lengths: list[int], *, padding: int = 0, noise: float = 0.0) -> tuple[Tensor, Tensor]:
    rows = torch.randn(len(lengths), 8, 5, generator=torch.Generator().manual_seed(1)) * 3 + 1
    rows = nn.functional.pad(rows, (0, 0, 0, padding))
    mask = torch.arange(8 + padding) < torch.tensor(lengths)[:, None]
    return torch.where(mask[..., None], rows, noise), mask


@given(st.lists(st.integers(0, 8), min_size=1, max_size=5).filter(lambda lengths: sum(lengths) > 1))
def test_it_is_torchs_own_over_the_valid_rows(lengths: list[int]) -> None:
    ours, theirs = MaskedBatchNorm(5), nn.BatchNorm1d(5)
    rows, mask = ragged(lengths, padding=3, noise=1e3)
    for _ in range(2):
        torch.testing.assert_close(ours(rows, mask)[mask], theirs(rows[mask]), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    torch.testing.assert_close(ours.eval()(rows, mask)[mask], theirs.eval()(rows[mask]), atol=1e-5, rtol=1e-4)


def test_gradients_are_torchs_own_and_none_comes_from_padding() -> None:
    rows, mask = ragged([8, 3, 0, 5], noise=50.0)
    mine, its = rows.clone().requires_grad_(), rows[mask].requires_grad_()
    ((MaskedBatchNorm(5)(mine, mask) ** 3)[mask]).sum().backward()
    (nn.BatchNorm1d(5)(its) ** 3).sum().backward()
    assert mine.grad is not None
    assert its.grad is not None
    torch.testing.assert_close(mine.grad[mask], its.grad, atol=1e-4, rtol=1e-4)
    assert not mine.grad[~mask].any()


def test_sums_of_half_precision_do_not_overflow() -> None:
    rows, mask = torch.full((32, 530, 2), 2.5), torch.ones(32, 530, dtype=torch.bool)
    rows[:, ::2] = -2.5
    norm = MaskedBatchNorm(2)
    with torch.autocast("cpu", torch.float16):
        out = norm(rows.half(), mask)
    torch.testing.assert_close(out, rows.sign(), atol=1e-3, rtol=0)
    assert norm.running_var.isfinite().all()


def test_a_batch_without_a_valid_row_teaches_nothing() -> None:
    norm = MaskedBatchNorm(5)
    rows, mask = ragged([0, 0], noise=7.0)
    assert norm(rows, mask).isfinite().all()
    assert torch.equal(norm.running_mean, torch.zeros(5))
    assert torch.equal(norm.running_var, torch.ones(5))


def test_stacked_norms_each_keep_their_own_statistics() -> None:
    rows, mask = ragged([8, 3, 5])
    norm, scales = MaskedBatchNorm(5), torch.tensor([1.0, 2.0, 3.0])
    weights = {name: torch.stack([part.detach()] * 3) for name, part in norm.named_parameters()}
    buffers = {name: torch.stack([part] * 3) for name, part in norm.named_buffers()}

    def loss(weights: dict[str, Tensor], buffers: dict[str, Tensor], scale: Tensor) -> Tensor:
        normed = functional_call(norm, (weights, buffers), (rows * scale, mask))
        cubes: Tensor = (normed**3 * mask[..., None]).sum()
        return cubes

    grads = vmap(grad(loss))(weights, buffers, scales)
    for place, scale in enumerate(scales):
        alone = MaskedBatchNorm(5)
        (alone(rows * scale, mask) ** 3 * mask[..., None]).sum().backward()
        torch.testing.assert_close(buffers["running_var"][place], alone.running_var)
        torch.testing.assert_close(buffers["running_mean"][place], alone.running_mean)
        torch.testing.assert_close(grads["weight"][place], alone.weight.grad)
