"""A text encoder with a history: what it reads, what it drops, and which tokens are the utterance's own."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from cache.errors import MmerError
from featurize.encoders.text import TextEncoder
from featurize.extraction.parity import TOLERANCE, reference_text
from featurize.inputs.transcript import Turn, spoken
from tests.support.models import TEXT_FAMILIES, TEXTS, text_encoder, worst

HISTORY = 3


def with_history(family: str, *, max_tokens: int | None = None, truncate: bool = False) -> TextEncoder:
    return text_encoder(family, history=HISTORY, max_tokens=max_tokens, truncate=truncate)


@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_the_history_stands_before_the_turn_in_one_text(family: str) -> None:
    encoder, turn = with_history(family), Turn("so what?", ("I know", "[LAUGHTER]", "the garden."))
    assert encoder.words(turn) == "I know the garden. so what?"
    found = encoder.encode([turn, Turn("so", ("I know the the the the",))])[0][0]
    assert worst([found], [reference_text(encoder, "I know the garden. so what?")]) <= TOLERANCE


@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_only_the_tokens_of_the_turn_itself_have_spans(family: str) -> None:
    text = " so  [LAUGHTER] the\tGardens."
    history, alone = with_history(family), text_encoder(family)
    with_turns = history.encode([Turn(text, ("I know", "so the"))])[0][-1]
    own = alone.encode([Turn(text)])[0][-1]
    spans = with_turns[with_turns[:, 2] > 0]
    np.testing.assert_array_equal(spans, own[own[:, 2] > 0])
    assert len(with_turns) > len(own)


@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_the_oldest_turns_are_dropped_first_and_the_turn_stays_whole(family: str) -> None:
    turn = Turn("know " * 6, ("so " * 3, "the " * 3, "garden " * 3))
    kept = [
        with_history(family, max_tokens=max_tokens).plan([turn])[0] for max_tokens in (8, 10, 11, 13, 14, 16, 17, 24)
    ]
    assert [one.turns for one in kept] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [one.rows[0] for one in kept] == [8, 8, 11, 11, 14, 14, 17, 17]
    encoder = with_history(family, max_tokens=12)
    vectors, tokens = encoder.encode([turn.latest(encoder.plan([turn])[0].turns)])[0]
    assert len(vectors) == len(tokens) == 11
    assert "".join(turn.text[start:end].strip() for _, start, end in tokens) == "know" * 6


def test_a_turn_that_is_too_long_by_itself_fails_without_history_having_a_say() -> None:
    turn = Turn("know " * 9, ("so",))
    (failed,) = with_history("bert", max_tokens=10).plan([turn])
    assert failed.failure == "11 tokens, --max-tokens allows 10; pass --truncate to cut"
    (cut,) = with_history("bert", max_tokens=10, truncate=True).plan([turn])
    assert (cut.turns, cut.rows[0], cut.note) == (0, 10, "truncated from 11 to 10 tokens")


def test_the_streams_say_that_they_read_a_history() -> None:
    names = [spec.name for spec in text_encoder("bert", "last", "1", history=10).specs]
    assert names == ["a+history10", "a@1+history10", "a+history10.tokens"]
    assert {spec.encoder for spec in text_encoder("bert", "last", "1", history=10).specs} == {"a+history10"}


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(TEXT_FAMILIES), TEXTS, st.lists(TEXTS, max_size=HISTORY), st.integers(8, 24))
def test_what_is_planned_is_what_is_encoded(family: str, text: str, before: list[str], max_tokens: int) -> None:
    encoder = with_history(family, max_tokens=max_tokens, truncate=True)
    turn = Turn(text, tuple(before))
    (planned,) = encoder.plan([turn])
    vectors, tokens = encoder.encode([turn.latest(planned.turns)])[0]
    assert len(vectors) == len(tokens) == planned.rows[0] <= max_tokens
    words = spoken(text, "strip")
    assert set(tokens[:, 1]) <= {0, *words.positions.tolist()}
    assert (tokens[:, 2] <= len(text)).all()


def test_a_limit_that_leaves_no_room_for_words_is_refused() -> None:
    with pytest.raises(MmerError, match="--max-tokens must exceed the number of special tokens, 2; got 2"):
        with_history("bert", max_tokens=2, truncate=True)
