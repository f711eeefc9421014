"""The bi-modal bi-task head: its sizes, its parts, and what holds for every head."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fusion.head import Batch
from fusion.head_config import HeadInputs
from fusion.heads.bimodal import Bimodal
from fusion.heads.configs.bimodal import BimodalConfig
from fusion.nn.dropout import seed_dropout, set_step
from tests.support.heads import CLASSES, ToyRows, batch_of, collate, head_inputs, replaced, samples

FORMS: list[dict[str, Any]] = [
    {},
    {"pooling": "attn"},
    {"ccb1": False},
    {"ccb2": False, "adapter": False},
    {"positive": "class"},
    {"tasks": "cpc+supervised+augmented"},
    {"modalities": "audio"},
    {"modalities": "text", "pooling": "attn"},
    {"dim": 12, "gru_dim": 5, "heads": 3, "feedforward": 7},
]


def head_of(inputs: HeadInputs | None = None, **fields: Any) -> Bimodal:
    torch.manual_seed(0)
    config = BimodalConfig(**{"dropout": 0.0, "cpc_dim": 8, "cpc_negatives": 6, "cpc_anchors": 4, **fields})
    head = Bimodal(config, inputs or head_inputs())
    for name, parameter in head.named_parameters():
        if "adapter.outer" in name:  # else the adapter is the identity, and the gradient of its inner part is 0
            nn.init.normal_(parameter, std=0.1)
    seed_dropout(head, 1)
    return head


def scored(head: Bimodal, batch: Batch) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = head.eval()(batch).logits
    return logits


def noisy(batch: Batch, role: str) -> Batch:
    return replaced(batch, role, batch.features[role] + torch.randn(batch.features[role].shape))


@pytest.mark.parametrize("form", FORMS)
def test_padding_and_order_change_nothing(form: dict[str, Any]) -> None:
    head, utterances = head_of(**form), samples(4)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        head.to(dtype)
        together = scored(head, collate(utterances, extra={"audio": 60, "text": 25}, noise=1e3, dtype=dtype))
        apart = torch.cat([scored(head, collate([utterance], dtype=dtype)) for utterance in utterances])
        torch.testing.assert_close(together, apart, atol=tolerance, rtol=0)
        turned = scored(head, collate(utterances[::-1], dtype=dtype))
        torch.testing.assert_close(turned.flip(0), apart, atol=tolerance, rtol=0)


@pytest.mark.parametrize("form", FORMS)
def test_the_modalities_that_are_read_are_used(form: dict[str, Any]) -> None:
    head, batch = head_of(**form), batch_of(3)
    logits = scored(head, batch)
    for role in ("audio", "text"):
        changed = (scored(head, noisy(batch, role)) - logits).abs().amax(dim=1) > 1e-6
        assert bool(changed.all()) == head.config.reads(role), role
        assert bool(changed.any()) == head.config.reads(role), role


@pytest.mark.parametrize("form", FORMS)
def test_every_parameter_gets_a_gradient(form: dict[str, Any]) -> None:
    head = head_of(**form).train()
    for dtype in (torch.float32, torch.float64):
        head.to(dtype).zero_grad()
        batch = collate(samples(6), dtype=dtype)
        output = head(batch)
        loss = nn.functional.cross_entropy(output.logits, batch.labels)
        (loss + sum(head.config.loss_weights[name] * value for name, value in output.losses.items())).backward()  # type: ignore[no-untyped-call]
        without = [name for name, part in head.named_parameters() if part.grad is None or not part.grad.any()]
        assert without == [], dtype


@pytest.mark.parametrize(
    "form", [{}, {"modalities": "audio"}, {"modalities": "text"}, {"tasks": "cpc+supervised+augmented"}]
)
def test_each_loss_alone_reaches_the_adapters_and_what_it_shares(form: dict[str, Any]) -> None:
    head, batch = head_of(**form).train(), batch_of(8)
    for name in head(batch).losses:
        head.zero_grad()
        head(batch).losses[name].backward()  # type: ignore[no-untyped-call]
        reached = {
            key for key, parameter in head.named_parameters() if parameter.grad is not None and parameter.grad.any()
        }
        assert {key for key, _ in head.named_parameters() if key.startswith("fronts.")} <= reached
        shared = ("blocks.ccb1.", "gru.") if name == "cpc" else ("blocks.", "gru.")
        assert {key for key, _ in head.named_parameters() if key.startswith(shared) and "reverse" not in key} <= reached
        assert any("reverse" in key for key in reached) == (name != "cpc")  # CPC never hears the backward half


def test_an_absent_modality_leaves_finite_logits_that_ignore_it() -> None:
    head, batch = head_of(modality_dropout=0.5), batch_of(3)
    for role in ("audio", "text"):
        partly = batch.without(role, torch.tensor([False, True, False]))
        logits = scored(head, partly)
        assert logits.isfinite().all()
        torch.testing.assert_close(logits[1], scored(head, noisy(partly, role))[1])
        torch.testing.assert_close(logits[[0, 2]], scored(head, batch)[[0, 2]], atol=1e-6, rtol=0)


@pytest.mark.parametrize("form", FORMS)
def test_an_utterance_with_no_row_at_all_breaks_nothing(form: dict[str, Any]) -> None:
    rate = 0.5 if form.get("modalities", "both") == "both" else 0.0
    head, batch = head_of(**{"modality_dropout": rate, **form}), batch_of(4)
    nothing = torch.arange(4) == 1
    for role in ("audio", "text"):
        batch = batch.without(role, nothing)
    assert scored(head, batch).isfinite().all()
    output = head.train()(batch)
    (output.logits.sum() + sum(output.losses.values())).backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in head.parameters())


def test_sizes_at_full_width() -> None:
    inputs = HeadInputs(classes=CLASSES, shapes=dict.fromkeys(("audio", "text", "audio.view", "text.view"), (768,)))
    with torch.device("meta"):
        head = Bimodal(BimodalConfig(), inputs)
    sizes = {name: sum(parameter.numel() for parameter in part.parameters()) for name, part in head.named_children()}
    assert sizes["blocks"] == 2 * 7_087_872
    assert sizes["gru"] == 2_658_816
    assert sizes["classifier"] == 6_148
    assert sizes["projection"] == 1_771_008
    assert sizes["coding"] == 196_864 + 1_182_720
    assert sizes["fronts"] == 2_365_440
    assert sum(sizes.values()) - sizes["coding"] - sizes["fronts"] == 18_611_716


def test_each_block_keeps_the_rows_of_the_stream_that_asks() -> None:
    head, batch = head_of(), batch_of(3)
    rows = {role: front(batch.features[role]) for role, front in head.fronts.items()}
    (first, _), (second, _) = head.encode_blocks(rows, batch.masks)
    assert first.shape[:2] == batch.masks["audio"].shape
    assert second.shape[:2] == batch.masks["text"].shape
    expected = head.blocks["ccb1"](rows["audio"], batch.masks["text"], rows["text"])
    torch.testing.assert_close(first, expected)


def test_contexts_have_heard_no_later_frame() -> None:
    head, batch = head_of().eval(), batch_of(2)
    later = torch.arange(batch.masks["audio"].shape[1]) > 7
    changed = replaced(batch, "audio", batch.features["audio"] + 3.0 * later[:, None])
    before, after = (states_of(head, inputs)[:, :8] for inputs in (batch, changed))
    assert head.coding is not None
    torch.testing.assert_close(head.coding.contexts(after), head.coding.contexts(before), atol=1e-6, rtol=0)
    assert (after - before).abs().max() > 1e-3  # the backward half has


def states_of(head: Bimodal, batch: Batch) -> Tensor:
    rows = {role: front(batch.features[role]) for role, front in head.fronts.items()}
    states: Tensor = head.gru(head.encode_blocks(rows, batch.masks))[0]
    return states


def test_the_classifier_reads_pooled_audio_first() -> None:
    head, batch = head_of().eval(), batch_of(2)
    assert head.classifier.weight.shape == (len(CLASSES), 2 * 24)
    rows = head.fronts["audio"](batch.features["audio"])
    pooled = torch.stack([x[mask].amax(dim=0) for x, mask in zip(rows, batch.masks["audio"], strict=True)])
    half = pooled @ head.classifier.weight[:, :24].T
    whole = scored(head, batch)
    with torch.no_grad():
        head.classifier.weight[:, :24] = 0
    torch.testing.assert_close(scored(head, batch) + half, whole)


def test_attention_pooling_averages_where_all_scores_are_equal() -> None:
    head, batch = head_of(pooling="attn").eval(), batch_of(2)
    nn.init.zeros_(head.pool_rows.score.weight)  # type: ignore[union-attr, arg-type]
    features, mask = batch.features["audio"], batch.masks["audio"]
    expected = torch.stack([x[valid].mean(dim=0) for x, valid in zip(features, mask, strict=True)])
    torch.testing.assert_close(head.pool_rows(features, mask), expected)


@pytest.mark.parametrize(("modality", "block"), [("audio", "ccb1"), ("text", "ccb2")])
def test_of_one_modality_a_block_attends_to_itself(modality: str, block: str) -> None:
    head, batch = head_of(modalities=modality), batch_of(2)
    assert list(head.blocks) == [block]
    assert head.coding is None
    x, mask = head.fronts[modality](batch.features[modality]), batch.masks[modality]
    ((coded, valid),) = head.encode_blocks({modality: x}, batch.masks)
    torch.testing.assert_close(coded, head.blocks[block](x, mask))
    assert torch.equal(valid, mask)


def test_the_same_seed_and_step_give_the_same_losses() -> None:
    batch = batch_of(6)
    results: list[dict[str, float]] = []
    for step in (0, 0, 1):
        head = head_of(dropout=0.3).train()
        set_step(head, step)
        torch.manual_seed(step + len(results))  # a global generator has no say
        results.append({name: value.item() for name, value in head(batch).losses.items()})
    assert results[0] == results[1]
    assert results[0] != results[2]


def test_no_utterance_is_too_long() -> None:
    assert not head_of().over_limits({"audio": np.array([3, 99_999]), "text": np.array([1, 5000])}).any()
    assert not any("long" in note for note in head_of().prepare(ToyRows(samples(2))))
