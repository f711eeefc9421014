"""Word error rates, against jiwer and by hand."""

import jiwer
import pytest

from featurize.asr.word_errors import count_word_errors


def test_the_rate_is_that_of_jiwer_on_normalized_texts() -> None:
    pairs = [("Kids are talking by the door.", "kids were talking by the door"), ("[LAUGHTER] I know!", "i know it")]
    found = count_word_errors("w.asr", pairs)
    assert found is not None
    own, heard = ["kids are talking by the door", "i know"], ["kids were talking by the door", "i know it"]
    assert found.rate == pytest.approx(jiwer.wer(own, heard))
    assert (found.errors, found.words, found.utterances) == (2, 8, 2)


def test_numbers_and_contractions_are_spelt_alike() -> None:
    found = count_word_errors("w.asr", [("It's twenty one dollars", "it is $21")])
    assert found is not None
    assert found.errors <= 1


def test_texts_without_a_word_do_not_count() -> None:
    assert count_word_errors("w.asr", [("...", "hello"), ("", "you")]) is None
