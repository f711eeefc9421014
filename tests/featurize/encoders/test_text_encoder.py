from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)

from cache.stream import StreamSpec
from featurize.encoders.layers import parse_layers
from featurize.encoders.text import TextEncoder, count_layers, max_tokens
from featurize.encoders.tiny import build_roberta_tiny_tokenizer
from featurize.parity import TOLERANCE, deviation, reference_text
from featurize.transcript import STRIP, spoken

LAYERS, POSITIONS = 2, 24
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "i", "know", "the", "garden", "##s", "so", ".", "don", "'", "t"]
SIZE: Mapping[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": POSITIONS,
}
FAMILIES = ("bert", "roberta", "distilbert")
TEXTS = st.lists(st.sampled_from(["I", "know", "the", "Gardens", "[LAUGHTER]", "zebra", "don't", "so.", " "])).map(
    " ".join
)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Models as small as these are ten times slower when threads of several processes wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def word_pieces() -> Any:
    tokenizer = Tokenizer(models.WordPiece(vocab={word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    fast: Any = PreTrainedTokenizerFast  # transformers does not type its constructor
    return fast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]")


@cache
def bytes_of_roberta() -> Any:
    return build_roberta_tiny_tokenizer()


@cache
def model_of(family: str) -> Any:
    torch.manual_seed(0)
    models_: Mapping[str, Any] = {
        "bert": lambda: BertModel(BertConfig(**SIZE, vocab_size=len(WORDS)), add_pooling_layer=False),
        "roberta": lambda: RobertaModel(
            RobertaConfig(**SIZE, vocab_size=len(bytes_of_roberta()), pad_token_id=1), add_pooling_layer=False
        ),
        "distilbert": lambda: DistilBertModel(
            DistilBertConfig(
                vocab_size=len(WORDS),
                dim=32,
                n_layers=LAYERS,
                n_heads=2,
                hidden_dim=64,
                max_position_embeddings=POSITIONS,
            )
        ),
    }
    model = models_[family]().eval()
    for parameter in model.parameters():  # a fresh model hides what biases and norms do
        if parameter.ndim == 1:
            parameter.data += 0.2 * torch.randn_like(parameter)
    return model


def tokenizer_of(family: str) -> Any:
    return bytes_of_roberta() if family == "roberta" else word_pieces()


def encoder_of(
    family: str,
    *layers: str,
    event_tags: str = STRIP,
    truncate: bool = False,
    precision: torch.dtype = torch.float32,
) -> TextEncoder:
    return TextEncoder(
        model=model_of(family),
        tokenizer=tokenizer_of(family),
        spec=StreamSpec(name="a", role="text", source="a", weights="w", shape=(1,), dtype="float32"),
        choices=[parse_layers(text, layers=LAYERS, encoder="a") for text in layers or ("last",)],
        event_tags=event_tags,
        truncate=truncate,
        device=torch.device("cpu"),
        precision=precision,
    )


@pytest.mark.parametrize("family", FAMILIES)
@settings(deadline=None, max_examples=25)
@given(texts=st.lists(TEXTS, min_size=1, max_size=5))
def test_a_batch_gives_what_each_transcript_gives_alone(family: str, texts: list[str]) -> None:
    encoder = encoder_of(family, truncate=True)
    for text, rows in zip(texts, encoder.encode(texts), strict=True):
        expected = reference_text(encoder, spoken(text, STRIP).text)
        assert deviation(rows[0], expected)[0] <= TOLERANCE
        np.testing.assert_array_equal(rows[1], encoder.encode([text])[0][1])


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_layers_are_those_of_hugging_face(family: str) -> None:
    encoder = encoder_of(family, "1", "0,2", "all", "mean1-2", "last")
    texts = ["I know", "so. I know the gardens. So", ""]
    for text, rows in zip(texts, encoder.encode(texts), strict=True):
        with torch.inference_mode():
            output = model_of(family)(**tokenizer_of(family)(text, return_tensors="pt"), output_hidden_states=True)
        hidden = [state[0].numpy() for state in output.hidden_states]
        expected = [
            hidden[1],
            np.stack([hidden[0], hidden[2]], axis=1),
            np.stack(hidden, axis=1),
            (hidden[1] + hidden[2]) / 2,
            output.last_hidden_state[0].numpy(),
        ]
        for one, other in zip(rows, expected, strict=False):
            assert one.shape == other.shape
            assert deviation(one, other)[0] <= TOLERANCE
    assert [spec.name for spec in encoder.specs] == ["a@1", "a@0,2", "a@all", "a@mean1-2", "a", "a.tokens"]
    assert [spec.shape for spec in encoder.specs] == [(32,), (2, 32), (3, 32), (32,), (32,), (3,)]
    assert count_layers(model_of(family)) == LAYERS


def test_tokens_are_ids_and_spans_of_the_transcript_as_stored() -> None:
    text = " I  know [LAUGHTER] the\tGardens, so."
    vectors, tokens = encoder_of("bert").encode([text])[0]
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
    kept = encoder_of("bert", event_tags="keep").encode([text])[0][1]
    assert [text[start:end] for _, start, end in kept] == ["", "so", "[", "so", "the", "]", "so", ""]
    stripped = encoder_of("bert").encode([text])[0][1]
    assert [(start, end) for _, start, end in stripped] == [(0, 0), (0, 2), (12, 14), (0, 0)]


def test_an_event_tag_parts_the_words_around_it() -> None:
    text = "gar[LAUGHTER]den"
    tokens = encoder_of("bert").encode([text])[0][1]
    assert [text[start:end] for _, start, end in tokens] == ["", "gar", "den", ""]


@settings(deadline=None, max_examples=50)
@given(text=TEXTS | st.text(max_size=6))
def test_spans_of_byte_tokens_lie_in_the_transcript_in_order(text: str) -> None:
    encoder = encoder_of("roberta", truncate=True)
    tokens = encoder.encode([text])[0][1]
    spans = tokens[1:-1, 1:]
    assert (spans[:, 0] <= spans[:, 1]).all()
    assert (spans <= len(text)).all()
    inner = spans[spans[:, 1] > spans[:, 0]]
    assert (np.diff(inner[:, 0]) >= 0).all()
    words = spoken(text, STRIP)
    if len(tokens) < encoder.max_tokens:
        covered = {position for start, end in inner for position in range(start, end)}
        assert covered >= {place for place in words.positions.tolist() if not text[place].isspace()}


@pytest.mark.parametrize("text", ["", "  ", "[LAUGHTER]", " [LAUGHTER] [BREATHING]\n"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_transcript_without_words_gives_the_special_tokens(family: str, text: str) -> None:
    encoder = encoder_of(family)
    (planned,) = encoder.plan([text])
    assert (planned.rows, planned.note, planned.failure) == ((2, 2), "", "")
    vectors, tokens = encoder.encode([text])[0]
    assert np.isfinite(vectors).all()
    assert tokens.tolist() == [[2 if family != "roberta" else 0, 0, 0], [3 if family != "roberta" else 2, 0, 0]]


@pytest.mark.parametrize(
    ("family", "limit"), [("bert", POSITIONS), ("distilbert", POSITIONS), ("roberta", POSITIONS - 2)]
)
def test_an_encoder_takes_as_many_tokens_as_it_has_positions(family: str, limit: int) -> None:
    encoder = encoder_of(family)
    assert encoder.max_tokens == max_tokens(model_of(family), tokenizer_of(family)) == limit
    fits, beyond = ("the " * count for count in (limit - 2, limit - 1))
    assert len(encoder.encode([fits])[0][0]) == limit
    ids = torch.tensor([tokenizer_of(family)(beyond)["input_ids"]])
    with pytest.raises((IndexError, RuntimeError)):  # the model itself cannot take one more
        model_of(family)(input_ids=ids)


def test_a_tokenizer_may_take_less_than_its_model() -> None:
    tokenizer = build_roberta_tiny_tokenizer()
    tokenizer.model_max_length = 12
    assert max_tokens(model_of("roberta"), tokenizer) == 12


@pytest.mark.parametrize("family", FAMILIES)
def test_a_transcript_that_is_too_long_fails_with_both_numbers(family: str) -> None:
    limit = encoder_of(family).max_tokens
    fits, long = encoder_of(family).plan(["the " * (limit - 2), "the " * (limit + 3)])
    assert (fits.rows, fits.failure) == ((limit, limit), "")
    assert long.failure == f"{limit + 5} tokens, the encoder takes {limit}; --truncate cuts"
    assert long.rows == ()


@pytest.mark.parametrize("family", FAMILIES)
def test_truncation_keeps_the_beginning_and_is_noted(family: str) -> None:
    encoder = encoder_of(family, truncate=True)
    limit, text = encoder.max_tokens, "know " + "the " * 40
    (planned,) = encoder.plan([text])
    assert planned.note == f"truncated from 43 to {limit} tokens"
    assert (planned.rows, planned.cost, planned.failure) == ((limit, limit), limit, "")
    vectors, tokens = encoder.encode([text])[0]
    assert len(vectors) == len(tokens) == limit
    assert [text[start:end].strip() for _, start, end in tokens[[0, 1, -2, -1]]] == ["", "know", "the", ""]
    assert tokens[-1, 0] == encoder.encode(["the"])[0][1][-1, 0]  # the closing special token


def test_words_unknown_to_the_vocabulary_are_noted() -> None:
    known, unknown = encoder_of("bert").plan(["I know", "I know 中 zebra"])
    assert known.note == ""
    assert unknown.note == "2 tokens unknown to the vocabulary"
    assert encoder_of("roberta").plan(["中 zebra"])[0].note == ""  # spelt in bytes


@settings(deadline=None, max_examples=30)
@given(
    text=TEXTS, family=st.sampled_from(FAMILIES), truncate=st.booleans(), event_tags=st.sampled_from(["strip", "keep"])
)
def test_as_many_rows_as_planned(text: str, family: str, truncate: bool, event_tags: str) -> None:
    encoder = encoder_of(family, "last", "0,1", truncate=truncate, event_tags=event_tags)
    (planned,) = encoder.plan([text])
    if not planned.failure:
        assert tuple(len(rows) for rows in encoder.encode([text])[0]) == planned.rows
        assert len(planned.rows) == len(encoder.specs)


def test_half_precision_is_close_and_gives_float32_on_demand() -> None:
    texts = ["I know", "so. I know the gardens."]
    full = encoder_of("bert").encode(texts)
    half = encoder_of("bert", precision=torch.bfloat16)
    for rows, exact, precise in zip(half.encode(texts), full, half.encode(texts, precise=True), strict=True):
        assert 1e-5 < deviation(rows[0], exact[0])[0] < 0.05
        assert rows[0].dtype == np.float32
        np.testing.assert_array_equal(rows[1], exact[1])
        np.testing.assert_array_equal(precise[0], exact[0])


def test_the_specs_say_what_is_stored() -> None:
    vectors, tokens = encoder_of("bert", precision=torch.float32).specs
    assert (vectors.role, vectors.shape, vectors.weights, vectors.layers) == ("text", (32,), "w", "last")
    assert (tokens.role, tokens.shape, tokens.dtype, tokens.weights) == ("tokens", (3,), "int32", "")
