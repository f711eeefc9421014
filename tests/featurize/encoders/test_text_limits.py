import pytest
import torch

from featurize.encoders.text import max_model_tokens
from featurize.encoders.tiny import build_roberta_tiny_tokenizer
from tests.support.models import TEXT_FAMILIES, TEXT_POSITIONS, text_encoder, text_model, text_tokenizer, turns


@pytest.mark.parametrize(
    ("family", "limit"), [("bert", TEXT_POSITIONS), ("distilbert", TEXT_POSITIONS), ("roberta", TEXT_POSITIONS - 2)]
)
def test_an_encoder_takes_as_many_tokens_as_it_has_positions(family: str, limit: int) -> None:
    encoder = text_encoder(family)
    assert encoder.max_tokens == max_model_tokens(text_model(family), text_tokenizer(family)) == limit
    fits, beyond = ("the " * count for count in (limit - 2, limit - 1))
    assert len(encoder.encode(turns(fits))[0][0]) == limit
    ids = torch.tensor([text_tokenizer(family)(beyond)["input_ids"]])
    with pytest.raises((IndexError, RuntimeError)):  # the model itself cannot take one more
        text_model(family)(input_ids=ids)


def test_a_tokenizer_may_take_less_than_its_model() -> None:
    tokenizer = build_roberta_tiny_tokenizer()
    tokenizer.model_max_length = 12
    assert max_model_tokens(text_model("roberta"), tokenizer) == 12


@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_a_transcript_that_is_too_long_fails_with_both_numbers(family: str) -> None:
    limit = text_encoder(family).max_tokens
    fits, long = text_encoder(family).plan(turns("the " * (limit - 2), "the " * (limit + 3)))
    assert (fits.rows, fits.failure) == ((limit, limit), "")
    assert long.failure == f"{limit + 5} tokens, the encoder allows {limit}; pass --truncate to cut"
    assert long.rows == ()


@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_truncation_keeps_the_beginning_and_is_noted(family: str) -> None:
    encoder = text_encoder(family, truncate=True)
    limit, text = encoder.max_tokens, "know " + "the " * 40
    (planned,) = encoder.plan(turns(text))
    assert planned.note == f"truncated from 43 to {limit} tokens"
    assert (planned.rows, planned.cost, planned.failure) == ((limit, limit), limit, "")
    vectors, tokens = encoder.encode(turns(text))[0]
    assert len(vectors) == len(tokens) == limit
    assert [text[start:end].strip() for _, start, end in tokens[[0, 1, -2, -1]]] == ["", "know", "the", ""]
    assert tokens[-1, 0] == encoder.encode(turns("the"))[0][1][-1, 0]  # the closing special token


def test_words_unknown_to_the_vocabulary_are_noted() -> None:
    known, unknown = text_encoder("bert").plan(turns("I know", "I know 中 zebra"))
    assert known.note == ""
    assert unknown.note == "2 tokens unknown to the vocabulary"
    assert text_encoder("roberta").plan(turns("中 zebra"))[0].note == ""  # spelt in bytes
