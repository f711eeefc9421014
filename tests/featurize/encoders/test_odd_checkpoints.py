"""Checkpoints with one file wrong: one line that says what is wrong in which file, before any work."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import RobertaConfig, RobertaModel

from cache.errors import MmerError
from featurize.encoders.tiny import build_roberta_tiny_tokenizer
from tests.support.checkpoints import WEIGHTS, loaded
from tests.support.models import TEXT_SIZE


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete checkpoint of RoBERTa; nobody writes to it."""
    folder = tmp_path_factory.mktemp("checkpoints") / "roberta"
    tokenizer = build_roberta_tiny_tokenizer()
    torch.manual_seed(0)
    RobertaModel(RobertaConfig(vocab_size=len(tokenizer), **TEXT_SIZE)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def changed(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def more_tokens(folder: Path) -> None:
    tokenizer = build_roberta_tiny_tokenizer()
    tokenizer.add_tokens(["SPEAKER_A"])
    tokenizer.save_pretrained(folder)


def newer_tokenizer(folder: Path) -> None:
    changed(folder / "tokenizer.json", model={"type": "BPE2", "vocab": {}, "merges": []})


def config(**values: Any) -> Callable[[Path], None]:
    return lambda folder: changed(folder / "config.json", **values)


def tokenizer_config(**values: Any) -> Callable[[Path], None]:
    return lambda folder: changed(folder / "tokenizer_config.json", **values)


def text(name: str, content: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_text(content)

    return write


def half_a_matrix(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    name = "encoder.layer.0.attention.self.query.weight"
    save_file({**weights, name: weights[name][:7].clone()}, folder / WEIGHTS, metadata={"format": "pt"})


def adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "roberta-base"}')


ODD: dict[str, tuple[Callable[[Path], None], str]] = {
    "more tokens": (
        more_tokens,
        r"the tokenizer of .* has the token 'SPEAKER_A' with the id \d+, .* only the ids 0 to",
    ),
    "newer tokenizer": (newer_tokenizer, r"holds no checkpoint that can be loaded: .* \(its tokenizer\)"),
    "tokenizer of another type": (text("tokenizer.json", "[]"), r"its tokenizer"),
    "no padding": (config(pad_token_id=None), "config.json of .* has the pad_token_id None"),
    "negative padding": (config(pad_token_id=-1), "pad_token_id -1|holds no checkpoint"),
    "padding behind the end": (config(pad_token_id=10**6), "holds no checkpoint that can be loaded"),
    "a number as text": (config(num_hidden_layers="2"), r"num_hidden_layers.*\(config.json\)"),
    "a limit as text": (tokenizer_config(model_max_length="many"), "model_max_length 'many'|its tokenizer"),
    "a limit of nothing": (tokenizer_config(model_max_length=-4), "model_max_length -4"),
    "an unknown activation": (config(hidden_act="wavy"), "holds no checkpoint that can be loaded"),
    "heads that divide nothing": (config(num_attention_heads=5), "holds no checkpoint that can be loaded"),
    "more layers than weights": (config(num_hidden_layers=3), "lacks 16 weights"),
    "a vocabulary of another size": (config(vocab_size=7), "holds no checkpoint that can be loaded"),
    "a list": (text("config.json", "[1]"), "holds no checkpoint that can be loaded"),
    "deep JSON": (text("config.json", "[" * 100_000), "holds no checkpoint that can be loaded"),
    "no model type": (text("config.json", "{}"), "holds no checkpoint that can be loaded"),
    "a matrix cut in half": (half_a_matrix, "holds no checkpoint that can be loaded"),
    "an adapter": (adapter, r"has a peft adapter \(adapter_config.json\) .*merge_and_unload"),
}


@pytest.mark.parametrize("kind", ODD)
def test_a_checkpoint_with_one_file_wrong_is_one_line(roberta: Path, tmp_path: Path, kind: str) -> None:
    damage, message = ODD[kind]
    folder = shutil.copytree(roberta, tmp_path / "odd")
    damage(folder)
    with pytest.raises(MmerError, match=message) as caught:
        loaded(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    assert len(str(caught.value)) < 600


def test_the_checkpoint_itself_is_loaded(roberta: Path) -> None:
    assert [encoder.specs[0].name for encoder in loaded(roberta).text] == ["roberta"]


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("config.json", {"conv_stride": "many"}, "holds no checkpoint"),
        ("config.json", {"conv_kernel": [10, 3]}, "holds no checkpoint"),
        ("config.json", {"pad_token_id": None}, ""),
        ("config.json", {"hidden_act": "wavy"}, "holds no checkpoint"),
        ("preprocessor_config.json", {"sampling_rate": "16k"}, "expects speech at 16k Hz"),
        ("preprocessor_config.json", {"feature_size": "x"}, ""),
    ],
)
def test_a_speech_checkpoint_with_one_value_wrong_is_one_line_or_loads(
    wav2vec2: Path, tmp_path: Path, name: str, values: dict[str, Any], message: str
) -> None:
    folder = shutil.copytree(wav2vec2, tmp_path / "odd")
    changed(folder / name, **values)
    if not message:
        assert loaded(folder).speech
        return
    with pytest.raises(MmerError, match=message) as caught:
        loaded(folder)
    assert "\n" not in str(caught.value)
