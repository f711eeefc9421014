import torch
from torch import Tensor
from torch.func import vmap
from torch.nn import functional

from fusion.grid.stacking.stack import StackRules
from fusion.losses.ctc import ctc_loss

MODELS = 3


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


def test_attention_of_a_stack_is_that_of_each_model() -> None:
    query, key = random(MODELS, 2, 4, 5, 8).requires_grad_(), random(2, 4, 7, 8)  # keys are those of all models
    mask = torch.tensor([[True] * 7, [True] * 3 + [False] * 4])[:, None, None]

    def one(query: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(query, key, query[..., :1, :] * key, attn_mask=mask)

    with StackRules():
        stacked = vmap(one)(query)
    alone = torch.stack([one(part) for part in query])
    torch.testing.assert_close(stacked, alone)
    weights = random(*alone.shape)
    gradients = [torch.autograd.grad((made * weights).sum(), query)[0] for made in (stacked, alone)]
    torch.testing.assert_close(*gradients)


def test_ctc_of_a_stack_is_that_of_each_model() -> None:
    logits = random(MODELS, 2, 6, 5).requires_grad_()
    mask, targets = torch.tensor([[True] * 6, [True] * 4 + [False] * 2]), torch.tensor([[1, 2], [3, 3]])

    def one(logits: Tensor) -> Tensor:
        return ctc_loss(logits, mask, targets, torch.ones_like(targets, dtype=torch.bool))

    with StackRules():
        stacked = vmap(one)(logits)
    alone = torch.stack([one(part) for part in logits])
    torch.testing.assert_close(stacked, alone)
    gradients = [torch.autograd.grad(made.square().sum(), logits)[0] for made in (stacked, alone)]
    torch.testing.assert_close(*gradients)


def test_without_a_stack_the_rules_change_nothing() -> None:
    query = random(2, 4, 5, 8)
    plain = functional.scaled_dot_product_attention(query, query, query)
    mask = torch.ones(2, 1, 1, 5, dtype=torch.bool)
    with StackRules():
        torch.testing.assert_close(functional.scaled_dot_product_attention(query, query, query, attn_mask=mask), plain)
