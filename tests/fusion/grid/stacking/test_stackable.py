from dataclasses import fields, replace
from typing import Any

import pytest

from fusion.data.features import CachedFeatures
from fusion.grid.stacking.stack import stack_key, unstackable_reason
from fusion.heads.build import build_head
from fusion.heads.catalog import HEADS, config_for
from fusion.training.config import TUNING, TrainConfig
from tests.support.stacks import CONFIG, INPUTS, STACKED, models, source_of


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> CachedFeatures:
    return source_of(tmp_path_factory.mktemp("cache") / "a.h5")


def keyed(name: str, training: TrainConfig = CONFIG, **values: object) -> object:
    return stack_key(build_head(name, config_for(name, values), INPUTS, seed=0), training)


def reason(name: str, training: TrainConfig = CONFIG, **values: object) -> str:
    return unstackable_reason(build_head(name, config_for(name, values), INPUTS, seed=0), training)


@pytest.mark.parametrize("name", STACKED)
def test_models_that_differ_in_what_is_their_own_share_a_stack(name: str, source: CachedFeatures) -> None:
    heads = [(made.head(source), made.config) for made in models(name)]
    assert len({stack_key(head, config) for head, config in heads}) == 1
    assert [unstackable_reason(head, config) for head, config in heads] == ["", "", ""]


def test_training_fields_are_common_or_of_each_model() -> None:
    own: dict[str, Any] = {
        "lr": 1.0,
        "weight_decay": 0.5,
        "schedule": "cosine",
        "warmup": 0.2,
        "warmup_steps": 5,
        "epochs": 7,
        "patience": 2,
        "monitor": "ua",
        "clip": 3.0,
        "seed": 9,
    }
    common: dict[str, Any] = {
        "batch_size": 5,
        "data_seed": 1,
        "optimizer": "adam",
        "precision": "bfloat16",
        "class_weights": True,
        "label_smoothing": 0.1,
        "loss": "mse",
        "focal_gamma": 2.0,
        "balanced_batches": True,
    }
    never = {*TUNING, "refit"}  # tuned models are not stacked, and a grid refuses refit
    assert {*own, *common, *never} == {field.name for field in fields(TrainConfig)}
    plain = keyed("concat")
    for name, value in own.items():
        assert keyed("concat", replace(CONFIG, **{name: value})) == plain, name
    for name, value in common.items():
        assert keyed("concat", replace(CONFIG, **{name: value})) != plain, name


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("rescmfa", {"alpha": 0.1}, {"alpha": 0.0}),
        ("rescmfa", {"layers": 1}, {"layers": 2}),
        ("rescmfa", {"gate": "tanh"}, {"gate": "identity"}),
        ("concat", {"dropout": 0.1}, {"dropout": 0.0}),
        ("concat", {"dim": 8}, {"dim": 16}),
        ("concat", {"standardize": True}, {"standardize": False}),
        ("jfm", {"freeze_layers": True}, {"freeze_layers": False}),
        ("label-guided", {"text_labels": "off"}, {"text_labels": "random"}),
        ("label-guided", {"mu_c": 0.0}, {"mu_c": 0.1}),
        ("label-guided", {"constraint": "C2"}, {"constraint": "C4"}),
    ],
)
def test_what_is_computed_keeps_models_apart(name: str, one: dict[str, Any], other: dict[str, Any]) -> None:
    assert keyed(name, **one) != keyed(name, **other)
    assert keyed(name, **one) == keyed(name, **one)


def test_heads_do_not_mix() -> None:
    assert len({keyed(name) for name in HEADS}) == len(HEADS)


@pytest.mark.parametrize("name", HEADS)
def test_fields_of_each_model_are_fields(name: str) -> None:
    config = HEADS[name].config
    assert {"dropout"} <= config.per_model <= {field.name for field in fields(config)}


def test_what_cannot_be_stacked_says_why() -> None:
    assert reason("bimodal") == "GRU has no batching rule"
    assert "modality dropout" in reason("concat", modality_dropout=0.2)
    assert "float16" in reason("concat", replace(CONFIG, precision="float16"))
    assert reason("concat", replace(CONFIG, precision="bfloat16")) == ""
