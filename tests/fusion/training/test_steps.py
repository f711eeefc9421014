import pytest
import torch
from torch import nn
from torch.nn import functional

from fusion.head import Batch, HeadOutput
from fusion.training.steps import build_optimizer, modality_dropout, optimizer_step, set_learning_rate, total_loss
from tests.support.trainings import toy_head


def _batch(size: int, *, roles: tuple[str, ...] = ("audio", "text.view", "mel", "text", "chars")) -> Batch:
    masks = {role: torch.ones(size, 2, dtype=torch.bool) for role in roles}
    features = {role: torch.zeros(size, 2, 3) for role in roles}
    return Batch(features=features, masks=masks, labels=torch.zeros(size).long(), indices=torch.arange(size))


def _left(batch: Batch, role: str) -> torch.Tensor:
    return batch.masks[role].any(dim=1)


def test_one_of_two_modalities_goes_at_the_rate_with_all_its_roles() -> None:
    dropped = modality_dropout(_batch(4000), 0.4, seed=1, step=2)
    audio, text = ~_left(dropped, "audio"), ~_left(dropped, "text")
    assert audio.float().mean() == pytest.approx(0.2, abs=0.03)
    assert text.float().mean() == pytest.approx(0.2, abs=0.03)
    assert not (audio & text).any()
    assert torch.equal(_left(dropped, "mel"), ~audio)
    assert torch.equal(_left(dropped, "text.view"), ~text)
    assert _left(dropped, "chars").all()


def test_modality_dropout_follows_from_seed_and_step() -> None:
    batches = [
        modality_dropout(_batch(50), 0.5, seed=seed, step=step) for seed, step in ((1, 2), (1, 2), (1, 3), (2, 2))
    ]
    first, same, *others = (_left(batch, "audio") for batch in batches)
    assert torch.equal(first, same)
    assert not any(torch.equal(first, other) for other in others)


def test_the_only_modality_is_never_taken_away() -> None:
    batch = _batch(200).without("text", torch.ones(200, dtype=torch.bool))
    batch = batch.without("text.view", torch.ones(200, dtype=torch.bool))
    assert _left(modality_dropout(batch, 0.9, seed=0, step=0), "audio").all()
    alone = _batch(200, roles=("audio", "chars"))
    assert modality_dropout(alone, 0.9, seed=0, step=0) is alone


def test_matrices_decay_and_vectors_do_not() -> None:
    head = toy_head()
    decayed, kept = build_optimizer(head, name="adamw", lr=0.1, weight_decay=0.3).param_groups
    assert {parameter.ndim for parameter in decayed["params"]} == {2}
    assert {parameter.ndim for parameter in kept["params"]} == {1}
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.3, 0.0)
    assert len(decayed["params"]) + len(kept["params"]) == len(list(head.parameters()))


def test_frozen_parameters_are_left_alone() -> None:
    head = nn.Linear(2, 2)
    head.bias.requires_grad_(False)
    (group,) = build_optimizer(head, name="adam", lr=0.1, weight_decay=0).param_groups
    assert [parameter is head.weight for parameter in group["params"]] == [True]


def test_the_rate_is_that_of_all_parameters() -> None:
    optimizer = build_optimizer(nn.Linear(2, 2), name="adamw", lr=0.8, weight_decay=0)
    set_learning_rate(optimizer, 0.2)
    assert [group["lr"] for group in optimizer.param_groups] == [0.2, 0.2]


def test_the_total_adds_weighted_losses_to_the_cross_entropy() -> None:
    logits, labels = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 1, 0])
    losses = {"ctc": torch.tensor(3.0), "cpc": torch.tensor(5.0)}
    losses_by_name = total_loss(HeadOutput(logits, losses), labels, {"ctc": 0.5, "cpc": 0.1, "off": 0})
    expected = functional.cross_entropy(logits, labels)
    assert list(losses_by_name) == ["cross_entropy", "ctc", "cpc", "total"]
    assert losses_by_name["cross_entropy"] == expected
    torch.testing.assert_close(losses_by_name["total"], expected + 2.0)
    weights = torch.tensor([1.0, 2.0, 4.0])
    weighed = total_loss(HeadOutput(logits), labels, {}, by_class=weights, smoothing=0.1)
    torch.testing.assert_close(
        weighed["total"], functional.cross_entropy(logits, labels, weight=weights, label_smoothing=0.1)
    )


@pytest.mark.parametrize(("clip", "norm"), [(0.5, 0.5), (0.0, 2.0)])
def test_a_long_gradient_is_clipped(clip: float, norm: float) -> None:
    head = nn.Linear(4, 1, bias=False)
    optimizer = build_optimizer(head, name="adamw", lr=0.1, weight_decay=0)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    optimizer_step(head(torch.ones(1, 4)).sum(), head, optimizer, scaler, clip=clip)
    assert head.weight.grad is not None
    assert float(head.weight.grad.norm()) == pytest.approx(norm, rel=1e-4)
