import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from featurize.encoders.text import text_layers
from featurize.extraction.parity import TOLERANCE, deviation, reference_text
from featurize.inputs.transcript import STRIP, spoken
from tests.support.models import (
    CHOICES,
    TEXT_FAMILIES,
    TEXT_LAYERS,
    TEXTS,
    chosen_of,
    text_encoder,
    text_model,
    text_tokenizer,
    turns,
    worst,
)


@pytest.mark.parametrize("family", TEXT_FAMILIES)
@settings(max_examples=15)
@given(texts=st.lists(TEXTS, min_size=1, max_size=5))
def test_a_batch_gives_what_each_transcript_gives_alone(family: str, texts: list[str]) -> None:
    encoder = text_encoder(family, truncate=True)
    for text, rows in zip(texts, encoder.encode(turns(*texts)), strict=True):
        expected = reference_text(encoder, spoken(text, STRIP).text)
        assert deviation(rows[0], expected)[0] <= TOLERANCE
        np.testing.assert_array_equal(rows[1], encoder.encode(turns(text))[0][1])


@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_hidden_layers_are_those_of_hugging_face(family: str) -> None:
    encoder = text_encoder(family, *CHOICES)
    texts = ["I know", "so. I know the gardens. So", ""]
    for text, rows in zip(texts, encoder.encode(turns(*texts)), strict=True):
        with torch.inference_mode():
            output = text_model(family)(**text_tokenizer(family)(text, return_tensors="pt"), output_hidden_states=True)
        assert worst(rows[:-1], chosen_of(output)) <= TOLERANCE
    assert [spec.name for spec in encoder.specs] == ["a@1", "a@0,2", "a@all", "a@mean1-2", "a", "a.tokens"]
    assert [spec.shape for spec in encoder.specs] == [(32,), (2, 32), (3, 32), (32,), (32,), (3,)]
    assert len(text_layers(text_model(family))) == TEXT_LAYERS


@pytest.mark.parametrize("text", ["", "  ", "[LAUGHTER]", " [LAUGHTER] [BREATHING]\n"])
@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_a_transcript_without_words_gives_the_special_tokens(family: str, text: str) -> None:
    encoder = text_encoder(family)
    (planned,) = encoder.plan(turns(text))
    assert (planned.rows, planned.note, planned.failure) == ((2, 2), "", "")
    vectors, tokens = encoder.encode(turns(text))[0]
    assert np.isfinite(vectors).all()
    assert tokens.tolist() == [[2 if family != "roberta" else 0, 0, 0], [3 if family != "roberta" else 2, 0, 0]]


@settings(max_examples=30)
@given(
    text=TEXTS,
    family=st.sampled_from(TEXT_FAMILIES),
    truncate=st.booleans(),
    event_tags=st.sampled_from(["strip", "keep"]),
)
def test_as_many_rows_as_planned(text: str, family: str, truncate: bool, event_tags: str) -> None:
    encoder = text_encoder(family, "last", "0,1", truncate=truncate, event_tags=event_tags)
    (planned,) = encoder.plan(turns(text))
    if not planned.failure:
        assert tuple(len(rows) for rows in encoder.encode(turns(text))[0]) == planned.rows
        assert len(planned.rows) == len(encoder.specs)


def test_half_precision_is_close_and_gives_float32_on_demand() -> None:
    texts = ["I know", "so. I know the gardens."]
    full = text_encoder("bert").encode(turns(*texts))
    half = text_encoder("bert", precision=torch.bfloat16)
    batches = zip(half.encode(turns(*texts)), full, half.encode(turns(*texts), precise=True), strict=True)
    for rows, exact, precise in batches:
        assert 1e-5 < deviation(rows[0], exact[0])[0] < 0.05
        assert rows[0].dtype == np.float32
        np.testing.assert_array_equal(rows[1], exact[1])
        np.testing.assert_array_equal(precise[0], exact[0])


def test_the_specs_say_what_is_stored() -> None:
    vectors, tokens = text_encoder("bert", precision=torch.float32).specs
    assert (vectors.role, vectors.shape, vectors.weights, vectors.layers) == ("text", (32,), "w", "last")
    assert (tokens.role, tokens.shape, tokens.dtype, tokens.weights) == ("tokens", (3,), "int32", "")
