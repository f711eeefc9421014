import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import Wav2Vec2FeatureExtractor, Wav2Vec2ForPreTraining

from featurize.encoders.huggingface import load_speech, open_checkpoint, weights_digest
from tests.support.checkpoints import Weights, altered, changed, keys_of, same, speech_digest_of, without


def with_old_names(weights: Weights) -> Weights:
    new = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    found = dict(weights)
    for later, before in new.items():
        found = {name.replace(later, before): tensor for name, tensor in found.items()}
    assert found.keys() != weights.keys()
    return found


@pytest.mark.parametrize("rename", [same, with_old_names], ids=["today's names", "weight_g and weight_v"])
@pytest.mark.parametrize("as_bin", [False, True], ids=["safetensors", "bin"])
def test_the_digest_does_not_depend_on_the_format_of_the_file(
    wav2vec2: Path, tmp_path: Path, rename: Callable[[Weights], Weights], *, as_bin: bool
) -> None:
    copy = altered(wav2vec2, tmp_path / "mini", rename, as_bin=as_bin)
    assert speech_digest_of(copy) == speech_digest_of(wav2vec2)
    assert keys_of(copy) == keys_of(wav2vec2)


def test_the_digest_does_not_depend_on_how_the_file_is_split(wav2vec2: Path, tmp_path: Path) -> None:
    Wav2Vec2ForPreTraining.from_pretrained(wav2vec2).save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert speech_digest_of(tmp_path) == speech_digest_of(wav2vec2)


def test_the_digest_does_not_depend_on_what_masks_in_training(wav2vec2: Path, tmp_path: Path) -> None:
    other = altered(wav2vec2, tmp_path / "other", changed("masked_spec_embed"))
    lacking = altered(wav2vec2, tmp_path / "lacking", without("wav2vec2.masked_spec_embed"))
    assert speech_digest_of(other) == speech_digest_of(lacking) == speech_digest_of(wav2vec2)


def test_the_digest_depends_on_every_other_weight(wav2vec2: Path) -> None:
    base = load_speech(open_checkpoint(str(wav2vec2))).base
    expected = weights_digest(base)
    for name, parameter in base.named_parameters():
        if not name.endswith("masked_spec_embed"):
            before = parameter.data.reshape(-1)[0].clone()
            parameter.data.reshape(-1)[0] = before + 1
            assert weights_digest(base) != expected, name
            parameter.data.reshape(-1)[0] = before
    assert weights_digest(base) == expected


def test_moving_a_folder_does_not_change_the_key_but_other_weights_do(wav2vec2: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(wav2vec2, tmp_path / "elsewhere" / wav2vec2.name)
    other = altered(wav2vec2, tmp_path / "other" / wav2vec2.name, changed("layers.1.attention.k_proj.bias"))
    assert keys_of(moved) == keys_of(wav2vec2)
    assert keys_of(f"{moved}/../{moved.name}/") == keys_of(wav2vec2)
    assert keys_of(other).keys() == keys_of(wav2vec2).keys()
    assert keys_of(other)["mini"] != keys_of(wav2vec2)["mini"]


def test_another_normalization_changes_the_key(wav2vec2: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(wav2vec2, tmp_path / "mini")
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(copy)  # type: ignore[no-untyped-call]
    assert keys_of(copy)["mini"] != keys_of(wav2vec2)["mini"]


@pytest.mark.parametrize(
    ("change", "other_key"),
    [
        ({"num_attention_heads": 4}, True),
        ({"hidden_act": "relu"}, True),
        ({"layer_norm_eps": 1e-3}, True),
        ({"transformers_version": "9.9", "architectures": ["Other"]}, False),
        ({"_name_or_path": "elsewhere"}, False),
    ],
)
def test_what_the_configuration_says_of_the_model_is_part_of_the_key(
    wav2vec2: Path, tmp_path: Path, change: dict[str, object], *, other_key: bool
) -> None:
    copy = shutil.copytree(wav2vec2, tmp_path / wav2vec2.name)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, **change}))
    assert (keys_of(copy) != keys_of(wav2vec2)) == other_key
