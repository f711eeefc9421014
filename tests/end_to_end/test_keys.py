"""The key of a stream: what another one stops, and how two stand side by side."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from transformers import ViTConfig, ViTModel

from cache.errors import MmerError
from cache.layout import read_layout, read_weights
from cache.store import FeatureCache
from tests.support.voices import computed_anew, contents, featurized


def test_another_key_stops_the_run_and_says_what_changed(corpus: Path, cache: Path) -> None:
    before = contents(cache)
    with pytest.raises(MmerError, match=r"differently \(dtype float16 -> int8\); pass --replace .*wav2vec2-tiny-2="):
        featurized(corpus, cache, dtype="int8")
    assert contents(cache) == before
    featurized(corpus, cache, dtype="int8", replace=True)
    assert FeatureCache(cache).stream("wav2vec2-tiny").spec.dtype == "int8"


def test_two_keys_stand_side_by_side_under_two_names(corpus: Path, cache: Path) -> None:
    featurized(corpus, cache, dtype="int8", encoders=("small=wav2vec2-tiny",), mel=False, audio_only=True)
    opened = FeatureCache(cache)
    exact, small = opened.stream("wav2vec2-tiny").read(0), opened.stream("small").read(0)
    assert np.linalg.norm(exact - small) / np.linalg.norm(exact) < 0.02


def test_the_name_proposed_is_one_of_the_encoder(corpus: Path, cache: Path) -> None:
    streams = {
        "wav2vec2-tiny.codes": "wav2vec2-tiny-2=wav2vec2-tiny",
        "roberta-tiny.tokens": "roberta-tiny-2=",
        "ctc.chars": "",
    }
    for name, proposed in streams.items():
        with h5py.File(cache, "r+") as file:
            key = file[f"streams/{name}"].attrs["key"]
            file[f"streams/{name}"].attrs["key"] = "0" * 32
        with pytest.raises(
            MmerError, match=f"{name} of .*pass --replace to recompute it{'.*' + proposed if proposed else '$'}"
        ):
            featurized(corpus, cache)
        with h5py.File(cache, "r+") as file:
            file[f"streams/{name}"].attrs["key"] = key


def test_replace_recomputes_damaged_rows_and_no_other(corpus: Path, cache: Path) -> None:
    before = contents(cache)
    assert computed_anew(corpus, cache, replace=True) == {}
    values = read_layout(cache).streams["logmel80"].regions["values"]
    with cache.open("rb+") as file:
        file.seek(values.offset)
        file.write(b"\xff\xff\xff")
    assert computed_anew(corpus, cache, replace=True) == {"logmel80": 1}
    assert contents(cache) == before


def test_an_encoder_that_takes_over_a_name_takes_all_of_it(corpus: Path, cache: Path, tmp_path: Path) -> None:
    featurized(corpus, cache, encoders=("e=wav2vec2-tiny", "e=wav2vec2-tiny@2"), audio_only=True)
    assert {"e", "e@2", "e.codes"} <= set(FeatureCache(cache).streams)
    featurized(corpus, cache, encoders=("e=mfcc39",), audio_only=True, replace=True)
    after = FeatureCache(cache)
    assert [name for name in after.streams if name.startswith("e")] == ["e"]
    assert after.weights("e") == {}
    assert after.weights("wav2vec2-tiny")


def test_event_tags_are_part_of_the_key(corpus: Path, cache: Path) -> None:
    with pytest.raises(MmerError, match=r"preprocessing.event_tags strip -> keep"):
        featurized(corpus, cache, event_tags="keep")


def saved_vit(folder: Path, seed: int) -> str:
    torch.manual_seed(seed)
    config = ViTConfig(hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=64)
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    return str(folder)


def test_two_encoders_never_share_the_name_that_weights_are_kept_by(corpus: Path, tmp_path: Path) -> None:
    one, other = saved_vit(tmp_path / "run1" / "vit", 1), saved_vit(tmp_path / "run2" / "vit", 2)
    cache = tmp_path / "a.h5"
    how: Mapping[str, Any] = {"mel": False, "audio_only": True}
    featurized(corpus, cache, encoders=(one,), start_layers=4, **how)
    with pytest.raises(MmerError, match=r"vit of .* belongs to another encoder called vit; pass --replace .*vit-2="):
        featurized(corpus, cache, encoders=(f"{other}@2",), **how)
    featurized(corpus, cache, encoders=(f"{other}@2",), replace=True, **how)
    fresh = tmp_path / "b.h5"
    featurized(corpus, fresh, encoders=(f"{other}@2",), **how)
    found, expected = read_weights(cache)["vit"], read_weights(fresh)["vit"]
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in found)
    assert list(FeatureCache(cache).streams) == ["vit@2"]


def test_fewer_start_layers_of_the_same_encoder_take_none_away(corpus: Path, tmp_path: Path) -> None:
    how: Mapping[str, Any] = {"mel": False, "audio_only": True, "encoders": ("vit-mel-tiny",)}
    featurized(corpus, tmp_path / "a.h5", start_layers=4, **how)
    before = read_weights(tmp_path / "a.h5")
    featurized(corpus, tmp_path / "a.h5", start_layers=1, **how)
    assert read_weights(tmp_path / "a.h5")["vit-mel-tiny"].keys() == before["vit-mel-tiny"].keys()
    featurized(corpus, tmp_path / "a.h5", start_layers=5, **how)
    assert "layers.4.norm1.weight" in read_weights(tmp_path / "a.h5")["vit-mel-tiny"]


def test_another_kind_of_encoder_takes_a_name_over_by_replace(corpus: Path, tmp_path: Path) -> None:
    cache = tmp_path / "a.h5"
    featurized(corpus, cache, encoders=("x=roberta-tiny",), mel=False)
    featurized(corpus, cache, encoders=("x=wav2vec2-tiny",), mel=False, audio_only=True, replace=True)
    assert FeatureCache(cache).stream("x").spec.role == "audio"
