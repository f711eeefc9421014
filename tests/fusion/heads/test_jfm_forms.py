"""JFM as configured: its size, the streams and weights of each form, and what it refuses."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cache.errors import MmerError
from cache.joined import open_cache
from cache.layout import StreamPlan
from cache.stream import StreamSpec
from fusion.experiment.streams import select_streams
from fusion.heads.configs.jfm import JFMConfig
from fusion.heads.jfm import JFM
from tests.support.full_size import LARGE, full_size_inputs
from tests.support.heads import PATCH, TEXT, ToyRows, batch_of, collate, head_inputs, layer_weights, samples
from tests.support.toys import create, utterances_named

COMMAND = (
    "add them by running mmer-featurize for this cache with --encoder roberta-large@12 --encoder vit-mel-base "
    "--start-layers"
)


def full_size(**fields: Any) -> JFM:
    """Builds it over roberta-large and ViT-base for the seven classes of MELD."""
    with torch.device("meta"):
        return JFM(JFMConfig(**fields), full_size_inputs(text=LARGE, classes="abcdefg"))


def size(head: JFM, *, learns: bool = False) -> int:
    return sum(parameter.numel() for parameter in head.parameters() if parameter.requires_grad or not learns)


def closed_form(*, blocks: int, length: int, classes: int, extractor: int = 2) -> int:
    language, vision = 12_596_224, 7_087_872  # a layer of roberta-large, of ViT-base
    mlps = 919_040 + 918_784
    block = language + vision + (mlps + length * (768 + 1024) if length else 0)
    patches = 256 * 768 + 768 + 768  # projection and CLS
    return extractor * language + blocks * block + patches + 2 * 768 + classes * (1024 + 1 + 768 + 1)


@pytest.mark.parametrize(("blocks", "length"), [(2, 4), (1, 8), (5, 1), (2, 0)])
def test_size_is_the_closed_form(blocks: int, length: int) -> None:
    joints = {"joint_length": length} if length else {"joint": False}
    head = full_size(blocks=blocks, **joints)
    assert size(head) == closed_form(blocks=blocks, length=length, classes=7)


def test_size_at_its_defaults_is_that_of_the_specification() -> None:
    assert closed_form(blocks=2, length=4, classes=7) == 68_462_862
    assert size(full_size()) == 68_462_862


@pytest.mark.parametrize("fields", [{}, {"blocks": 5}, {"joint": False}, {"layers": "last"}])
def test_late_fusion_alone_leaves_the_extractor_and_two_classifiers(fields: dict[str, Any]) -> None:
    head = full_size(fusion="late", **fields)
    assert size(head) == 2 * 12_596_224 + 7 * (1024 + 1 + 768 + 1)
    assert (len(head.blocks), head.prepare(ToyRows([]))) == (0, [])


@pytest.mark.parametrize("blocks", [1, 2])
def test_the_baselines_of_table_3_have_the_vit_layers_the_extractor_and_their_fusion(blocks: int) -> None:
    vision, both = 7_087_872, 256 * 768 + 768 + 768 + 2 * 768 + 2 * 12_596_224
    assert size(full_size(fusion="concat", blocks=blocks)) == both + blocks * vision + 7 * (1024 + 768 + 1)
    attention = {dim: 4 * dim * dim + 4 * dim + 2 * dim for dim in (768, 1024)}
    maps = 768 * 1024 + 1024 + 1024 * 768 + 768
    crossing = sum(attention.values()) + maps
    assert size(full_size(fusion="cfa", blocks=blocks)) == both + blocks * vision + crossing + 7 * (1024 + 768 + 2)


def test_the_language_layers_may_be_those_of_another_encoder_of_the_same_width() -> None:  # J-17
    inputs = head_inputs()
    other = layer_weights(TEXT, range(3), heads=4, norm_first=False)
    known = replace(inputs, weights={**inputs.weights, "language": other}, layers={**inputs.layers, "language": "0"})
    head: Any = JFM(JFMConfig(text="base768"), known)
    assert isinstance(head.entries["text"].front.project, torch.nn.Identity)
    for index, block in enumerate(head.blocks):
        stored = other[f"layers.{index}.linear1.weight"]
        np.testing.assert_array_equal(block.layers["text"].linear1.weight.detach(), stored)


def test_late_fusion_classifies_the_start_token_after_the_extractor_as_it_is() -> None:
    head: Any = JFM(JFMConfig(fusion="late", modalities="text"), head_inputs()).eval()
    batch = batch_of(3)
    rows = head.entries["text"](batch.features["text"], batch.masks["text"]).rows
    torch.testing.assert_close(head(batch).logits, head.classifiers["text"](rows[:, 0]))


def spec(name: str, role: str) -> StreamSpec:
    layers = name.partition("@")[2] or "last"
    return StreamSpec(name=name, role=role, source="a/b", layers=layers, shape=(TEXT,), dtype="float16")


@pytest.mark.parametrize("values", [{}, {"fusion": "late"}, {"fusion": "late", "modalities": "text"}])
def test_late_fusion_reads_the_text_that_joint_fusion_reads(tmp_path: Path, values: dict[str, Any]) -> None:
    roles = {"words": "text", "words@4": "text", "logmel80": "mel", "vit": "patches"}
    plans = [StreamPlan(spec=spec(*pair), lengths=np.array([2]), failures={}) for pair in roles.items()]
    weights = {encoder: dict(head_inputs().weights[role]) for encoder, role in (("words", "text"), ("vit", "patches"))}
    create(tmp_path / "a.h5", utterances_named("a"), plans, **weights)
    assert select_streams(open_cache(tmp_path / "a.h5"), JFMConfig(**values), {}).streams["text"] == "words@4"


def test_frozen_layers_leave_extractor_joints_and_classifiers_to_learn() -> None:
    head = full_size(freeze_layers=True)
    pretrained = 2 * (12_596_224 + 7_087_872) + 256 * 768 + 768 + 768 + 2 * 768
    assert size(head, learns=True) == size(head) - pretrained
    assert size(full_size(), learns=True) == size(full_size())


@pytest.mark.parametrize(
    ("fields", "roles", "weights"),
    [
        ({}, ("mel", "text"), ("patches", "text")),
        ({"modalities": "audio"}, ("mel",), ("patches",)),
        ({"modalities": "text"}, ("text",), ("text",)),
        ({"fusion": "late"}, ("patches", "text"), ("text",)),
        ({"fusion": "late", "text": "base768"}, ("patches", "text"), ()),
        ({"fusion": "late", "modalities": "audio"}, ("patches",), ()),
        ({"fusion": "cfa"}, ("mel", "text"), ("patches", "text")),
        ({"fusion": "concat", "text": "base768"}, ("mel", "text"), ("patches",)),
        ({"fusion": "concat", "modalities": "audio"}, ("mel",), ("patches",)),
        ({"text": "base768"}, ("mel", "text"), ("patches", "language")),
    ],
)
def test_each_form_reads_its_own_streams_and_weights(
    fields: dict[str, Any], roles: tuple[str, ...], weights: tuple[str, ...]
) -> None:
    config, inputs = JFMConfig(**fields), head_inputs()
    assert (config.roles, config.weight_roles) == (roles, weights)
    held = {"language": inputs.weights["text"], **inputs.weights}
    known = replace(
        inputs,
        shapes={role: inputs.shapes[role] for role in roles},
        weights={role: held[role] for role in weights},
        layers={"text": "4", "language": "4"},
    )
    utterances = [replace(utterance, rows={role: utterance.rows[role] for role in roles}) for utterance in samples(2)]
    assert JFM(config, known).eval()(collate(utterances)).logits.shape == (2, 4)


def test_late_fusion_classifies_the_cls_row_of_the_patches_as_it_is() -> None:
    head, batch = JFM(JFMConfig(fusion="late", modalities="audio"), head_inputs()).eval(), batch_of(3)
    expected = head.classifiers["audio"](batch.features["patches"][:, 0])
    torch.testing.assert_close(head(batch).logits, expected)
    assert size(head) == 4 * (PATCH + 1)


def test_other_text_gets_a_linear_to_the_width_of_its_layers() -> None:
    inputs = head_inputs(text=(12,))
    language = layer_weights(TEXT, range(9, 12), heads=4, norm_first=False)
    known = replace(inputs, weights={**inputs.weights, "language": language}, layers={"language": "9"})
    head: Any = JFM(JFMConfig(text="base768"), known)
    assert tuple(head.entries["text"].front.project.weight.shape) == (TEXT, 12)
    assert head(collate(samples(2, inputs))).logits.shape == (2, 4)


@pytest.mark.parametrize(("layers", "numbers"), [("first", (0, 4)), ("last", (1, 5))])
def test_first_or_last_of_the_stored_layers_are_taken(layers: str, numbers: tuple[int, int]) -> None:
    inputs = head_inputs()
    head: Any = JFM(JFMConfig(layers=layers), inputs)
    for modality, role, index in zip(("audio", "text"), ("patches", "text"), numbers, strict=True):
        stored = inputs.weights[role][f"layers.{index}.linear1.weight"]
        np.testing.assert_array_equal(head.blocks[0].layers[modality].linear1.weight.detach(), stored)
    notes = ["last stored ViT layers: 1, 2", "last stored language layers: 5, 6"]
    assert head.prepare(ToyRows(samples(2))) == (notes if layers == "last" else [])


@pytest.mark.parametrize(
    ("changes", "fields", "message"),
    [
        ({"weights": {}}, {}, f"2 ViT layers are needed from layer 0 on, the cache holds 0; {COMMAND} 2"),
        ({"weights": {}}, {"modalities": "text"}, "2 language layers are needed from layer 4 on, the cache holds 0;"),
        ({}, {"blocks": 4}, f"4 ViT layers are needed from layer 0 on, the cache holds 3; {COMMAND} 4"),
        ({}, {"blocks": 4, "layers": "last"}, f"{COMMAND} 12"),
        ({"layers": {"text": "last"}}, {}, f"one hidden state of text, got 'last'; {COMMAND} 2"),
        ({"layers": {"text": "5"}}, {"blocks": 3}, "3 language layers are needed from layer 5 on, the cache holds 2;"),
        ({}, {"text": "base768"}, "one hidden state of text, got 'none'"),
        ({"shapes": {"mel": (80,), "text": (12,)}}, {}, f"text rows of shape ({TEXT},), got (12,)"),
        ({"shapes": {"mel": (39,), "text": (TEXT,)}}, {}, "log-mel of 80 bands, got rows of shape (39,)"),
    ],
)
def test_what_the_cache_lacks_is_one_line(changes: dict[str, Any], fields: dict[str, Any], message: str) -> None:
    with pytest.raises(MmerError) as caught:
        JFM(JFMConfig(**fields), replace(head_inputs(), **changes))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dim": 64}, "dim must be 0"),
        ({"adapter": True}, "adapter off"),
        ({"fusion": "early"}, "fusion must be joint or late or cfa or concat, got 'early'"),
        ({"text": "large"}, "text must be layer12 or base768"),
        ({"layers": "all"}, "layers must be first or last"),
        ({"blocks": 0}, "blocks must be 1 to 12, got 0; fusion=late has no blocks"),
        ({"blocks": 13}, "blocks must be 1 to 12, got 13"),
        ({"joint_length": 0}, "joint_length must be at least 1"),
        ({"extractor_layers": -1}, "extractor_layers must be at least 0"),
        ({"icl_weight": -0.1}, "icl_weight must be at least 0"),
        ({"tau": 0.0}, "tau must be above 0"),
        ({"dropout": 1.0}, "dropout must lie in"),
    ],
)
def test_fields_out_of_range_say_what_is_allowed(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        JFMConfig(**fields)
