"""Defaults, numbers of attention heads and places of dropout where papers are silent (docs/decisions.md)."""

import re
from collections.abc import Mapping
from dataclasses import asdict

import pytest
import torch

from fusion.heads.build import build_head
from fusion.heads.catalog import HEADS, config_for
from fusion.nn.dropout import Dropout
from tests.support.every_head import DEFAULTS, made, read_by
from tests.support.full_size import LARGE, SPEECH, full_size_inputs
from tests.support.heads import batch_of

EVERY: Mapping[str, object] = {
    "dim": 0,
    "adapter": True,  # C-1
    "tuned_adapter": False,  # E-5
    "dropout": 0.1,  # G-2, B-2, M-10, J-2
    "modalities": "both",
    "modality_dropout": 0.0,
    "standardize": False,
}
PAPER_POOL = {"history_pool": "all"}  # `own` is a default by stream
FIELDS: Mapping[str, Mapping[str, object]] = {
    "rescmfa": {
        "layers": 4,
        "heads": 0,  # 12, G-1
        "residual": "block",  # G-3
        "global_aware": True,
        "gate": "identity",  # G-7
        "gate_residual": True,  # G-6
        "sgu": "dense",  # G-8
        "text_slots": 128,
        "audio_slots": 1500,
        "alpha": 0.1,
        "ctc_reduction": "mean",  # G-10
    },
    "bimodal": {
        "alpha": 0.1,  # B-9
        "beta": 0.1,
        "ccb1": True,
        "ccb2": True,
        "heads": 0,  # 12, B-2
        "feedforward": 0,  # four times the width, B-2
        "gru_dim": 0,  # half the width, B-3
        "pooling": "max",  # B-4
        "cpc_steps": 12,  # B-5
        "cpc_dim": 256,
        "cpc_anchors": 32,
        "cpc_negatives": 128,
        "tau": 0.1,  # B-8
        "positive": "view",
        "augmentation": True,
        "tasks": "auto",  # B-13
        "gamma": 0.1,
    },
    "tab": {
        "heads": 0,  # 8, M-5
        "layers": 2,  # M-2
        "feedforward": 0,
        "kernel_speech": 1,  # M-3
        "kernel_text": 1,
        "tab": True,
        "self_attention": True,
        "tab_kernel": 0,  # 3, M-6
        "causal": False,
        "axis": "time",  # M-8
        "pooling": "mean",
    },
    "jfm": {
        "adapter": False,
        "fusion": "joint",
        "joint": True,
        "joint_length": 4,
        "blocks": 2,
        "layers": "first",  # J-5
        "freeze_layers": False,  # J-8
        "text": "layer12",  # J-1
        "extractor_layers": 2,
        "extractor_heads": 8,
        "icl": True,
        "icl_weight": 1.0,  # J-14
        "tau": 0.07,  # J-12
    },
    "label-guided": {
        **PAPER_POOL,
        "text_labels": "tfidf",
        "tonal_labels": "codebook",
        "words": 9,
        "frames": 100,
        "idf": "utterance",  # L-3
        "contrast": False,
        "min_count": 5,
        "constraint": "C1",
        "al_norm": "raw",  # L-9
        "detach_al": False,
        "tonal_space": "contrastive",  # L-5
        "train_projection": False,
        "span_mask": 0.0,  # L-1
        "mu_m": 1.0,
        "mu_c": 0.5,
        "mu_text": 0.2,
        "mu_speech": 0.2,
    },
    "concat": {**PAPER_POOL, "pooling": "mean"},
    "cross-attention": {**PAPER_POOL, "pooling": "mean", "heads": 0},
    "audio": {
        **PAPER_POOL,
        "adapter": False,
        "modalities": "audio",
        "pooling": "mean",
        "normalize": False,
        "hidden": 0,
    },
    "text": {**PAPER_POOL, "adapter": False, "modalities": "text", "pooling": "mean", "normalize": False, "hidden": 0},
    "probe": {**PAPER_POOL, "adapter": False, "dropout": 0.0, "pooling": "meanstd"},
    "score": {**PAPER_POOL, "adapter": False, "pooling": "mean"},
}

# At full width; jfm has those of its pre-trained layers and 8 in its extractor.
ATTENTION = {"rescmfa": {12}, "bimodal": {12}, "tab": {8}, "jfm": {8, 12, 16}, "cross-attention": {8}}

# Sites of dropout in training; layers and blocks of a kind count as one site.
ADAPTERS = {"fronts.audio.adapter.dropout", "fronts.text.adapter.dropout"}
LAYER = {"self_attn.dropout", "dropouts"}
SITES: Mapping[str, set[str]] = {
    "rescmfa": {
        *ADAPTERS,
        *(
            f"layers.{direction}.{site}"
            for direction in ("audio_text", "text_audio")
            for site in ("attention.dropout", "dropout")
        ),
        "dropout",  # G-9
        "ctc_dropout",  # G-11
    },
    "bimodal": {*ADAPTERS, *(f"blocks.{block}.{site}" for block in ("ccb1", "ccb2") for site in LAYER)},
    "tab": {
        *(f"streams.{modality}.front.adapter.dropout" for modality in ("audio", "text")),
        *(f"streams.{modality}.layers.{site}" for modality in ("audio", "text") for site in LAYER),
        *(f"crossings.{modality}.attention.dropout" for modality in ("audio", "text")),
        "block.blocks.dropout",  # M-7
        "dropout",  # M-10
    },
    "jfm": {
        *(f"{part}.{site}" for part in ("entries.text.layers", "blocks.layers.text") for site in LAYER),
        *(f"blocks.layers.audio.{site}" for site in LAYER),
    },
    "label-guided": {*ADAPTERS, "dropout"},
    "concat": {*ADAPTERS, "classifier"},
    "cross-attention": {
        *ADAPTERS,
        *(f"crossings.{modality}.attention.dropout" for modality in ("audio", "text")),
        "classifier",
    },
    "audio": {"classifier"},
    "text": {"classifier"},
    "score": {"models.audio.classifier", "models.text.classifier"},
}


@pytest.mark.parametrize("name", HEADS)
def test_every_field_has_the_default_that_was_decided(name: str) -> None:
    assert asdict(config_for(name, {})) == {**EVERY, **FIELDS[name]}


@pytest.mark.parametrize("name", HEADS)
def test_attention_has_the_number_of_heads_that_was_decided(name: str) -> None:
    with torch.device("meta"):
        head = build_head(name, config_for(name, {}), full_size_inputs(text=LARGE if name == "jfm" else SPEECH), seed=0)
    found = {module.heads for module in head.modules() if hasattr(module, "in_proj_weight")}
    assert found == ATTENTION.get(name, set())


@pytest.mark.parametrize(("name", "modalities"), DEFAULTS)
def test_training_drops_in_every_place_and_in_no_other(name: str, modalities: str) -> None:
    head = made(name, modalities)
    dropped = set()
    for path, module in head.named_modules():
        if isinstance(module, Dropout):
            module.register_forward_hook(
                lambda _, given, out, path=path: dropped.add(path) if not out.equal(given[0]) else None
            )
    head.train()(read_by(head.config, batch_of(12), training=True))
    assert {re.sub(r"\.\d+", "", path) for path in dropped} == SITES[name]
    assert dropped == {path for path, module in head.named_modules() if isinstance(module, Dropout) and module.active}
    dropped.clear()
    head.eval()(read_by(head.config, batch_of(12), training=False))
    assert not dropped
