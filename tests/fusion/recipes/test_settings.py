"""The golden table of recipes: every field, stream, protocol and label set, and what each paper prints of them.

A field that a row does not name has its default, of the head (tests/fusion/heads/test_decisions.py) or of the training
(`TRAINING` below).
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

import pytest

from fusion.experiment.fields import configure
from fusion.recipes.catalog import RECIPES, Recipe, recipe
from fusion.training.config import TrainConfig

# docs/decisions.md#training-of-frozen-heads
TRAINING: Mapping[str, object] = {
    "epochs": 100,
    "batch_size": 32,
    "lr": 3e-4,
    "schedule": "constant",
    "optimizer": "adamw",
    "weight_decay": 0.01,
    "warmup": 0.05,
    "warmup_steps": 0,
    "clip": 1.0,
    "patience": 10,
    "monitor": "wf1",
    "class_weights": False,
    "label_smoothing": 0.0,
    "loss": "auto",
    "focal_gamma": 0.0,
    "balanced_batches": False,
    "refit": False,
    "precision": "float32",
    "seed": 0,
    "data_seed": 0,
    "audio_lr": 1e-5,
    "text_lr": 1e-5,
    "layer_decay": 1.0,
    "accumulate": 1,
    "checkpointing": False,
}


class Row(NamedTuple):
    """What a recipe is: where it trains, and the fields that differ from their defaults."""

    fusion: str
    corpus: str
    protocol: str
    labels: str
    streams: Mapping[str, str]
    head: Mapping[str, object]
    training: Mapping[str, object]
    featurize: str = ""
    tune: tuple[str, ...] = ()


IEMOCAP = ("iemocap", "session", "iemocap4")
MELD = ("meld", "official", "meld7")
UA: Mapping[str, object] = {"monitor": "ua"}
ADAM: Mapping[str, object] = {"optimizer": "adam", "weight_decay": 0.0}
WAV2VEC_ROBERTA = {"audio": "wav2vec2-base", "text": "roberta-base"}
WAV2VEC_DISTILBERT = {"audio": "wav2vec2-base", "text": "distilbert-base"}
MEL_ROBERTA = {"mel": "logmel80", "patches": "vit-mel-base", "text": "roberta-large@12"}
WAV2VEC_BERT = {"audio": "wav2vec2-base", "text": "bert-base+history10"}
WAV2VEC = {"audio": "wav2vec2-base"}
LAYERS = {"audio": "wav2vec2-base@all"}
HISTORY = "--history 10 --max-tokens 150"
BOTH_VIEWS = "--view lsa --view cbca:5"
VIEWS: Mapping[str, object] = {"tasks": "cpc+augmented"}
ALONE: Mapping[str, object] = {"modalities": "audio", "tasks": "augmented"}
SUM: Mapping[str, object] = {"ctc_reduction": "sum"}
PROBE: Mapping[str, object] = {"dropout": 0.0, "dim": 256}
EMOBOX: Mapping[str, object] = {"dropout": 0.0, "normalize": True, "hidden": 128}
BOTH = ("audio", "text")
GCF2NET: Mapping[str, object] = {**ADAM, "lr": 1e-5, "batch_size": 2}  # 1e-5 is the default of encoders
BIMODAL: Mapping[str, object] = {**ADAM, **UA, "batch_size": 16, "patience": 100, "accumulate": 4}
MULTAB: Mapping[str, object] = {"lr": 5e-5, "audio_lr": 5e-5, "text_lr": 5e-5, "batch_size": 2, "patience": 100}
JFM: Mapping[str, object] = {**ADAM, "lr": 1e-4, "audio_lr": 1e-4, "text_lr": 1e-4}
LEMER: Mapping[str, object] = {
    **ADAM,
    **UA,
    "batch_size": 16,
    "warmup_steps": 8000,
    "audio_lr": 1e-6,
    "text_lr": 5e-6,
}
S3PRL: Mapping[str, object] = {**ADAM, "lr": 1e-4, "epochs": 241, "patience": 241, "monitor": "wa"}
LINEAR: Mapping[str, object] = {**ADAM, **UA, "lr": 1e-4, "patience": 100, "schedule": "linear", "warmup": 0.1}
MFCC = {"audio": "mfcc39"}
ACOUSTIC: Mapping[str, object] = {"standardize": True, "dim": 128, "adapter": True, "pooling": "max", "dropout": 0.3}
ANNEALED: Mapping[str, object] = {
    **UA,
    "lr": 3e-3,
    "schedule": "cosine",
    "epochs": 30,
    "patience": 30,
    "label_smoothing": 0.1,
}
HEADS_8: Mapping[str, object] = {"heads": 8}
RAVDESS_5, RAVDESS_6 = ("ravdess", "actor5", "ravdess8"), ("ravdess", "actor6", "ravdess8")
GOLDEN: Mapping[str, Row] = {
    "gcf2net-iemocap": Row("rescmfa", *IEMOCAP, WAV2VEC_ROBERTA, {}, UA),
    "gcf2net-iemocap:paper": Row("rescmfa", *IEMOCAP, WAV2VEC_ROBERTA, SUM, {**GCF2NET, **UA}, tune=BOTH),
    "gcf2net-meld": Row("rescmfa", *MELD, WAV2VEC_ROBERTA, {"layers": 2}, {}),
    "gcf2net-meld:paper": Row("rescmfa", *MELD, WAV2VEC_ROBERTA, {"layers": 2, **SUM}, GCF2NET, tune=BOTH),
    "bimodal-iemocap": Row("bimodal", *IEMOCAP, WAV2VEC_DISTILBERT, VIEWS, {**UA, "batch_size": 16}, BOTH_VIEWS),
    "bimodal-iemocap:paper": Row("bimodal", *IEMOCAP, WAV2VEC_DISTILBERT, VIEWS, BIMODAL, BOTH_VIEWS, BOTH),
    "bimodal-ravdess": Row("bimodal", *RAVDESS_5, WAV2VEC, ALONE, {**UA, "batch_size": 16}, "--view lsa"),
    "bimodal-ravdess:paper": Row("bimodal", *RAVDESS_5, WAV2VEC, ALONE, BIMODAL, "--view lsa", ("audio",)),
    "multab-iemocap": Row("tab", *IEMOCAP, WAV2VEC_ROBERTA, HEADS_8, UA),
    "multab-iemocap:paper": Row("tab", *IEMOCAP, WAV2VEC_ROBERTA, HEADS_8, {**MULTAB, **UA}, tune=BOTH),
    "multab-meld": Row("tab", *MELD, WAV2VEC_ROBERTA, HEADS_8, {}),
    "multab-meld:paper": Row("tab", *MELD, WAV2VEC_ROBERTA, HEADS_8, MULTAB, tune=BOTH),
    "jfm-iemocap": Row("jfm", *IEMOCAP, MEL_ROBERTA, {}, {**UA, "lr": 1e-4}),
    "jfm-iemocap:paper": Row("jfm", *IEMOCAP, MEL_ROBERTA, {}, {**JFM, **UA}, tune=("text",)),
    "jfm-meld": Row("jfm", *MELD, MEL_ROBERTA, {}, {"lr": 1e-4}),
    "jfm-meld:paper": Row("jfm", *MELD, MEL_ROBERTA, {}, JFM, tune=("text",)),
    "lemer-iemocap": Row("label-guided", *IEMOCAP, WAV2VEC_BERT, {}, UA, HISTORY),
    "lemer-iemocap:paper": Row("label-guided", *IEMOCAP, WAV2VEC_BERT, {}, LEMER, HISTORY, BOTH),
    "superb-iemocap": Row("audio", *IEMOCAP, LAYERS, PROBE, {**UA, "lr": 1e-3}),
    "superb-iemocap:paper": Row("audio", *IEMOCAP, LAYERS, PROBE, S3PRL),
    "emobox-iemocap": Row("audio", *IEMOCAP, WAV2VEC, EMOBOX, {**UA, "lr": 1e-3}),
    "emobox-iemocap:paper": Row("audio", *IEMOCAP, WAV2VEC, EMOBOX, LINEAR),
    "emobox-ravdess": Row("audio", *RAVDESS_6, WAV2VEC, EMOBOX, {**UA, "lr": 1e-3}),
    "emobox-ravdess:paper": Row("audio", *RAVDESS_6, WAV2VEC, EMOBOX, LINEAR),
    "acoustic-baseline": Row("audio", *RAVDESS_6, MFCC, ACOUSTIC, ANNEALED),
    "acoustic-baseline:paper": Row("audio", *RAVDESS_6, MFCC, ACOUSTIC, ANNEALED),
}

MULTAB_PRINTED: Mapping[str, object] = {
    "heads": 8,
    "layers": 2,
    "dropout": 0.1,
    "optimizer": "adamw",
    "lr": 5e-5,
    "batch_size": 2,
    "epochs": 100,
}
JFM_PRINTED: Mapping[str, object] = {
    "blocks": 2,
    "joint_length": 4,
    "extractor_layers": 2,
    "extractor_heads": 8,
    "optimizer": "adam",
    "lr": 1e-4,
    "batch_size": 32,
}
EMOBOX_PRINTED: Mapping[str, object] = {"hidden": 128, "optimizer": "adam", "lr": 1e-4, "batch_size": 32, "epochs": 100}
# Paper -> every number that it prints and a field can have, whatever the defaults are. 001 prints 4 x 4, a batch of 16
# in four pieces (B-11).
PRINTED: Mapping[str, Mapping[str, object]] = {
    "gcf2net-iemocap": {"layers": 4, "alpha": 0.1, "optimizer": "adam", "lr": 1e-5, "batch_size": 2},
    "gcf2net-meld": {"layers": 2, "alpha": 0.1, "optimizer": "adam", "lr": 1e-5, "batch_size": 2},
    "bimodal-iemocap": {"optimizer": "adam", "batch_size": 16, "accumulate": 4, "epochs": 100},
    "bimodal-ravdess": {
        "optimizer": "adam",
        "batch_size": 16,
        "accumulate": 4,
        "epochs": 100,
        "modalities": "audio",
    },
    "multab-iemocap": MULTAB_PRINTED,
    "multab-meld": MULTAB_PRINTED,
    "jfm-iemocap": JFM_PRINTED,
    "jfm-meld": JFM_PRINTED,
    "lemer-iemocap": {
        "words": 9,
        "frames": 100,
        "mu_m": 1.0,
        "mu_c": 0.5,
        "mu_text": 0.2,
        "mu_speech": 0.2,
        "optimizer": "adam",
        "batch_size": 16,
        "warmup_steps": 8000,
        "audio_lr": 1e-6,
        "text_lr": 5e-6,
    },
    "superb-iemocap": {"dim": 256, "optimizer": "adam", "lr": 1e-4, "batch_size": 32},
    "emobox-iemocap": EMOBOX_PRINTED,
    "emobox-ravdess": EMOBOX_PRINTED,
    "acoustic-baseline": {},
}


def changed(config: Any) -> dict[str, object]:
    defaults = asdict(type(config)())
    return {name: value for name, value in asdict(config).items() if value != defaults[name]}


def row_of(settings: Recipe) -> Row:
    head, training = configure(settings.fusion, settings.fields)
    return Row(
        settings.fusion,
        settings.corpus,
        settings.protocol,
        settings.labels,
        settings.streams,
        changed(head),
        changed(training),
        settings.options,
        settings.tune,
    )


def test_the_table_has_every_recipe() -> None:
    assert list(GOLDEN) == [name + end for name in RECIPES for end in ("", ":paper")]
    assert set(PRINTED) == set(RECIPES)


def test_the_defaults_of_the_training_are_those_of_the_table() -> None:
    assert asdict(TrainConfig()) == TRAINING


@pytest.mark.parametrize("name", GOLDEN)
def test_a_recipe_is_its_row(name: str) -> None:
    assert row_of(recipe(name)) == GOLDEN[name]


@pytest.mark.parametrize("name", PRINTED)
def test_paper_sets_every_number_that_is_printed(name: str) -> None:
    fields = recipe(f"{name}:paper").fields
    assert {field: fields.get(field) for field in PRINTED[name]} == PRINTED[name]
