"""CBCA: the word that is replaced, the words that replace it, and the encoder around them."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    DebertaV2Config,
    DebertaV2ForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    PreTrainedTokenizerFast,
)

from cache.errors import MmerError
from cache.stream import NO_VIEW
from featurize.encoders.catalog import parse_requests
from featurize.encoders.huggingface import load_masked_lm, open_checkpoint, weights_digest
from featurize.encoders.load import load_encoders
from featurize.encoders.options import EncodingOptions
from featurize.encoders.tiny import build_roberta_tiny, build_roberta_tiny_lm, build_roberta_tiny_tokenizer
from featurize.inputs.transcript import Turn
from featurize.views.catalog import ViewRequest
from featurize.views.cbca import CbcaView, WordFiller
from featurize.views.load import load_views
from tests.support.models import DEBERTA_SIZE, DISTILBERT_SIZE, TEXT_POSITIONS, TEXT_SIZE

CPU = torch.device("cpu")
TEXTS = [
    "Well, I don't know the garden; we see 3 trees!",
    "again the garden",
    "pterodactyl",
    "my brother saw (the) warm-hearted ZEBRA.",
    "so\u2019s the sea of cold winter nights",
]
PIECES = ("##s", "##ing", ".", ",", "'", "!", "7", "-")
WORDS = (
    *("i", "we", "you", "know", "love", "see", "the", "a", "so", "not", "garden", "tree", "trees", "sun", "sea"),
    *("cold", "warm", "rain", "never", "always", "hate"),
)


def text_encoder(source: str, **options: Any) -> Any:
    loaded = load_encoders(parse_requests([source]), EncodingOptions(device=CPU, dtype="float32", **options))
    return loaded, loaded.text[0]


def view_of(source: str, count: int = 5, **options: Any) -> Any:
    loaded, _ = text_encoder(source, **options)
    (view,) = load_views([ViewRequest(kind="cbca", count=count)], loaded, parse_requests([source]))
    return view


@pytest.fixture(scope="module")
def tiny() -> Any:
    return view_of("roberta-tiny")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Masked language models of the other families with a word-piece tokenizer, and one without a head."""
    folder = tmp_path_factory.mktemp("models")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *PIECES, *WORDS]
    tokenizer = Tokenizer(models.WordPiece(vocab={word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {"unk": "[UNK]", "pad": "[PAD]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    fast: Any = PreTrainedTokenizerFast  # transformers does not type its constructor
    made = fast(tokenizer_object=tokenizer, model_max_length=24, **{f"{k}_token": v for k, v in special.items()})
    size = len(vocabulary)
    torch.manual_seed(0)
    for name, model in {
        "bert": BertForMaskedLM(BertConfig(**TEXT_SIZE, vocab_size=size)),
        "distilbert": DistilBertForMaskedLM(DistilBertConfig(**DISTILBERT_SIZE, vocab_size=size)),
        "deberta": DebertaV2ForMaskedLM(DebertaV2Config(**DEBERTA_SIZE, vocab_size=size)),
        "headless": BertModel(BertConfig(**TEXT_SIZE, vocab_size=size)),
    }.items():
        model.save_pretrained(folder / name)
        made.save_pretrained(folder / name)
    return folder


def changed_words(text: str, other: str) -> list[tuple[str, str]]:
    before, after = (
        re.findall(r"\w+(?:['\u2019]\w+)*|[^\w\s]", text),
        re.findall(r"\w+(?:['\u2019]\w+)*|[^\w\s]", other),
    )
    assert len(before) == len(after)
    return [(one, two) for one, two in zip(before, after, strict=True) if one != two]


@pytest.mark.parametrize("count", [1, 3, 20])
def test_each_text_differs_in_exactly_one_word_and_from_every_other_text(count: int) -> None:
    view = view_of("roberta-tiny", count)
    for index, text in enumerate(TEXTS):
        texts = view.texts(Turn(text, id=f"u{index}"))
        assert len(texts) == len({one.casefold() for one in texts}) == count
        changes = [changed_words(text, one) for one in texts]
        assert all(len(change) == 1 for change in changes)
        assert len({change[0][0] for change in changes}) == 1  # all fill the same gap
        for ((original, word),) in changes:
            assert word.casefold() != original.casefold()
            assert re.fullmatch(r"[^\W\d_]+", word), "a whole word, no piece, no punctuation"
            assert f"\u0120{word}" in view._encoder.tokenizer.get_vocab()


@pytest.mark.parametrize("family", ["bert", "distilbert", "deberta"])
def test_every_family_fills_with_the_best_words_of_its_model(checkpoints: Path, family: str) -> None:
    view = view_of(str(checkpoints / family), 4)
    model: Any = load_masked_lm(open_checkpoint(str(checkpoints / family)))
    tokenizer = view._encoder.tokenizer
    for index in range(8):
        text = "so we know the gardens, never cold"
        texts = view.texts(Turn(text, id=f"u{index}"))
        ((original, _),) = changed_words(text, texts[0])
        batch = tokenizer(text.replace(original, "[MASK]", 1) if original != "so" else "[MASK]" + text[2:])
        gap = batch["input_ids"].index(tokenizer.mask_token_id)
        with torch.inference_mode():
            logits = model(**{name: torch.tensor([batch[name]]) for name in ("input_ids", "attention_mask")}).logits
        ranked = [tokenizer.convert_ids_to_tokens(token) for token in logits[0, gap].argsort(descending=True).tolist()]
        expected = [word for word in ranked if word in WORDS and word != original][:4]
        assert [changed_words(text, one)[0][1] for one in texts] == expected


def test_the_word_depends_on_the_utterance_and_the_seed_and_on_no_order(tiny: Any) -> None:
    text = "today we know the garden and the sea in the cold winter of the north"
    turns = [Turn(text, id=f"u{index}") for index in range(12)]
    first = [tiny.texts(turn) for turn in turns]
    assert [tiny.texts(turn) for turn in reversed(turns)] == first[::-1]
    gaps = {changed_words(text, texts[0])[0][0] for texts in first}
    assert len(gaps) > 5
    encoder, filler = tiny._encoder, tiny._filler
    other = CbcaView(encoder, filler, weights="w", count=5, seed=1)
    assert [other.texts(turn) for turn in turns] != first
    assert [view_of("roberta-tiny").texts(turn) for turn in turns[:5]] == first[:5]


def test_fewer_texts_are_the_first_of_more(tiny: Any) -> None:
    turn = Turn(TEXTS[0], id="u")
    assert view_of("roberta-tiny", 2).texts(turn) == tiny.texts(turn)[:2]


def test_rows_are_those_of_the_encoder_over_each_text(tiny: Any) -> None:
    turns = [Turn(text, id=f"u{index}") for index, text in enumerate(TEXTS)]
    found = tiny.encode(turns)
    assert [plan.rows for plan in tiny.plan(turns)] == [tuple(len(rows) for rows in one) for one in found]
    for turn, rows in zip(turns, found, strict=True):
        assert len(rows) == 5
        for text, vectors in zip(tiny.texts(turn), rows, strict=True):
            np.testing.assert_allclose(vectors, tiny._encoder.encode([Turn(text)])[0][0], atol=1e-5)


def test_several_layers_have_each_all_texts() -> None:
    loaded = load_encoders(parse_requests(["roberta-tiny", "roberta-tiny@4"]), EncodingOptions(device=CPU))
    requests = parse_requests(["roberta-tiny", "roberta-tiny@4"])
    (view,) = load_views([ViewRequest(kind="cbca", count=2)], loaded, requests)
    names = ["roberta-tiny~cbca1", "roberta-tiny~cbca2", "roberta-tiny@4~cbca1", "roberta-tiny@4~cbca2"]
    assert [spec.name for spec in view.specs] == names
    last, _, fourth, _ = view.encode([Turn(TEXTS[1], id="u")])[0]
    text = view.texts(Turn(TEXTS[1], id="u"))[0]  # type: ignore[attr-defined]
    expected = loaded.text[0].encode([Turn(text)])[0]
    np.testing.assert_array_equal(last, expected[0])
    np.testing.assert_array_equal(fourth, expected[1])


def test_the_turns_before_stay_as_they_are() -> None:
    view = view_of("roberta-tiny", 2, history=2)
    turn = Turn("again the garden", ("we know", "so cold"), "u")
    assert [spec.name for spec in view.specs] == ["roberta-tiny+history2~cbca1", "roberta-tiny+history2~cbca2"]
    texts, (rows,) = view.texts(turn), view.encode([turn])
    assert all(len(changed_words("again the garden", text)) == 1 for text in texts)
    expected = view._encoder.encode([Turn(texts[1], turn.before)])[0][0]
    np.testing.assert_allclose(rows[1], expected, atol=1e-5)


@pytest.mark.parametrize("text", ["", "  ", "...", "[LAUGHTER]", "42 !", "(hello)"])
def test_a_transcript_without_a_word_gets_no_view_and_says_so(tiny: Any, text: str) -> None:
    (plan,) = tiny.plan([Turn(text, id="u")])
    assert plan.failure == f"{NO_VIEW}the transcript has no word to replace"
    with pytest.raises(MmerError, match="utterance u: the language model has 0 words for the gap, 5 requested"):
        tiny.texts(Turn(text, id="u"))


def test_no_word_of_an_event_tag_is_replaced() -> None:
    view = view_of("roberta-tiny", 3, event_tags="keep")
    for index in range(10):
        for text in view.texts(Turn("[door slams] no [LAUGHTER]", id=f"u{index}")):
            assert re.fullmatch(r"\[door slams\] \w+ \[LAUGHTER\]", text)


def test_a_text_over_the_limit_is_planned_as_its_encoder_plans_it(checkpoints: Path) -> None:
    long = " ".join(["we", "know"] * 20)
    for options, expected in (({}, 0), ({"truncate": True}, TEXT_POSITIONS)):
        view = view_of(str(checkpoints / "bert"), 2, **options)
        (plan,) = view.plan([Turn(long, id="u")])
        assert plan.rows == ((expected,) * 2 if expected else ())
        assert bool(plan.failure) == (not expected)
        assert not plan.failure.startswith(NO_VIEW)
    (rows,) = view.encode([Turn(long, id="u")])
    assert [len(one) for one in rows] == [TEXT_POSITIONS] * 2


def test_fewer_words_than_requested_are_found_before_anything_is_computed(checkpoints: Path) -> None:
    _, encoder = text_encoder(str(checkpoints / "bert"))
    model: Any = load_masked_lm(open_checkpoint(str(checkpoints / "bert")))
    filler = WordFiller(model, encoder.tokenizer, max_tokens=24, device=CPU)
    enough, too_many = (CbcaView(encoder, filler, weights="w", count=count) for count in (len(WORDS) - 1, len(WORDS)))
    turn = Turn("we know", id="u")
    assert enough.plan([turn])[0].rows
    assert len(enough.texts(turn)) == len(WORDS) - 1
    assert too_many.plan([turn])[0].failure.startswith(NO_VIEW)


def test_a_checkpoint_without_a_language_model_is_one_line(checkpoints: Path) -> None:
    with pytest.raises(
        MmerError, match=r"headless has no language-model head \(6 weights are missing, first: cls\."
    ) as e:
        view_of(str(checkpoints / "headless"))
    assert "\n" not in str(e.value)


def test_the_key_records_the_view_with_all_its_parameters(tiny: Any) -> None:
    original = tiny._encoder.specs[0]
    model = build_roberta_tiny_lm()
    for rank, spec in enumerate(tiny.specs, start=1):
        assert (spec.name, spec.view, spec.encoder) == (f"roberta-tiny~cbca{rank}", "cbca", "roberta-tiny")
        added = {name: spec.preprocessing[name] for name in spec.preprocessing.keys() - original.preprocessing.keys()}
        assert added.pop("view.model").startswith(f"{weights_digest(model)} ")
        assert added == {"view": "cbca", "view.seed": 0, "view.rank": rank}
    assert len({spec.key for spec in tiny.specs}) == 5


def test_the_language_model_of_the_demo_leaves_its_encoder_as_it_is() -> None:
    model, base = build_roberta_tiny_lm(), build_roberta_tiny()
    assert weights_digest(model.roberta) == weights_digest(base)
    assert weights_digest(model) == weights_digest(build_roberta_tiny_lm())
    tokens = build_roberta_tiny_tokenizer()("again the garden", return_tensors="pt")
    with torch.inference_mode():
        states = base(**tokens).last_hidden_state
        torch.testing.assert_close(model(**tokens).logits, model.lm_head(states))
        assert torch.equal(model.lm_head.decoder.weight, base.embeddings.word_embeddings.weight)
