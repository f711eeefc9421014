"""The two auxiliary tasks of the bi-modal bi-task head: when they are on, and what they are computed from."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fusion.head import Batch, HeadInputs
from fusion.heads.bimodal import Bimodal, BimodalConfig
from fusion.losses.contrastive import n_pair_loss
from fusion.nn.dropout import seed_dropout
from tests.support.heads import ToyRows, batch_of, head_inputs, samples

VIEWS = ("audio.view", "text.view")
OFF = "ECL is off: no stream for {}; positive=class needs no views"
OFF_BY_CHOICE = "ECL is off: no augmentation; positive=class needs no views"


def head_of(inputs: HeadInputs | None = None, **fields: Any) -> Bimodal:
    torch.manual_seed(0)
    config = BimodalConfig(**{"dropout": 0.0, "cpc_dim": 8, "cpc_negatives": 6, "cpc_anchors": 4, **fields})
    head = Bimodal(config, inputs or head_inputs()).train()
    seed_dropout(head, 1)
    return head


def inputs_without(*roles: str) -> HeadInputs:
    inputs = head_inputs()
    return replace(inputs, shapes={role: shape for role, shape in inputs.shapes.items() if role not in roles})


def losses_of(head: Bimodal, batch: Batch) -> dict[str, Tensor]:
    return dict(head(batch).losses)


def embedded(head: Bimodal, batch: Batch) -> Tensor:
    """Computes the embedding of ECL in a pass of its own."""
    assert head.projection is not None
    rows = {role: front(batch.features[role]) for role, front in head.fronts.items()}
    states, mask = head.gru(head.encode_blocks(rows, batch.masks))
    pooled = head.pool_rows(rows["audio"], batch.masks["audio"]), head.pool_states(states, mask)
    return functional.normalize(head.projection(torch.cat(pooled, dim=1)), dim=1)


def view_of(batch: Batch) -> Batch:
    features = {role: batch.features[f"{role}.view"] for role in ("audio", "text")}
    return replace(batch, features=features, masks={role: batch.masks[f"{role}.view"] for role in features})


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"cpc", "ecl"}),
        ({"alpha": 0.0}, {"ecl"}),
        ({"beta": 0.0}, {"cpc"}),
        ({"ccb1": False}, {"ecl"}),
        ({"ccb2": False}, {"cpc", "ecl"}),
        ({"augmentation": False}, {"cpc"}),
        ({"augmentation": False, "positive": "class"}, {"cpc", "ecl"}),
        ({"modalities": "audio"}, {"ecl"}),
        ({"modalities": "text", "beta": 0.0}, set()),
    ],
)
def test_each_task_is_one_field(fields: dict[str, Any], expected: set[str]) -> None:
    head, batch = head_of(**fields), batch_of(4)
    losses = losses_of(head, batch)
    assert set(losses) == {name for name, weight in head.config.loss_weights.items() if weight} == expected
    assert all(loss.shape == () and loss > 0 for name, loss in losses.items() if name == "cpc")
    assert not head.eval()(batch).losses


def test_views_go_through_the_very_modules_of_the_originals() -> None:
    head, batch = head_of(), batch_of(6)
    originals, views = embedded(head, batch), embedded(head, view_of(batch))
    differ = batch.labels[:, None] != batch.labels.repeat(2)
    expected = n_pair_loss(originals, views, torch.cat([originals, views]), differ, tau=0.1)
    torch.testing.assert_close(losses_of(head, batch)["ecl"], expected, rtol=1e-4, atol=1e-6)


def test_views_change_neither_logits_nor_cpc() -> None:
    batch = batch_of(6)
    bare = replace(batch, features={role: x for role, x in batch.features.items() if role not in VIEWS})
    with_them, without = head_of()(batch), head_of(inputs_without(*VIEWS))(bare)
    torch.testing.assert_close(with_them.logits, without.logits)
    torch.testing.assert_close(with_them.losses["cpc"], without.losses["cpc"])
    assert "ecl" not in without.losses


def test_an_utterance_without_a_view_has_no_term_and_its_view_is_no_negative() -> None:
    head, batch = head_of(), batch_of(4)
    lacking = torch.tensor([False, True, False, False])
    originals, views = embedded(head, batch), embedded(head, view_of(batch))
    others = torch.cat([originals, views[~lacking]])
    differ = batch.labels[:, None] != torch.cat([batch.labels, batch.labels[~lacking]])
    expected = n_pair_loss(originals, views, others, differ & ~lacking[:, None], tau=0.1)
    found = losses_of(head, batch.without("text.view", lacking))["ecl"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("fields", [{}, {"positive": "class"}])
def test_without_augmentation_all_is_as_on_a_cache_without_views(fields: dict[str, Any]) -> None:
    batch = batch_of(8)
    bare, off = head_of(inputs_without(*VIEWS), **fields), head_of(augmentation=False, **fields)
    assert off.config.optional_roles == ()
    assert [name for name, _ in off.named_parameters()] == [name for name, _ in bare.named_parameters()]
    expected, found = bare(batch), off(batch)
    torch.testing.assert_close((found.logits, dict(found.losses)), (expected.logits, dict(expected.losses)))


@pytest.mark.parametrize("views", [VIEWS, ()])
@pytest.mark.parametrize("augmentation", [True, False])
def test_with_positives_of_the_class_ecl_is_equation_3(augmentation: bool, views: tuple[str, ...]) -> None:
    head, batch = head_of(inputs_without(*views), positive="class", augmentation=augmentation), batch_of(8)
    assert head.config.optional_roles == ()
    assert head.prepare(ToyRows(samples(2))) == []
    originals = embedded(head, batch)
    differ = batch.labels[:, None] != batch.labels  # four classes take turns: the next of a class is four further
    expected = n_pair_loss(originals, originals.roll(-4, 0), originals, differ, tau=0.1)
    torch.testing.assert_close(losses_of(head, batch)["ecl"], expected)


@pytest.mark.parametrize(
    ("missing", "fields", "notes"),
    [
        (VIEWS, {}, [OFF.format("audio.view or text.view")]),
        (VIEWS[:1], {}, ["no stream for audio.view; the views of ECL use the original rows instead"]),
        (VIEWS, {"beta": 0.0}, []),
        (VIEWS, {"augmentation": False}, [OFF_BY_CHOICE]),
        ((), {"augmentation": False}, [OFF_BY_CHOICE]),
        ((), {"augmentation": False, "beta": 0.0}, []),
        ((), {"ccb1": False}, ["CPC is off: it needs both modalities and ccb1"]),
        (
            VIEWS,
            {"modalities": "audio", "alpha": 0.0},
            [OFF.format("audio.view")],
        ),
    ],
)
def test_what_is_off_is_told(missing: tuple[str, ...], fields: dict[str, Any], notes: list[str]) -> None:
    head = head_of(inputs_without(*missing), **fields)
    assert head.prepare(ToyRows(samples(2))) == notes
    off = fields.get("beta") == 0 or any("ECL is off" in note for note in notes)
    assert (head.projection is None) == off


def test_cpc_needs_utterances_of_two_frames_more_than_its_steps() -> None:
    batch = batch_of(4)  # of 16 frames and more
    assert losses_of(head_of(cpc_steps=14), batch)["cpc"] > 0
    assert losses_of(head_of(cpc_steps=30), batch)["cpc"] == 0


def test_views_of_another_encoder_are_refused() -> None:
    inputs = head_inputs()
    odd = replace(inputs, shapes={**inputs.shapes, "text.view": (7,)})
    with pytest.raises(ValueError, match=r"text.view have shape \(7,\), those for text \(24,\); views must be"):
        head_of(odd)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pooling": "mean"}, "pooling must be one of max, attn, got 'mean'"),
        ({"positive": "self"}, "positive must be one of view, class, got 'self'"),
        ({"alpha": -1.0}, "alpha must not be negative"),
        ({"cpc_steps": 0}, "cpc_steps must be at least 1"),
        ({"tau": 0.0}, "tau must be above 0"),
        ({"ccb1": False, "ccb2": False}, "the BiGRU of modalities='both' has no input; switch on ccb1 or ccb2"),
        ({"ccb1": False, "modalities": "audio"}, "the BiGRU .* has no input; switch on ccb1"),
    ],
)
def test_a_wrong_field_is_told_with_what_is_allowed(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BimodalConfig(**fields)
