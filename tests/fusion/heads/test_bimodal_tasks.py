"""The auxiliary tasks of the bi-modal bi-task head: when they are on, and what they are computed from."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fusion.head import Batch
from fusion.head_config import HeadInputs
from fusion.heads.bimodal import Bimodal
from fusion.heads.configs.bimodal import BimodalConfig
from fusion.losses.contrastive import n_pair_loss
from fusion.nn.dropout import seed_dropout
from tests.support.heads import ToyRows, batch_of, head_inputs, samples

VIEWS = ("audio.view", "text.view")
ALL = "cpc+supervised+augmented"


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
    """Computes the embedding of the contrastive terms in a pass of its own."""
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
        ({"augmentation": False, "positive": "class"}, {"cpc", "supervised"}),
        ({"modalities": "audio"}, {"ecl"}),
        ({"modalities": "text", "beta": 0.0}, set()),
        ({"tasks": "none"}, set()),
        ({"tasks": "cpc"}, {"cpc"}),
        ({"tasks": "supervised"}, {"supervised"}),
        ({"tasks": "cpc+supervised"}, {"cpc", "supervised"}),
        ({"tasks": "supervised+augmented"}, {"supervised", "ecl"}),
        ({"tasks": ALL}, {"cpc", "supervised", "ecl"}),
        ({"tasks": ALL, "gamma": 0.0}, {"cpc", "ecl"}),
        ({"tasks": "cpc+augmented", "modalities": "audio"}, {"ecl"}),
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
def test_with_positives_of_the_class_the_term_is_equation_3(augmentation: bool, views: tuple[str, ...]) -> None:
    head, batch = head_of(inputs_without(*views), positive="class", augmentation=augmentation), batch_of(8)
    assert head.config.optional_roles == ()
    originals = embedded(head, batch)
    differ = batch.labels[:, None] != batch.labels  # four classes take turns: the next of a class is four further
    expected = n_pair_loss(originals, originals.roll(-4, 0), originals, differ, tau=0.1)
    torch.testing.assert_close(losses_of(head, batch)["supervised"], expected)


def test_each_term_has_a_weight_of_its_own() -> None:
    """L = CE + alpha L_SCL + beta L_ACL in every reading of the paper (B-9, B-13)."""
    weights: dict[str, Any] = {"alpha": 0.2, "beta": 0.3, "gamma": 0.4}
    expected = {
        "cpc+augmented": {"cpc": 0.2, "supervised": 0.0, "augmented": 0.3},
        "cpc+supervised": {"cpc": 0.2, "supervised": 0.3, "augmented": 0.0},
        "supervised+augmented": {"cpc": 0.0, "supervised": 0.2, "augmented": 0.3},
        ALL: {"cpc": 0.2, "supervised": 0.4, "augmented": 0.3},
        "augmented": {"cpc": 0.0, "supervised": 0.0, "augmented": 0.3},
        "supervised": {"cpc": 0.0, "supervised": 0.3, "augmented": 0.0},
        "none": {"cpc": 0.0, "supervised": 0.0, "augmented": 0.0},
    }
    assert {tasks: BimodalConfig(tasks=tasks, **weights).weights for tasks in expected} == expected


def test_the_terms_of_one_pass_are_those_of_each_alone() -> None:
    batch = batch_of(8)
    both = losses_of(head_of(tasks="supervised+augmented"), batch)
    alone = losses_of(head_of(tasks="supervised"), batch) | losses_of(head_of(tasks="augmented"), batch)
    assert set(alone) == set(both) == {"supervised", "ecl"}
    for name, loss in both.items():
        torch.testing.assert_close(loss, alone[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "roles", "tasks"),
    [
        ({}, VIEWS, "auto"),
        ({}, VIEWS[:1], "auto"),
        ({}, (), "cpc+supervised"),
        ({"augmentation": False}, (), "cpc+supervised"),
        ({"ccb1": False}, (), "supervised"),
        ({"modalities": "audio"}, VIEWS[:1], "auto"),
        ({"modalities": "audio"}, (), "supervised"),
        ({"modalities": "text"}, (), "supervised"),
        ({"modalities": "text"}, VIEWS[1:], "auto"),
        ({"tasks": "cpc+augmented"}, (), "cpc+augmented"),
        ({"beta": 0.0}, VIEWS, "auto"),
        ({"positive": "class"}, VIEWS, "auto"),
    ],
)
def test_auto_without_views_stands_for_the_term_that_needs_none(
    fields: dict[str, Any], roles: tuple[str, ...], tasks: str
) -> None:
    bound = BimodalConfig(**fields).bound_to(("audio", "text", *roles))
    assert bound.tasks == tasks
    assert bound == replace(BimodalConfig(**fields), tasks=tasks)


@pytest.mark.parametrize(
    ("missing", "fields", "notes"),
    [
        (VIEWS, {}, ["auxiliary tasks: cpc (weight 0.1)"]),
        (
            VIEWS[:1],
            {},
            [
                "auxiliary tasks: cpc (weight 0.1), augmented (weight 0.1)",
                "views: 1 for text.view",
                "no stream for audio.view: the original rows are used in the views",
            ],
        ),
        (
            VIEWS,
            {"tasks": "cpc+supervised", "beta": 0.5},
            ["auxiliary tasks: cpc (weight 0.1), supervised (weight 0.5)"],
        ),
        (VIEWS, {"alpha": 0.0, "beta": 0.0}, ["auxiliary tasks: none"]),
        ((), {"tasks": "none"}, ["auxiliary tasks: none"]),
        (
            (),
            {"ccb1": False},
            [
                "auxiliary tasks: augmented (weight 0.1)",
                "CPC is off: it needs both modalities and ccb1",
                "views: 1 for audio.view, 1 for text.view",
            ],
        ),
        (VIEWS, {"modalities": "audio", "tasks": "supervised"}, ["auxiliary tasks: supervised (weight 0.1)"]),
    ],
)
def test_the_terms_that_run_are_noted(missing: tuple[str, ...], fields: dict[str, Any], notes: list[str]) -> None:
    assert head_of(inputs_without(*missing), **fields).prepare(ToyRows(samples(2))) == notes


def test_several_views_and_utterances_without_one_are_noted() -> None:
    inputs = head_inputs()
    several = replace(inputs, shapes={**inputs.shapes, "text.view.2": (24,), "text.view.3": (24,)})
    chosen = [
        replace(sample, rows={**sample.rows, "audio.view": sample.rows["audio.view"][:0]}) for sample in samples(2)
    ]
    notes = head_of(several).prepare(ToyRows(chosen))
    assert notes[1:] == [
        "views: 1 for audio.view, 3 for text.view",
        "2 of 2 training utterances have no audio.view",
    ]


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
        ({"tasks": "ecl"}, r"tasks must be one of auto, none, cpc, supervised, .*augmented, got 'ecl'"),
        ({"tasks": "augmented+cpc"}, "tasks must be one of"),
        ({"tasks": "cpc+augmented", "positive": "class"}, "positive=class is for tasks=auto, got tasks=cpc.augmented"),
        (
            {"tasks": "augmented", "augmentation": False},
            "tasks=augmented reads augmented views, got augmenta",
        ),
        ({"tasks": "cpc", "modalities": "audio"}, "tasks=cpc needs both modalities and ccb1, got modalities=audio"),
        ({"gamma": -1.0}, "gamma must not be negative"),
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
