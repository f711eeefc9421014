"""Descriptions of classes for LE-MER: words and quantizer codes, selected by TF-IDF, and the mean of their vectors.

Only the training subset of a fold is read. Source: LE-MER (Wang et al., 2023, arXiv:2309.02106), section 2.2, which
selects the items of a class by TF-IDF over its utterances. Deviations (docs/decisions.md#le-mer):

- L-3: documents of the IDF are training utterances. With classes as documents (``idf="class"``) it is 0 for every item
  that all classes contain. The term frequency is the share of an item in its class: within a class it ranks items as
  counts do, and with `contrast` it makes classes of different sizes comparable. The stop words are those of
  scikit-learn; some of them may indicate an emotion: alone, cry, never, nothing, please.
- L-4: the words of a class, joined by spaces, pass the encoder of the text stream where it is available. Elsewhere a
  word is represented by the mean of the cached contextual token vectors of its occurrences in the training utterances
  (in the utterances themselves, not in their history), and each word of a class has the same weight; with
  ``label-word`` a class whose name never occurs then starts at random, and a note says so.
"""

import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from cache.errors import MmerError
from fusion.arrays import ClassIds
from fusion.head_config import EncodeTexts, TrainingRows
from fusion.heads.configs.label_guided import CLASS, UTTERANCE, ItemSelection

FloatArray: TypeAlias = npt.NDArray[np.float64]
WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")  # "don't" is one word, which is not alphabetic
SHORT_NAMES: Mapping[str, str] = {
    "ang": "angry",
    "dis": "disgust",
    "exc": "excited",
    "fea": "fear",
    "fru": "frustrated",
    "hap": "happy",
    "neu": "neutral",
    "sur": "surprise",
}  # of IEMOCAP
MAX_OVERLAP, MAX_COSINE = 0.5, 0.99  # L-3: above these, two classes have nearly the same description
Item = TypeVar("Item", bound=Hashable)


@dataclass(frozen=True)
class Word:
    """A spoken word in lower case, and the rows of its tokens, int64 ``(tokens,)``."""

    text: str
    rows: npt.NDArray[np.int64]


def class_vectors_from_words(
    rows: TrainingRows,
    classes: Sequence[str],
    selection: ItemSelection | None,
    encode: EncodeTexts | None = None,
) -> tuple[list[FloatArray | None], list[str]]:
    """Computes one vector per class: that of its words as a text, or the mean of the vectors of its words.

    Args:
        rows: the training subset of the fold; ``tokens`` and ``text`` are read.
        classes: names of the classes.
        selection: rules for the words; None for the words of the class name.
        encode: text encoder; None for the vectors of the training utterances.

    Returns:
        A vector ``(dim,)`` per class, and notes; None without an encoder if no word of the name of the class occurs.

    Raises:
        MmerError: if no word can describe a class.
    """
    spoken = [transcript_words(rows.text(index), rows.rows("tokens", index)) for index in range(len(rows))]
    words = [label_words(name) for name in classes]
    notes: list[str] = []
    if selection is not None:
        words, notes = select_items(
            [descriptive_words(document) for document in spoken], rows.labels, classes, selection
        )
        _check_described(words, classes, "word", "text_labels=random")
        notes = [f"words of {note}" for note in notes] + [overlap_note(words, classes, "words")]
    if encode is not None:
        texts = [" ".join(of_class) for of_class in words]
        return list(encode(texts)), [*map(_description_note, classes, words), *notes]
    vectors = word_vectors({word for of_class in words for word in of_class}, spoken, rows)
    described = [[word for word in of_class if word in vectors] for of_class in words]
    means = [np.mean([vectors[word] for word in found], axis=0) if found else None for found in described]
    return means, [*map(_description_note, classes, described), *notes]


def class_vectors_from_codes(
    rows: TrainingRows, classes: Sequence[str], selection: ItemSelection, codevectors: npt.NDArray[Any]
) -> tuple[FloatArray, list[str]]:
    """Computes one vector per class: the mean codevector of the joint codes that are selected for it.

    Args:
        rows: the training subset of the fold; ``codes`` are read.
        classes: names of the classes.
        selection: rules for the joint codes.
        codevectors: codevectors of all groups, ``(groups * V, dim / groups)``.

    Returns:
        ``(classes, dim)``, and notes.

    Raises:
        MmerError: if no code can describe a class.
    """
    codes = [rows.rows("codes", index) for index in range(len(rows))]
    groups = codes[0].shape[1]
    documents = [joint_codes(frames, len(codevectors) // groups).tolist() for frames in codes]
    selected, notes = select_items(documents, rows.labels, classes, selection)
    _check_described(selected, classes, "code", "tonal_labels=random")
    vectors = np.stack([mean_codevector(ids, codevectors, groups) for ids in selected])
    return vectors, [*(f"frames of {note}" for note in notes), overlap_note(selected, classes, "frames")]


def transcript_words(text: str, tokens: npt.NDArray[Any]) -> list[Word]:
    """Finds the words of a transcript that the text encoder read.

    Event tags that the encoder does not read, and words that were cut off, have no tokens and are left out.

    Args:
        text: transcript as stored.
        tokens: id and character span of each token, ``(tokens, 3)``; an empty span belongs to no word.

    Example:
        >>> transcript_words("[SIGH] I see", np.array([[0, 0, 0], [5, 7, 8], [6, 9, 12], [2, 0, 0]]))
        [Word(text='i', rows=array([1])), Word(text='see', rows=array([2]))]
    """
    starts, ends = tokens[:, 1], tokens[:, 2]
    words = [
        Word(match[0].lower(), np.flatnonzero((starts < match.end()) & (ends > match.start()) & (starts < ends)))
        for match in WORD.finditer(text)
    ]
    return [word for word in words if len(word.rows)]


def descriptive_words(words: Iterable[Word]) -> list[str]:
    """Selects the words that may describe a class: alphabetic, and not a stop word."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS  # here: other heads do not need scikit-learn

    return [word.text for word in words if word.text.isalpha() and word.text not in ENGLISH_STOP_WORDS]


def label_words(name: str) -> list[str]:
    """Returns the words of a class name.

    Example:
        >>> label_words("hap"), label_words("happy+excited")
        (['happy'], ['happy', 'excited'])
    """
    return [SHORT_NAMES.get(word, word) for word in WORD.findall(name.lower())]


def word_vectors(wanted: Iterable[str], words: Sequence[Sequence[Word]], rows: TrainingRows) -> dict[str, FloatArray]:
    """Averages the vectors of words over all their occurrences in the training utterances, whatever the class.

    Args:
        wanted: words, in lower case.
        words: words of each training utterance.
        rows: the training subset of the fold; its ``text`` is read where a wanted word occurs.

    Returns:
        The vector of each word that occurs, ``(dim,)``; stacked layers are averaged, which is how their learned mix
        starts.
    """
    wanted, found = set(wanted), defaultdict(list)
    for index, spoken in enumerate(words):
        here = [word for word in spoken if word.text in wanted]
        vectors = np.asarray(rows.rows("text", index) if here else [], dtype=np.float64)
        for word in here if len(vectors) else []:
            tokens = vectors[word.rows]  # (tokens, dim) or (tokens, layers, dim)
            found[word.text].append(tokens.reshape(-1, tokens.shape[-1]).mean(axis=0))
    return {text: np.mean(occurrences, axis=0) for text, occurrences in found.items()}


def joint_codes(codes: npt.NDArray[Any], per_group: int) -> npt.NDArray[np.int64]:
    """Computes one id per frame, ``(frames,)``, from the codes of all groups, ``(frames, groups)``.

    Example:
        >>> joint_codes(np.array([[1, 2], [0, 319]]), 320)
        array([322, 319])
    """
    joint = np.zeros(len(codes), dtype=np.int64)
    for group in codes.T.astype(np.int64):
        joint = joint * per_group + group
    return joint


def mean_codevector(ids: Sequence[int], codevectors: npt.NDArray[Any], groups: int) -> FloatArray:
    """Averages the vectors of joint codes; each is the concatenation over groups of row ``g * V + code``.

    Args:
        ids: joint codes.
        codevectors: codevectors of all groups, ``(groups * V, dim / groups)``.
        groups: number of groups of the quantizer.

    Returns:
        ``(dim,)``
    """
    per_group = len(codevectors) // groups
    codes = np.stack(np.unravel_index(np.asarray(ids), (per_group,) * groups), axis=-1)  # (items, groups)
    vectors = codevectors[codes + per_group * np.arange(groups)]  # (items, groups, dim / groups)
    mean: FloatArray = vectors.reshape(len(codes), -1).mean(axis=0, dtype=np.float64)
    return mean


def select_items(
    documents: Sequence[Sequence[Item]], labels: ClassIds, classes: Sequence[str], selection: ItemSelection
) -> tuple[list[list[Item]], list[str]]:
    """Selects the items that describe each class, best first; ties follow the order of the items.

    If a class has too few items that occur in `ItemSelection.min_count` utterances, rarer items are accepted for it.

    Args:
        documents: items of each training utterance, with repetition.
        labels: class of each utterance, ``(utterances,)``.
        classes: names of the classes.
        selection: rules of the selection.

    Returns:
        The items of each class, and notes on classes with fewer or rarer items than requested.

    Example:
        >>> said = [["rage", "door"], ["joy", "door"], ["joy"]]
        >>> select_items(said, np.array([0, 1, 1]), ["angry", "happy"], ItemSelection(most=1, min_count=1))
        ([['rage'], ['joy']], [])
    """
    if not any(len(document) for document in documents):
        return [[] for _ in classes], []
    from sklearn.feature_extraction.text import CountVectorizer  # here: see `descriptive_words`

    vectorizer = CountVectorizer(analyzer=list)
    counts = vectorizer.fit_transform(documents)
    items = vectorizer.get_feature_names_out().tolist()  # sorted
    scores = tf_idf(counts, labels, len(classes), idf=selection.idf)
    scores = _contrasted(scores) if selection.contrast else scores
    utterances = _total(counts > 0)  # (items,)
    selected, notes = [], []
    for name, present, score in zip(classes, _by_class(counts, labels, len(classes)) > 0, scores, strict=True):
        least = _least_count(utterances[present], selection)
        possible = np.flatnonzero(present & (utterances >= least))
        best = possible[np.argsort(-score[possible], kind="stable")][: selection.most]
        selected.append([items[index] for index in best.tolist()])
        if len(best) < selection.most or least < selection.min_count:
            found = f"{len(best)} of {selection.most} found"
            notes.append(f"{name}: {found}, each in at least {least} utterances (min_count {selection.min_count})")
    return selected, notes


def tf_idf(counts: Any, labels: ClassIds, classes: int, *, idf: str = UTTERANCE) -> FloatArray:
    """Computes a score of each item in each class.

    It is the share of the item in the class times ``ln((1 + documents) / (1 + documents with the item))``. The
    TfidfTransformer of scikit-learn computes another formula.

    Args:
        counts: number of occurrences of each item in each utterance, ``(utterances, items)``, dense or sparse.
        labels: class of each utterance, ``(utterances,)``.
        classes: number of classes.
        idf: whether an ``utterance`` or a ``class`` is a document.

    Returns:
        ``(classes, items)``

    Example:
        >>> tf_idf(np.array([[1, 1], [0, 2]]), np.array([0, 1]), 2).round(4)
        array([[0.2027, 0.    ],
               [0.    , 0.    ]])
    """
    of_class = _by_class(counts, labels, classes)
    documents = of_class if idf == CLASS else counts
    rarity = np.log((1 + documents.shape[0]) / (1 + _total(documents > 0)))
    shares: FloatArray = of_class / np.maximum(of_class.sum(axis=1, keepdims=True), 1)
    scores: FloatArray = shares * rarity
    return scores


def overlap_note(items: Sequence[Sequence[Item]], classes: Sequence[str], what: str) -> str:
    """Formats which two classes share the most items, by the Jaccard index.

    Example:
        >>> overlap_note([["no", "you"], ["no", "joy", "yes"]], ["angry", "happy"], "words")
        'words: angry and happy overlap most, Jaccard index 0.25'
    """
    sets = [set(of_class) for of_class in items]
    overlaps = {
        (first, second): len(sets[first] & sets[second]) / max(len(sets[first] | sets[second]), 1)
        for first, second in combinations(range(len(sets)), 2)
    }
    return _pair_note(overlaps, classes, what, "overlap most, Jaccard index", limit=MAX_OVERLAP, digits=2)


def cosine_note(rows: npt.NDArray[Any], classes: Sequence[str], what: str) -> str:
    """Formats which two classes have the closest vectors, from ``(classes, dim)`` (T004-9).

    Example:
        >>> cosine_note(np.array([[1.0, 0.0], [2.0, 0.0]]), ["angry", "happy"], "tones")
        'tones: angry and happy are closest, cosine 1.000 (above 0.99: hardly distinguishable)'
    """
    units = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    cosines = {
        (first, second): float(units[first] @ units[second]) for first, second in combinations(range(len(rows)), 2)
    }
    return _pair_note(cosines, classes, what, "are closest, cosine", limit=MAX_COSINE, digits=3)


def _check_described(items: Sequence[Sequence[Hashable]], classes: Sequence[str], what: str, way_out: str) -> None:
    for name, selected in zip(classes, items, strict=True):
        if not selected:
            raise MmerError(f"no {what} of the training utterances can describe the class {name}; set {way_out}")


def _description_note(name: str, words: Sequence[str]) -> str:
    if not words:
        return f"{name} starts at random: no training utterance contains its name"
    return f"{name} is described by the words {', '.join(words)}"


def _contrasted(scores: FloatArray) -> FloatArray:
    """Subtracts from the scores of each class the mean of those of the other classes."""
    others = max(len(scores) - 1, 1)
    contrasted: FloatArray = scores - (scores.sum(axis=0) - scores) / others
    return contrasted


def _by_class(counts: Any, labels: ClassIds, classes: int) -> FloatArray:
    return np.stack([_total(counts[labels == index]) for index in range(classes)])


def _total(counts: Any) -> FloatArray:
    """Sums over utterances, ``(items,)``; the sum of sparse counts is a matrix."""
    total: FloatArray = np.asarray(counts.sum(axis=0), dtype=np.float64).ravel()
    return total


def _least_count(utterances: FloatArray, selection: ItemSelection) -> int:
    """Computes the number of utterances in which an item must occur so that a class has enough items.

    Args:
        utterances: number of utterances in which each item of the class occurs, ``(items,)``.
        selection: rules of the selection.
    """
    if not len(utterances):
        return selection.min_count
    enough = np.sort(utterances)[::-1][: selection.most][-1]
    return min(selection.min_count, int(enough))


def _pair_note(
    values: Mapping[tuple[int, int], float],
    classes: Sequence[str],
    what: str,
    relation: str,
    *,
    limit: float,
    digits: int,
) -> str:
    """Formats the pair of classes with the greatest value; empty if there is no pair."""
    if not values:
        return ""
    first, second = max(values, key=lambda pair: values[pair])
    value = values[first, second]
    warning = f" (above {limit:g}: hardly distinguishable)" if value > limit else ""
    return f"{what}: {classes[first]} and {classes[second]} {relation} {value:.{digits}f}{warning}"
