import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings

from featurize.inputs.transcript import STRIP, spoken
from tests.support.models import TEXTS, WORDS, text_encoder, turns


def test_tokens_are_ids_and_spans_of_the_transcript_as_stored() -> None:
    text = " I  know [LAUGHTER] the\tGardens, so."
    vectors, tokens = text_encoder("bert").encode(turns(text))[0]
    assert tokens.dtype == np.int32
    assert tokens.shape == (len(vectors), 3)
    found = [(WORDS[token], text[start:end]) for token, start, end in tokens]
    assert found == [
        ("[CLS]", ""),
        ("i", "I"),
        ("know", "know"),
        ("the", "the"),
        ("garden", "Garden"),
        ("##s", "s"),
        ("[UNK]", ","),
        ("so", "so"),
        (".", "."),
        ("[SEP]", ""),
    ]


def test_kept_event_tags_are_tokens_too() -> None:
    text = "so [so the] so"
    kept = text_encoder("bert", event_tags="keep").encode(turns(text))[0][1]
    assert [text[start:end] for _, start, end in kept] == ["", "so", "[", "so", "the", "]", "so", ""]
    stripped = text_encoder("bert").encode(turns(text))[0][1]
    assert [(start, end) for _, start, end in stripped] == [(0, 0), (0, 2), (12, 14), (0, 0)]


def test_an_event_tag_parts_the_words_around_it() -> None:
    text = "gar[LAUGHTER]den"
    tokens = text_encoder("bert").encode(turns(text))[0][1]
    assert [text[start:end] for _, start, end in tokens] == ["", "gar", "den", ""]


@settings(max_examples=50)
@given(text=TEXTS | st.text(max_size=6))
def test_spans_of_byte_tokens_lie_in_the_transcript_in_order(text: str) -> None:
    encoder = text_encoder("roberta", truncate=True)
    tokens = encoder.encode(turns(text))[0][1]
    spans = tokens[1:-1, 1:]
    assert (spans[:, 0] <= spans[:, 1]).all()
    assert (spans <= len(text)).all()
    inner = spans[spans[:, 1] > spans[:, 0]]
    assert (np.diff(inner[:, 0]) >= 0).all()
    words = spoken(text, STRIP)
    if len(tokens) < encoder.max_tokens:
        covered = {position for start, end in inner for position in range(start, end)}
        assert covered >= {position for position in words.positions.tolist() if not text[position].isspace()}
