from pathlib import Path
from typing import Any

import pytest
import torch

from cache.layout import REASON_BYTES
from cache.store import FeatureCache
from cache.writer import Row
from featurize.encoders.catalog import parse_requests
from featurize.encoders.load import load_encoders
from featurize.encoders.options import EncodingOptions
from featurize.encoders.tiny import build_roberta_tiny, build_roberta_tiny_tokenizer
from featurize.extraction.encode import EncodeInput, encode_inputs
from featurize.inputs.transcript import Turn
from tests.support.voices import computed_anew, contents, featurized, write_corpus, write_voices

OVERFLOWED = "in float32: float16 overflowed"
NOISY, CLEAN = "so\0 nice", "so nice"  # the same transcript once it is cleaned


@pytest.fixture(scope="module")
def overflowing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text encoder with a layer too large for float16, after which a norm makes it small again."""
    folder = tmp_path_factory.mktemp("overflowing")
    model: Any = build_roberta_tiny()
    model.encoder.layer[0].intermediate.dense.bias.data[:] = 1e5
    model.save_pretrained(folder)
    build_roberta_tiny_tokenizer().save_pretrained(folder)
    return folder


def notes(cache: Path, stream: str) -> list[str]:
    held = FeatureCache(cache)
    return [held.stream(stream).reason(index) for index in range(len(held))]


def test_what_encoding_showed_outlives_the_next_run(tmp_path: Path, overflowing: Path) -> None:
    manifest, cache = write_voices(tmp_path, "ab"), tmp_path / "a.h5"
    how: dict[str, Any] = {"encoders": (f"big={overflowing}",), "mel": False, "precision": "float16"}
    featurized(manifest, cache, **how)
    assert notes(cache, "big") == notes(cache, "big.tokens") == [OVERFLOWED] * 2
    before = contents(cache)
    assert computed_anew(manifest, cache, **how) == {}
    assert contents(cache) == before


@pytest.mark.parametrize(("first", "then"), [(NOISY, CLEAN), (CLEAN, NOISY)])
def test_only_what_is_noticed_about_the_transcript_is_renewed(
    tmp_path: Path, overflowing: Path, first: str, then: str
) -> None:
    write_voices(tmp_path, "a")
    cache = tmp_path / "a.h5"
    how: dict[str, Any] = {"encoders": (f"big={overflowing}", "roberta-tiny"), "mel": False, "precision": "float16"}
    told = {NOISY: "1 NUL character removed", CLEAN: ""}
    for text in (first, then):
        computed_anew(write_corpus(tmp_path, [{"id": "a", "text": text}]), cache, **how)
        assert notes(cache, "roberta-tiny") == [told[text]]
        assert notes(cache, "big") == ["; ".join([OVERFLOWED, *filter(None, [told[text]])])]


def test_a_long_note_of_the_transcript_does_not_cut_off_what_encoding_showed(overflowing: Path) -> None:
    options = EncodingOptions(device=torch.device("cpu"), precision="float16")
    (encoder,) = load_encoders(parse_requests([f"big={overflowing}"]), options).text
    source = EncodeInput(index=0, value=Turn("so nice"), digests=(bytes(16), bytes(16)), note="x" * REASON_BYTES)
    for row in encode_inputs(encoder, [source]):
        assert isinstance(row, Row)
        assert row.note.startswith(f"{OVERFLOWED}; x")
