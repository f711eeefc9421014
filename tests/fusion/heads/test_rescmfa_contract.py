"""Properties of every head (docs/decisions.md#properties-of-every-head), for each form of GCF2-Net."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from fusion.head_config import AUDIO, TEXT
from fusion.nn.dropout import seed_dropout, set_step
from tests.support.rescmfa_examples import alone, batch_of, double, example, gradients, head_of, padded, part

VARIANTS: list[dict[str, Any]] = [
    {},
    {"sgu": "dwconv", "residual": "module"},
    {"text_slots": 5, "audio_slots": 7, "gate": "tanh", "gate_residual": False},
    {"global_aware": False, "adapter": False},
    {"modalities": AUDIO},
    {"modalities": TEXT},
    {"modalities": AUDIO, "sgu": "dwconv"},
]


@pytest.mark.parametrize("fields", VARIANTS)
@torch.inference_mode()
def test_logits_do_not_depend_on_padding(fields: dict[str, Any]) -> None:
    head, single = head_of(**fields).eval(), example()
    for batch, tolerance in ((single, 1e-5), (double(single), 1e-10)):
        head.to(batch.features[TEXT].dtype)
        given = head(padded(batch)).logits
        apart = torch.cat([head(alone(batch, row)).logits for row in range(len(batch))])
        torch.testing.assert_close(given, apart, rtol=0, atol=tolerance)


@pytest.mark.parametrize("fields", VARIANTS)
def test_a_permuted_batch_gives_permuted_logits(fields: dict[str, Any]) -> None:
    head, order = head_of(**fields).eval(), [3, 0, 4, 2, 1]
    permuted = head(part(example(), order)).logits
    torch.testing.assert_close(permuted, head(example()).logits[order], rtol=0, atol=1e-6)


@pytest.mark.parametrize("fields", VARIANTS)
@pytest.mark.parametrize("role", [AUDIO, TEXT])
def test_a_modality_counts_exactly_when_it_takes_part(fields: dict[str, Any], role: str) -> None:
    head, batch = head_of(**fields).eval(), example()
    other = replace(
        batch, features={**batch.features, role: batch.features[role] + torch.randn(batch.features[role].shape)}
    )
    changed = (head(batch).logits != head(other).logits).any(dim=1)
    assert changed.tolist() == [head.config.reads(role)] * len(batch)


@pytest.mark.parametrize("fields", VARIANTS)
def test_every_parameter_gets_a_gradient(fields: dict[str, Any]) -> None:
    head, batch = head_of(**fields), example()
    output = head(batch)
    loss = nn.functional.cross_entropy(output.logits, batch.labels)
    total = loss + sum(head.config.loss_weights[name] * value for name, value in output.losses.items())
    assert [name for name, x in gradients(total, head).items() if x is None or not x.any()] == []


def test_an_absent_modality_is_not_read_and_leaves_the_others_alone() -> None:
    head, batch = head_of().eval(), example()
    for role in (AUDIO, TEXT):
        lacking = batch.without(role, torch.tensor([True, False, False, False, True]))
        noisy = replace(lacking, features={**batch.features, role: batch.features[role] * -7})
        given = head(lacking).logits
        torch.testing.assert_close(given[[0, 4]], head(noisy).logits[[0, 4]])
        torch.testing.assert_close(given[1:4], head(batch).logits[1:4])
    nothing = lacking.without(AUDIO, torch.ones(5, dtype=torch.bool))
    assert bool(head.train()(nothing).logits.isfinite().all())
    assert float(head(nothing).losses["ctc"].detach()) == 0
    assert bool(head(batch_of([0, 0], [3, 2], [1, 2])).logits.isfinite().all())


@pytest.mark.parametrize("sgu", ["dense", "dwconv"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_stacked_heads_give_what_each_gives_alone(sgu: str, dropout: float) -> None:
    heads, batch = [head_of(sgu=sgu, dropout=dropout, alpha=0) for _ in range(3)], example()
    for seed, head in enumerate(heads):
        nn.init.normal_(head.classifier.weight)
        seed_dropout(head, seed)
        set_step(head, 2)
    stacked = stack_module_state(heads)

    def logits(state: tuple[dict[str, Tensor], dict[str, Tensor]]) -> Tensor:
        given: Tensor = functional_call(heads[0], state, (batch,)).logits
        return given

    with sdpa_kernel(SDPBackend.MATH):  # the others have no batching rule on CPU
        together = vmap(logits)(stacked)
    torch.testing.assert_close(together, torch.stack([head(batch).logits for head in heads]))
    assert not torch.equal(together[0], together[1])
