import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from safetensors.torch import load_file, save_file
from transformers import ViTConfig, ViTForImageClassification, ViTModel

from cache.errors import MmerError
from cache.layout import read_weights
from cache.store import FeatureCache
from featurize.encoders.catalog import ENCODERS
from featurize.encoders.load import consumes
from featurize.encoders.tiny import build_vit_mel_tiny
from featurize.extraction.parity import deviation, reference_mel
from tests.support.checkpoints import WEIGHTS, altered, changed, keys_of, loaded, speech_of, without
from tests.support.images import mel_encoder
from tests.support.models import LAYER_SIZE, lively, waveforms, worst
from tests.support.voices import featurized

SIZE = {**LAYER_SIZE, "num_hidden_layers": 3, "image_size": 64}


def saved(folder: Path, model: Any = ViTModel, **more: Any) -> tuple[Path, Any]:
    made = lively(model, ViTConfig(**SIZE, **more))
    made.save_pretrained(folder)
    return folder, made


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A ViT with its pooler, as google/vit-base-patch16-224-in21k has one."""
    return saved(tmp_path_factory.mktemp("checkpoint") / "mini")


@pytest.mark.parametrize("model", [ViTModel, ViTForImageClassification])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_folder_of_the_family_vit_is_an_encoder_of_log_mel(tmp_path: Path, model: Any, channels: int) -> None:
    folder, made = saved(tmp_path / "mini", model, num_channels=channels)
    encoder = speech_of(folder)
    waves = waveforms([9000, 1200])
    reference = mel_encoder(made.base_model)
    assert worst([rows[0] for rows in encoder.encode(waves)], [reference_mel(reference, one) for one in waves]) <= 1e-5
    (spec,) = encoder.specs
    assert (spec.name, spec.role, spec.source, spec.shape, spec.rate_hz) == ("mini", "patches", "mini", (32,), 31.25)
    assert consumes(str(folder)) == "speech"
    assert loaded(folder).notes == []


def test_the_names_of_older_releases_are_understood(vit: tuple[Path, Any], tmp_path: Path) -> None:
    older = {
        "layers.": "encoder.layer.",
        "attention.q_proj": "attention.attention.query",
        "attention.k_proj": "attention.attention.key",
        "attention.v_proj": "attention.attention.value",
        "attention.o_proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    }
    folder, made = vit
    weights = {name: one.clone() for name, one in made.state_dict().items()}
    for later, before in older.items():
        weights = {name.replace(later, before): one for name, one in weights.items()}
    assert "encoder.layer.2.attention.attention.query.bias" in weights
    copy = shutil.copytree(folder, tmp_path / "mini")
    save_file(weights, copy / WEIGHTS, metadata={"format": "pt"})
    assert keys_of(copy) == keys_of(folder)


def test_what_decides_a_row_enters_the_key(vit: tuple[Path, Any], tmp_path: Path) -> None:
    folder, _ = vit
    expected = keys_of(folder)
    assert keys_of(shutil.copytree(folder, tmp_path / "elsewhere" / "mini")) == expected
    assert keys_of(altered(folder, tmp_path / "pooler" / "mini", changed("pooler"))) == expected
    for part in ("position_embeddings", "cls_token", "layernorm.bias"):
        assert keys_of(altered(folder, tmp_path / part / "mini", changed(part))) != expected
    preprocessing = speech_of(folder).specs[0].preprocessing
    assert preprocessing["channels"] == "rgb mean"
    assert preprocessing["positions"] == "bicubic to 5 x 94, cut"
    assert preprocessing["patches"] == "16 x 16, CLS, then by time, low bands first"


def test_layers_are_asked_for_as_of_any_encoder(vit: tuple[Path, Any]) -> None:
    encoder = speech_of(f"{vit[0]}")
    assert len(encoder.specs) == 1
    (stacked,) = loaded(f"x={vit[0]}@1,3").speech
    assert [(spec.name, spec.shape) for spec in stacked.specs] == [("x@1,3", (2, 32))]
    with pytest.raises(MmerError, match="x has hidden states 0 to 3; got 4"):
        loaded(f"x={vit[0]}@4")


def test_a_checkpoint_that_lacks_weights_is_refused(vit: tuple[Path, Any], tmp_path: Path) -> None:
    name = next(name for name in load_file(vit[0] / WEIGHTS) if ".2." in name)
    with pytest.raises(MmerError, match="lacks 1 weights"):
        loaded(altered(vit[0], tmp_path / "mini", without(name)))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"patch_size": 32}, r"images of 64 x 64 into patches of 32 x 32; mmer supports square .* patches of 16 x 16"),
        ({"patch_size": [16, 8]}, r"patches of 16 x 8; mmer supports"),
        ({"image_size": [64, 128]}, r"images of 64 x 128 into"),
        ({"image_size": 72}, r"images of 72 x 72 into"),
        ({"num_channels": 2}, r"reads 2 channels; mmer supports 1, or 3 for RGB"),
    ],
)
def test_other_images_are_refused(vit: tuple[Path, Any], tmp_path: Path, change: dict[str, Any], told: str) -> None:
    copy = shutil.copytree(vit[0], tmp_path / "mini")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(MmerError, match=told):
        loaded(copy)


def test_codes_are_not_to_be_had_of_it(vit: tuple[Path, Any]) -> None:
    with pytest.raises(MmerError, match="--codes needs an encoder with a quantizer"):
        loaded(vit[0], codes=True)


def test_chunks_are_not_made_of_it(vit: tuple[Path, Any]) -> None:
    (encoder,) = loaded(vit[0], chunk=True, max_seconds=1.0).speech
    assert encoder.plan([40_000])[0].note == ""
    assert encoder.specs[0].limits["chunk"] is False


def test_a_cache_holds_patches_and_what_starts_from_them(corpus: Path, tmp_path: Path) -> None:
    sources = ("vit-mel-tiny", "vit-mel-tiny@2", "roberta-tiny@4", "roberta-tiny")
    featurized(corpus, tmp_path / "b.h5", encoders=sources, start_layers=1)
    opened = FeatureCache(tmp_path / "b.h5")
    wave, _ = soundfile.read(corpus.parent / "b.wav", dtype="float32")
    (expected,) = speech_of("vit-mel-tiny").encode([wave])[0]
    assert deviation(opened.stream("vit-mel-tiny").read(1), expected)[0] < 1e-3  # stored as float16
    assert opened.stream("vit-mel-tiny@2").spec.role == "patches"
    stored = read_weights(tmp_path / "b.h5")
    assert stored.keys() == {"vit-mel-tiny", "roberta-tiny"}
    assert {name.split(".")[1] for name in stored["roberta-tiny"] if name.startswith("layers.")} == {"4"}
    for name, array in speech_of("vit-mel-tiny", start_layers=1).start_weights.items():
        np.testing.assert_array_equal(stored["vit-mel-tiny"][name], array)
        assert stored["vit-mel-tiny"][name].dtype == array.dtype


def test_the_built_in_one_is_that_of_the_catalog() -> None:
    (spec,) = speech_of("vit-mel-tiny").specs
    row = ENCODERS["vit-mel-tiny"]
    assert (spec.role, spec.shape, spec.rate_hz, spec.source) == (row.role, (row.dim,), row.rate_hz, "vit-mel-tiny")
    assert row.dim == build_vit_mel_tiny().config.hidden_size
