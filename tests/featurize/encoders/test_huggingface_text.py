import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertModel,
    RobertaConfig,
    RobertaForMaskedLM,
)

from cache.errors import MmerError
from featurize.encoders.base import TranscriptEncoder
from featurize.encoders.huggingface import load_text, open_checkpoint
from tests.support.checkpoints import WEIGHTS, altered, changed, loaded, without
from tests.support.models import DISTILBERT_SIZE, TEXT_SIZE, WORDS, turns, word_pieces


def save_bert(folder: Path) -> None:
    BertForMaskedLM(BertConfig(**TEXT_SIZE, vocab_size=len(WORDS))).save_pretrained(folder)


def save_roberta(folder: Path) -> None:
    config = RobertaConfig(**TEXT_SIZE, vocab_size=len(WORDS), pad_token_id=0)
    RobertaForMaskedLM(config).save_pretrained(folder)


def save_distilbert(folder: Path) -> None:
    config = DistilBertConfig(**DISTILBERT_SIZE, vocab_size=len(WORDS))
    DistilBertModel(config).save_pretrained(folder)


@pytest.fixture(params=[save_bert, save_roberta, save_distilbert])
def text_folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    request.param(tmp_path / "mini")
    word_pieces().save_pretrained(tmp_path / "mini")
    return tmp_path / "mini"


def text_of(source: Path | str, **options: Any) -> TranscriptEncoder:
    (encoder,) = loaded(source, **options).text
    return encoder


def test_a_text_folder_gives_the_vectors_of_the_model_saved_in_it(text_folder: Path) -> None:
    encoder = text_of(text_folder)
    assert [spec.name for spec in encoder.specs] == ["mini", "mini.tokens"]
    vectors, tokens = encoder.encode(turns("I know the gardens."))[0]
    assert tokens[:, 0].tolist() == [2, 5, 6, 7, 8, 9, 10, 3]
    checkpoint = open_checkpoint(str(text_folder))
    model, _ = load_text(checkpoint)
    with torch.inference_mode():
        expected = model(torch.from_numpy(tokens[:, 0]).long()[None]).last_hidden_state[0].numpy()
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_weights_and_tokenizer_of_a_text_folder_enter_its_key(text_folder: Path, tmp_path: Path) -> None:
    expected = [spec.key for spec in text_of(text_folder).specs]
    moved = shutil.copytree(text_folder, tmp_path / "elsewhere" / "mini")
    assert [spec.key for spec in text_of(moved).specs] == expected
    other_weights = altered(text_folder, tmp_path / "weights" / "mini", changed("embeddings.word_embeddings.weight"))
    assert text_of(other_weights).specs[0].key != expected[0]
    assert text_of(other_weights).specs[1].key == expected[1]  # tokens are the same
    tokenizer = json.loads((moved / "tokenizer.json").read_text())
    tokenizer["normalizer"]["lowercase"] = False
    (moved / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert not {spec.key for spec in text_of(moved).specs} & set(expected)


def test_a_text_folder_that_lacks_weights_is_refused(text_folder: Path, tmp_path: Path) -> None:
    name = next(name for name in load_file(text_folder / WEIGHTS) if "layer.1." in name)
    with pytest.raises(MmerError, match="lacks 1 weights"):
        loaded(altered(text_folder, tmp_path / "other" / "mini", without(name)))


@pytest.mark.parametrize("left", ["tokenizer_config.json", None])
def test_a_text_folder_without_its_tokenizer_is_refused(text_folder: Path, left: str | None) -> None:
    for name in {"tokenizer.json", "tokenizer_config.json"} - {left}:
        (text_folder / name).unlink()
    with pytest.raises(MmerError, match="token"):
        loaded(text_folder)
