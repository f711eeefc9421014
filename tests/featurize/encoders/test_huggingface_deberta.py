"""DeBERTa v3 as it is published: a SentencePiece model, and float16 weights with heads in a ``.bin``."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import torch
from transformers import AutoTokenizer, DebertaV2Config, DebertaV2Model

from cache.errors import MmerError
from featurize.encoders.base import TranscriptEncoder
from featurize.encoders.huggingface import load_text, open_checkpoint, weights_digest
from tests.support.checkpoints import loaded, without
from tests.support.models import DEBERTA_SIZE, TEXT_POSITIONS, lively, turns

WORDS = ["I", "know", "the", "Gardens", ",", "so", "don't", "you", ".", "[", "]", "LAUGHTER"]
TEXT = "\xe9, I  know [LAUGHTER] the\tGardens , caf\xe9 so"


def pieces() -> bytes:
    """Trains a SentencePiece model whose first ids are those of DeBERTa v3."""
    model = io.BytesIO()
    special = {"pad": "[PAD]", "bos": "[CLS]", "eos": "[SEP]", "unk": "[UNK]"}
    named: dict[str, Any] = {f"{name}_piece": piece for name, piece in special.items()}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(np.roll(WORDS, shift)) for shift in range(len(WORDS))] * 20),
        model_writer=model,
        vocab_size=60,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
        **named | {f"{name}_id": index for index, name in enumerate(special)},
    )
    return model.getvalue()


@pytest.fixture(scope="module")
def deberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "mini"
    model = lively(DebertaV2Model, DebertaV2Config(**DEBERTA_SIZE, vocab_size=80))
    model.config.save_pretrained(folder)
    weights = {f"deberta.{name}": one.half() for name, one in model.state_dict().items()}
    weights["lm_predictions.lm_head.bias"] = torch.zeros(80, dtype=torch.half)
    weights["mask_predictions.dense.weight"] = torch.zeros(32, 32, dtype=torch.half)
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "spm.model").write_bytes(pieces())
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False, "vocab_type": "spm"}))
    return folder


def text_of(folder: Path) -> TranscriptEncoder:
    (encoder,) = loaded(folder).text
    return encoder


def test_float16_weights_load_to_float32_and_heads_are_left_out(deberta: Path) -> None:
    model, _ = load_text(open_checkpoint(str(deberta)))
    stored = torch.load(deberta / "pytorch_model.bin")
    found = model.state_dict()
    assert {f"deberta.{name}" for name in found} == {name for name in stored if name.startswith("deberta.")}
    for name, one in found.items():
        assert one.dtype == torch.float32
        assert torch.equal(one, stored[f"deberta.{name}"].float())


def test_vectors_are_those_of_hugging_face(deberta: Path) -> None:
    encoder = text_of(deberta)
    ((vectors, tokens),) = encoder.encode(turns("I know the Gardens"))
    model = DebertaV2Model.from_pretrained(deberta, dtype=torch.float32)
    with torch.inference_mode():
        expected = model(torch.from_numpy(tokens[:, 0]).long()[None]).last_hidden_state[0].numpy()
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert [spec.name for spec in encoder.specs] == ["mini", "mini.tokens"]


def test_tokens_are_those_of_sentencepiece(deberta: Path) -> None:
    reference = sentencepiece.SentencePieceProcessor(model_file=str(deberta / "spm.model"))
    ((_, tokens),) = text_of(deberta).encode(turns("so I know, don't you."))
    assert tokens[:, 0].tolist() == [1, *reference.encode("so I know, don't you."), 2]


def test_spans_are_of_the_transcript_as_stored_without_the_space_before_a_word(deberta: Path) -> None:
    ((_, tokens),) = text_of(deberta).encode(turns(TEXT))
    spans = tokens[tokens[:, 2] > tokens[:, 1], 1:]
    assert "".join(TEXT[start:end] for start, end in spans) == "\xe9,IknowtheGardens,caf\xe9so"
    assert {"know", "the", "Gardens", "so"} <= {TEXT[start:end] for start, end in spans}
    assert (spans[1:, 0] >= spans[:-1, 1]).all()  # no two of them overlap
    assert tokens[[0, 1, -1], 1:].tolist() == [[0, 0]] * 3  # [CLS], the space before the first word, [SEP]


def test_it_takes_as_many_tokens_as_it_was_trained_with(deberta: Path) -> None:
    assert AutoTokenizer.from_pretrained(deberta).model_max_length > 10**9
    fits, beyond = text_of(deberta).plan(turns("the " * (TEXT_POSITIONS - 2), "the " * (TEXT_POSITIONS - 1)))
    assert fits.rows == (TEXT_POSITIONS, TEXT_POSITIONS)
    assert beyond.failure == f"{TEXT_POSITIONS + 1} tokens, the encoder allows {TEXT_POSITIONS}; pass --truncate to cut"


def lack(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setattr(f"featurize.encoders.huggingface.is_{package}_available", lambda: False)


@pytest.mark.parametrize("package", ["sentencepiece", "protobuf"])
def test_without_what_reads_the_tokenizer_one_line_names_the_extra(
    deberta: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    lack(monkeypatch, package)
    with pytest.raises(MmerError, match=rf"which needs {package}; run `pip install sentencepiece protobuf`"):
        loaded(deberta)


def test_a_converted_tokenizer_needs_neither(deberta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = shutil.copytree(deberta, tmp_path / "mini")
    AutoTokenizer.from_pretrained(deberta).save_pretrained(copy)
    assert (copy / "tokenizer.json").is_file()
    expected = text_of(deberta)
    lack(monkeypatch, "sentencepiece")
    lack(monkeypatch, "protobuf")
    found = text_of(copy)
    for text in (TEXT, "don't"):
        np.testing.assert_array_equal(found.encode(turns(text))[0][1], expected.encode(turns(text))[0][1])


def test_the_format_of_the_weights_does_not_enter_the_key(deberta: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(deberta, tmp_path / "mini", ignore=shutil.ignore_patterns("*.bin"))
    model, _ = load_text(open_checkpoint(str(deberta)))
    model.half().save_pretrained(copy)  # type: ignore[operator]
    again, _ = load_text(open_checkpoint(str(copy)))
    assert weights_digest(again) == weights_digest(load_text(open_checkpoint(str(deberta)))[0])


def test_what_lacks_weights_is_refused(deberta: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(deberta, tmp_path / "mini")
    weights = torch.load(copy / "pytorch_model.bin")
    torch.save(without("deberta.encoder.rel_embeddings")(weights), copy / "pytorch_model.bin")
    with pytest.raises(MmerError, match=r"lacks 1 weights \(first: encoder\.rel_embeddings\.weight\)"):
        loaded(copy)


def test_the_convolution_of_deberta_v2_is_refused(deberta: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(deberta, tmp_path / "mini")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "conv_kernel_size": 3}))
    with pytest.raises(MmerError, match=r"convolution after its first layer.* such as microsoft/deberta-v3-base$"):
        loaded(copy)
