import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from featurize.inputs.transcript import (
    CTC_SYMBOLS,
    EVENT_TAG_POLICIES,
    KEEP,
    STRIP,
    clean_text,
    ctc_ids,
    ctc_note,
    spoken,
    text_digest,
)

# vocab.json of facebook/wav2vec2-base-960h, by index
WAV2VEC2_VOCABULARY = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ"]
PIECES = [
    "I",
    " ",
    "\t",
    "\n",
    "\u00a0",
    "know",
    "[LAUGHTER]",
    "[door slams]",
    "[",
    "]",
    "[]",
    "é",
    "😀",
    "'",
    "|",
    "\u3000",
]
TEXTS = st.lists(st.sampled_from(PIECES)).map("".join) | st.text(max_size=40)


def spelt(words: str) -> str:
    return "".join(CTC_SYMBOLS[index] for index in ctc_ids(words))


def test_a_plain_transcript_is_left_as_it_is() -> None:
    assert clean_text("Don't, José — never!") == ("Don't, José — never!", "")


@pytest.mark.parametrize(
    ("text", "cleaned", "note"),
    [
        ("a\0b", "ab", "1 NUL character removed"),
        ("\0a\0", "a", "2 NUL characters removed"),
        ("a\ud800b", "ab", "1 undecodable character removed"),
        ("\udcff\udce9", "", "2 undecodable characters removed; empty transcript"),
        ("\0\ud800 a", " a", "1 NUL character removed; 1 undecodable character removed"),
        ("so 😀", "so 😀", "holds 1 symbol such as 😀"),
        ("😀☂", "😀☂", "holds 2 symbols such as 😀"),
        ("", "", "empty transcript"),
        (" \t\n", " \t\n", "empty transcript"),
    ],
)
def test_what_no_library_takes_is_removed_and_noted(text: str, cleaned: str, note: str) -> None:
    assert clean_text(text) == (cleaned, note)


@given(st.text(st.characters(exclude_categories=[])))
def test_a_cleaned_transcript_can_be_stored_and_is_clean(text: str) -> None:
    cleaned = clean_text(text).text
    assert cleaned.encode().decode() == cleaned
    assert "\0" not in cleaned
    assert clean_text(cleaned).text == cleaned
    assert [character for character in text if character in set(cleaned)] == list(cleaned)


@pytest.mark.parametrize(
    ("text", "stripped", "kept"),
    [
        (" [LAUGHTER]  I  know. ", "I know.", "[LAUGHTER] I know."),
        ("[LAUGHTER]", "", "[LAUGHTER]"),
        ("Oh [BREATHING] no", "Oh no", "Oh [BREATHING] no"),
        ("[door slams] Who?", "Who?", "[door slams] Who?"),
        ("[it's-a/b_c] x", "x", "[it's-a/b_c] x"),
        ("[1] [] [?] [ LAUGHTER]", "[1] [] [?] [ LAUGHTER]", "[1] [] [?] [ LAUGHTER]"),
        ("one\ttwo\n three\u00a0four", "one two three four", "one two three four"),
        (f"[{'a' * 41}]", f"[{'a' * 41}]", f"[{'a' * 41}]"),
        ("", "", ""),
    ],
)
def test_event_tags_are_stripped_or_kept(text: str, stripped: str, kept: str) -> None:
    assert spoken(text, STRIP).text == stripped
    assert spoken(text, KEEP).text == kept


@given(TEXTS, st.sampled_from(EVENT_TAG_POLICIES))
def test_every_spoken_character_is_the_one_at_its_position(text: str, policy: str) -> None:
    words, positions = spoken(text, policy)
    assert positions.dtype == np.int32
    assert len(words) == len(positions)
    assert all(word in {" ", text[position]} for word, position in zip(words, positions, strict=True))
    assert (np.diff(positions) > 0).all()


@given(TEXTS, st.sampled_from(EVENT_TAG_POLICIES))
def test_words_are_apart_by_one_space_and_have_none_around(text: str, policy: str) -> None:
    words = spoken(text, policy).text
    assert words == " ".join(words.split())
    if policy == KEEP:
        assert words.split() == text.split()


@given(st.lists(st.sampled_from(["I", "know", "[LAUGHTER]", "[door slams]", "so."])))
def test_stripping_drops_the_tags_and_nothing_else(words: list[str]) -> None:
    assert spoken(" ".join(words), STRIP).text == " ".join(word for word in words if not word.startswith("["))


def test_the_ctc_vocabulary_is_that_of_wav2vec2_base_960h() -> None:
    assert list(CTC_SYMBOLS) == WAV2VEC2_VOCABULARY
    assert len(CTC_SYMBOLS) == 32


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("I don't know, José!", "I|DON'T|KNOW|JOSE"),
        ("It\u2019s \u2018fine\u2019", "IT'S|'FINE'"),
        ("A  B\tC\n", "A|B|C"),
        ("straße", "STRASSE"),
        ("ﬁne", "FINE"),
        ("at 5 o'clock", "AT|O'CLOCK"),
        ("well-known", "WELLKNOWN"),
        ("a | b <pad>", "A|B|PAD"),
        ("İstanbul", "ISTANBUL"),
        ("...", ""),
        ("", ""),
        ("中文", ""),
        ("- a -", "A"),
        ("no\u2014wait", "NO|WAIT"),
        ("no\u2013wait", "NO|WAIT"),
        ("no--wait", "NO|WAIT"),
        ("no...wait", "NO|WAIT"),
        ("no\u2026wait", "NO|WAIT"),
        ("and/or", "AND|OR"),
        ("yes,no", "YES|NO"),
        ("U.S. word(s)", "US|WORDS"),
    ],
)
def test_ctc_spells_letters_and_apostrophes(words: str, expected: str) -> None:
    assert spelt(words) == expected


def test_ctc_ids_are_indices_of_the_vocabulary() -> None:
    ids = ctc_ids("Zoe's a")
    assert ids.dtype == np.uint8
    assert ids.tolist() == [31, 8, 5, 27, 12, 4, 7]
    assert ctc_ids("").shape == (0,)


@given(TEXTS | st.text(st.sampled_from("abz'\u2019 .-é|<\u0301")))
def test_ctc_never_spells_a_special_symbol_or_an_empty_word(text: str) -> None:
    found = spelt(text)
    assert set(found) <= {"|", *CTC_SYMBOLS[5:]}
    assert not found.startswith("|")
    assert not found.endswith("|")
    assert "||" not in found


@given(st.text(st.sampled_from("ETAONIHSRDLUMWCFGYPBVK'XJQZ ")))
def test_ctc_keeps_whatever_it_can_spell(words: str) -> None:
    assert spelt(words.lower()) == "|".join(words.split())
    assert ctc_note(words) == ""


@pytest.mark.parametrize(
    ("words", "note"),
    [
        ("at 5", "1 character such as 5 not in the CTC vocabulary"),
        ("中文 $", "3 characters such as 中 not in the CTC vocabulary"),
        ("So, well - José\u2019s!", ""),
        ("", ""),
    ],
)
def test_what_ctc_cannot_spell_is_noted(words: str, note: str) -> None:
    assert ctc_note(words) == note


@given(st.text(), st.text())
def test_texts_have_equal_digests_only_if_they_are_equal(text: str, other: str) -> None:
    assert len(text_digest(text)) == 16
    assert (text_digest(text) == text_digest(other)) == (text == other)


@pytest.mark.parametrize(
    ("words", "note"),
    [
        ("AT&T", "1 character such as & not in the CTC vocabulary"),
        ("50% of", "3 characters such as 5 not in the CTC vocabulary"),
        ("no\u2014wait, yes/no...", ""),
        ("\u0915\u093e", "2 characters such as \u0915 not in the CTC vocabulary"),
    ],
)
def test_what_the_ctc_vocabulary_drops_is_counted(words: str, note: str) -> None:
    assert ctc_note(words) == note
