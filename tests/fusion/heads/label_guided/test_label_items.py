from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from cache.errors import MmerError
from fusion.heads.configs.label_guided import ItemSelection
from fusion.heads.label_guided.descriptions import (
    class_vectors_from_codes,
    class_vectors_from_words,
    descriptive_words,
    joint_codes,
    label_words,
    mean_codevector,
    transcript_words,
    word_vectors,
)

ANY = ItemSelection(most=2, min_count=1)
CLASSES = ("angry", "happy")


@dataclass
class Rows:
    """Transcripts of one token a word between two special ones; token ``i`` of utterance ``n`` is ``(10 n + i, 1)``."""

    texts: Sequence[str]
    codes: Sequence[Sequence[Sequence[int]]] = ()
    layers: int = 0
    labels: npt.NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.labels = np.arange(len(self), dtype=np.int64) % 2

    def __len__(self) -> int:
        return len(self.texts or self.codes)

    def text(self, index: int) -> str:
        return self.texts[index]

    def length(self, role: str, index: int) -> int:
        return len(self.rows(role, index))

    def rows(self, role: str, index: int) -> npt.NDArray[Any]:
        if role == "codes":
            return np.array(self.codes[index], dtype=np.uint16)
        tokens = spans(self.texts[index])
        vectors = np.stack([10 * index + np.arange(len(tokens)), np.ones(len(tokens))], axis=1).astype(np.float16)
        vectors = np.stack([vectors, vectors + 2], axis=1) if self.layers else vectors
        return tokens if role == "tokens" else vectors


def spans(text: str) -> npt.NDArray[np.int32]:
    rows, start = [(0, 0, 0)], 0
    for word in text.split(" "):
        rows.append((7, start, start + len(word)))
        start += len(word) + 1
    return np.array([*rows, (2, 0, 0)], dtype=np.int32)


def test_a_word_is_what_its_tokens_spell() -> None:
    tokens = np.array([[0, 0, 0], [1, 0, 2], [2, 2, 6], [3, 6, 7], [4, 8, 13], [2, 0, 0]])
    words = transcript_words("Unhappy! DON'T", tokens)
    assert [(word.text, word.rows.tolist()) for word in words] == [("unhappy", [1, 2, 3]), ("don't", [4])]


def test_what_the_encoder_did_not_read_is_no_word() -> None:
    tokens = np.array([[0, 0, 0], [9, 0, 0], [1, 11, 14], [2, 0, 0]])  # history has no span, the end was cut off
    assert [word.text for word in transcript_words("[LAUGHTER] yes forever", tokens)] == ["yes"]


def test_stop_words_and_what_is_not_alphabetic_tell_nothing() -> None:
    text = "the rage of 1990 don't été 2nd"
    assert descriptive_words(transcript_words(text, spans(text))) == ["rage", "été"]


def test_short_names_of_classes_are_spelled_out() -> None:
    assert [label_words(name) for name in ("ang", "Sad", "hap+exc")] == [["angry"], ["sad"], ["happy", "excited"]]


def test_a_word_stands_where_it_was_said_on_average() -> None:
    rows = Rows(["joy to joy", "no joy"])
    said = [transcript_words(rows.text(index), rows.rows("tokens", index)) for index in range(2)]
    vectors = word_vectors(["joy", "rage"], said, rows)
    assert vectors.keys() == {"joy"}
    np.testing.assert_allclose(vectors["joy"], [(1 + 3 + 12) / 3, 1])


def test_stacked_layers_are_averaged() -> None:
    rows = Rows(["joy"], layers=2)
    np.testing.assert_allclose(word_vectors(["joy"], [transcript_words("joy", spans("joy"))], rows)["joy"], [2, 2])


def test_a_class_is_the_mean_of_its_words_however_often_each_was_said() -> None:
    rows = Rows(["rage rage hate", "joy"])
    vectors, notes = class_vectors_from_words(rows, CLASSES, ANY)
    assert vectors[0] is not None
    np.testing.assert_allclose(vectors[0], [((1 + 2) / 2 + 3) / 2, 1])
    assert notes[:2] == ["angry is described by the words rage, hate", "happy is described by the words joy"]


def test_a_label_word_that_nobody_says_has_no_vector() -> None:
    vectors, notes = class_vectors_from_words(Rows(["so angry", "fine"]), CLASSES, None)
    assert vectors[0] is not None
    np.testing.assert_allclose(vectors[0], [2, 1])
    assert vectors[1] is None
    assert notes == [
        "angry is described by the words angry",
        "happy starts at random: no training utterance contains its name",
    ]


def test_a_class_without_words_is_an_error_with_a_way_out() -> None:
    with pytest.raises(MmerError, match="no word of the training utterances can describe the class happy; set text_"):
        class_vectors_from_words(Rows(["rage", "of the"]), CLASSES, ANY)


def test_joint_codes_count_through_the_groups() -> None:
    codes = np.array([[319, 319], [0, 1], [1, 0]], dtype=np.uint16)
    assert joint_codes(codes, 320).tolist() == [320 * 320 - 1, 1, 320]


def test_the_vector_of_a_code_joins_the_rows_of_its_groups() -> None:
    codevectors = np.arange(12.0).reshape(6, 2)  # two groups of three
    np.testing.assert_allclose(mean_codevector([1 * 3 + 2], codevectors, 2), [2, 3, 10, 11])
    np.testing.assert_allclose(mean_codevector([0, 5], codevectors, 2), np.mean([[0, 1, 6, 7], [2, 3, 10, 11]], axis=0))


def test_frames_describe_a_class_by_their_codevectors() -> None:
    rows = Rows([], codes=[[[0, 1], [0, 1], [2, 2]], [[1, 0], [2, 2]]])
    codevectors = np.arange(12.0).reshape(6, 2)
    vectors, notes = class_vectors_from_codes(rows, CLASSES, ItemSelection(most=1, min_count=1), codevectors)
    np.testing.assert_allclose(vectors, [[0, 1, 8, 9], [2, 3, 6, 7]])
    assert notes == ["frames: angry and happy overlap most, Jaccard index 0.00"]
