"""What can describe a class, and where it lies: words with their contextual vectors, frames with their codevectors.

Source: LE-MER (Wang et al., 2023, arXiv:2309.02106), section 2.2. L-4, a deviation: training has no text encoder at
hand that could read the words of a description, so a word stands for the mean of the cached contextual token vectors of
its occurrences in the training utterances (their own words, not those of the history). Each word weighs the same. The
stop words of L-3 are scikit-learn's, among which are some that may tell an emotion: alone, cry, never, nothing, please.
A class whose own name nobody says starts at random where ``label-word`` asks for it, which is told.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from cache.errors import MmerError
from fusion.inputs import TrainingRows
from fusion.label_descriptions import Choice, choose_items, overlap_note

Floats = npt.NDArray[np.float64]
WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")  # "don't" is one word, and then no alphabetic one
SHORT_NAMES: Mapping[str, str] = {
    "ang": "angry",
    "dis": "disgust",
    "exc": "excited",
    "fea": "fear",
    "fru": "frustrated",
    "hap": "happy",
    "neu": "neutral",
    "sur": "surprise",
}  # as IEMOCAP writes them


@dataclass(frozen=True)
class Word:
    """A word that was said, in lower case, and the rows of the tokens that spell it, int64 ``(tokens,)``."""

    text: str
    rows: npt.NDArray[np.int64]


def said_words(text: str, tokens: npt.NDArray[Any]) -> list[Word]:
    """Finds the words of a transcript that the text encoder read: no event tag it was spared, nothing cut off.

    Args:
        text: transcript as stored.
        tokens: id and character span of each token, ``(tokens, 3)``; an empty span belongs to no word.

    Example:
        >>> said_words("[SIGH] I see", np.array([[0, 0, 0], [5, 7, 8], [6, 9, 12], [2, 0, 0]]))
        [Word(text='i', rows=array([1])), Word(text='see', rows=array([2]))]
    """
    starts, ends = tokens[:, 1], tokens[:, 2]
    words = [
        Word(match[0].lower(), np.flatnonzero((starts < match.end()) & (ends > match.start()) & (starts < ends)))
        for match in WORD.finditer(text)
    ]
    return [word for word in words if len(word.rows)]


def telling_words(words: Iterable[Word]) -> list[str]:
    """Keeps the words that may describe a class: alphabetic, and no stop words."""
    return [word.text for word in words if word.text.isalpha() and word.text not in ENGLISH_STOP_WORDS]


def label_words(name: str) -> list[str]:
    """Gives the words that a class is named by.

    Example:
        >>> label_words("hap"), label_words("happy+excited")
        (['happy'], ['happy', 'excited'])
    """
    return [SHORT_NAMES.get(word, word) for word in WORD.findall(name.lower())]


def word_rows(
    rows: TrainingRows, classes: Sequence[str], choice: Choice | None
) -> tuple[list[Floats | None], list[str]]:
    """Describes each class by words, as one vector: the mean of theirs.

    Args:
        rows: the training part of the fold; ``tokens`` and ``text`` are read.
        classes: their names.
        choice: of the words; None for those of the class's name.

    Returns:
        A vector ``(dim,)`` per class, None where no word of its name was said, and notes.

    Raises:
        MmerError: if no word describes a class.
    """
    said = [said_words(rows.text(place), rows.rows("tokens", place)) for place in range(len(rows))]
    words = [label_words(name) for name in classes]
    notes: list[str] = []
    if choice is not None:
        words, notes = choose_items([telling_words(one) for one in said], rows.labels, classes, choice)
        _check_described(words, classes, "word", "text_labels=random")
        notes = [f"words of {note}" for note in notes] + [overlap_note(words, classes, "words")]
    vectors = word_vectors({word for one in words for word in one}, said, rows)
    told = [[word for word in one if word in vectors] for one in words]
    means = [np.mean([vectors[word] for word in one], axis=0) if one else None for one in told]
    return means, [*map(_told, classes, told), *notes]


def code_rows(
    rows: TrainingRows, classes: Sequence[str], choice: Choice, codevectors: npt.NDArray[Any]
) -> tuple[Floats, list[str]]:
    """Describes each class by frames: the mean codevector of the joint codes that are chosen for it.

    Args:
        rows: the training part of the fold; ``codes`` are read.
        classes: their names.
        choice: of the joint codes.
        codevectors: of all groups, ``(groups * V, dim / groups)``.

    Returns:
        ``(classes, dim)``, and notes.

    Raises:
        MmerError: if no code describes a class.
    """
    codes = [rows.rows("codes", place) for place in range(len(rows))]
    groups = codes[0].shape[1]
    documents = [joint_codes(one, len(codevectors) // groups).tolist() for one in codes]
    chosen, notes = choose_items(documents, rows.labels, classes, choice)
    _check_described(chosen, classes, "code", "tonal_labels=random")
    vectors = np.stack([mean_codevector(one, codevectors, groups) for one in chosen])
    return vectors, [*(f"frames of {note}" for note in notes), overlap_note(chosen, classes, "frames")]


def word_vectors(
    wanted: Iterable[str], words: Sequence[Sequence[Word]], rows: TrainingRows
) -> dict[str, npt.NDArray[np.float64]]:
    """Averages the vectors of words over all their occurrences in the training utterances, of whatever class.

    Args:
        wanted: words, in lower case.
        words: those of each training utterance.
        rows: the training part of the fold; its ``text`` is read where one of the words was said.

    Returns:
        The vector of each word that occurs, ``(dim,)``; stacked layers are averaged, as their learned mix starts.
    """
    wanted, found = set(wanted), defaultdict(list)
    for place, said in enumerate(words):
        here = [word for word in said if word.text in wanted]
        vectors = np.asarray(rows.rows("text", place) if here else [], dtype=np.float64)
        for word in here if len(vectors) else []:
            spelt = vectors[word.rows]  # (tokens, dim) or (tokens, layers, dim)
            found[word.text].append(spelt.reshape(-1, spelt.shape[-1]).mean(axis=0))
    return {text: np.mean(occurrences, axis=0) for text, occurrences in found.items()}


def joint_codes(codes: npt.NDArray[Any], per_group: int) -> npt.NDArray[np.int64]:
    """Gives one id per frame, ``(frames,)``, from the code of each group, ``(frames, groups)``.

    Example:
        >>> joint_codes(np.array([[1, 2], [0, 319]]), 320)
        array([322, 319])
    """
    joint = np.zeros(len(codes), dtype=np.int64)
    for group in codes.T.astype(np.int64):
        joint = joint * per_group + group
    return joint


def mean_codevector(ids: Sequence[int], codevectors: npt.NDArray[Any], groups: int) -> Floats:
    """Averages the vectors of joint codes; each is the concatenation over groups of row ``g * V + code``.

    Args:
        ids: joint codes.
        codevectors: of all groups, ``(groups * V, dim / groups)``.
        groups: of the quantizer.

    Returns:
        ``(dim,)``
    """
    per_group = len(codevectors) // groups
    codes = np.stack(np.unravel_index(np.asarray(ids), (per_group,) * groups), axis=-1)  # (items, groups)
    vectors = codevectors[codes + per_group * np.arange(groups)]  # (items, groups, dim / groups)
    mean: Floats = vectors.reshape(len(codes), -1).mean(axis=0, dtype=np.float64)
    return mean


def _told(name: str, words: Sequence[str]) -> str:
    if not words:
        return f"{name} by chance: no training utterance says the word"
    return f"{name} by the words {', '.join(words)}"


def _check_described(items: Sequence[Sequence[Any]], classes: Sequence[str], what: str, way_out: str) -> None:
    for name, chosen in zip(classes, items, strict=True):
        if not chosen:
            raise MmerError(f"no {what} of the training utterances can describe the class {name}; set {way_out}")
