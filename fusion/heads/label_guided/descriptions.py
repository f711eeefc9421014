"""Chooses what describes each class, words or quantizer codes, by TF-IDF over the training part of a fold.

Source: LE-MER (Wang et al., 2023, arXiv:2309.02106), section 2.2: "TF-IDF on the text corpus under one class".
L-3: documents of the IDF are training utterances. With the classes as documents it is 0 for whatever all of them have
(``idf="class"``). The frequency is a share of the class's items: within a class that ranks as counts do, and with
`contrast` it lets classes of different sizes compare.

What can describe a class, and where it lies: words with their contextual vectors, frames with their codevectors.

Source: LE-MER (Wang et al., 2023, arXiv:2309.02106), section 2.2. L-4, a deviation: training has no text encoder at
hand that could read the words of a description, so a word stands for the mean of the cached contextual token vectors of
its occurrences in the training utterances (their own words, not those of the history). Each word weighs the same. The
stop words of L-3 are scikit-learn's, among which are some that may tell an emotion: alone, cry, never, nothing, please.
A class whose own name nobody says starts at random where ``label-word`` asks for it, which is told.
"""

import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from cache.errors import MmerError
from fusion.head import TrainingRows

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
UTTERANCE, CLASS = "utterance", "class"
IDF = (UTTERANCE, CLASS)
MOST_OVERLAP, MOST_COSINE = 0.5, 0.99  # L-3: above these, two classes are described alike
Item = TypeVar("Item", bound=Hashable)


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
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS  # here: other heads need no scikit-learn

    return [word.text for word in words if word.text.isalpha() and word.text not in ENGLISH_STOP_WORDS]


def label_words(name: str) -> list[str]:
    """Gives the words that a class is named by.

    Example:
        >>> label_words("hap"), label_words("happy+excited")
        (['happy'], ['happy', 'excited'])
    """
    return [SHORT_NAMES.get(word, word) for word in WORD.findall(name.lower())]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How the items that describe a class are chosen.

    Attributes:
        most: how many at most.
        idf: what counts as a document, ``utterance`` or ``class``.
        contrast: whether the mean score in the other classes is subtracted.
        min_count: training utterances that an item must occur in, where a class has enough such items.
    """

    most: int
    idf: str = UTTERANCE
    contrast: bool = False
    min_count: int = 5

    def __post_init__(self) -> None:
        for name in ("most", "min_count"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.idf not in IDF:
            raise ValueError(f"idf must be one of {', '.join(IDF)}, got {self.idf!r}")


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


def choose_items(
    documents: Sequence[Sequence[Item]], labels: npt.NDArray[np.int64], classes: Sequence[str], choice: Choice
) -> tuple[list[list[Item]], list[str]]:
    """Chooses the items that describe each class, best first, ties by the item's own order.

    Where a class has too few items that occur in `Choice.min_count` utterances, rarer ones count for it too.

    Args:
        documents: items of each training utterance, with repetition.
        labels: class of each, ``(utterances,)``.
        classes: their names.
        choice: how to choose.

    Returns:
        The items of each class, and notes on classes with fewer or rarer ones than asked for.

    Example:
        >>> said = [["rage", "door"], ["joy", "door"], ["joy"]]
        >>> choose_items(said, np.array([0, 1, 1]), ["angry", "happy"], Choice(most=1, min_count=1))
        ([['rage'], ['joy']], [])
    """
    if not any(len(document) for document in documents):
        return [[] for _ in classes], []
    from sklearn.feature_extraction.text import CountVectorizer  # here, as above

    vectorizer = CountVectorizer(analyzer=list)
    counts = vectorizer.fit_transform(documents)
    items = vectorizer.get_feature_names_out().tolist()  # sorted
    scores = tf_idf(counts, labels, len(classes), idf=choice.idf)
    scores = _contrasted(scores) if choice.contrast else scores
    having = _total(counts > 0)
    chosen, notes = [], []
    for name, present, score in zip(classes, _by_class(counts, labels, len(classes)) > 0, scores, strict=True):
        least = _least_count(having[present], choice)
        possible = np.flatnonzero(present & (having >= least))
        best = possible[np.argsort(-score[possible], kind="stable")][: choice.most]
        chosen.append([items[place] for place in best.tolist()])
        if len(best) < choice.most or least < choice.min_count:
            notes.append(f"{name}: {len(best)} of {choice.most}, in {least} utterances or more, not {choice.min_count}")
    return chosen, notes


def tf_idf(counts: Any, labels: npt.NDArray[np.int64], classes: int, *, idf: str = UTTERANCE) -> Floats:
    """Scores each item in each class: its share of the class times ``ln((1 + documents) / (1 + those that have it))``.

    scikit-learn's TfidfTransformer is another formula.

    Args:
        counts: of each item in each utterance, ``(utterances, items)``, dense or sparse.
        labels: class of each utterance, ``(utterances,)``.
        classes: how many there are.
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
    shares: Floats = of_class / np.maximum(of_class.sum(axis=1, keepdims=True), 1)
    scores: Floats = shares * rarity
    return scores


def overlap_note(items: Sequence[Sequence[Item]], classes: Sequence[str], what: str) -> str:
    """Says which two classes share most of their items, by the Jaccard index.

    Example:
        >>> overlap_note([["no", "you"], ["no", "joy", "yes"]], ["angry", "happy"], "words")
        'words: angry and happy share most, overlap 0.25'
    """
    sets = [set(one) for one in items]
    overlaps = {
        (one, other): len(sets[one] & sets[other]) / max(len(sets[one] | sets[other]), 1)
        for one, other in combinations(range(len(sets)), 2)
    }
    return _note(overlaps, classes, f"{what}: %s share most, overlap", MOST_OVERLAP)


def cosine_note(rows: npt.NDArray[Any], classes: Sequence[str], what: str) -> str:
    """Says which two classes have the closest vectors, of ``(classes, dim)`` (T004-9).

    Example:
        >>> cosine_note(np.array([[1.0, 0.0], [2.0, 0.0]]), ["angry", "happy"], "tones")
        'tones: angry and happy are closest, cosine 1.000 (above 0.99: hardly told apart)'
    """
    units = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    cosines = {(one, other): float(units[one] @ units[other]) for one, other in combinations(range(len(rows)), 2)}
    return _note(cosines, classes, f"{what}: %s are closest, cosine", MOST_COSINE)


def _told(name: str, words: Sequence[str]) -> str:
    if not words:
        return f"{name} by chance: no training utterance says the word"
    return f"{name} by the words {', '.join(words)}"


def _check_described(items: Sequence[Sequence[Any]], classes: Sequence[str], what: str, way_out: str) -> None:
    for name, chosen in zip(classes, items, strict=True):
        if not chosen:
            raise MmerError(f"no {what} of the training utterances can describe the class {name}; set {way_out}")


def _contrasted(scores: Floats) -> Floats:
    """Subtracts from each class's scores the mean of the others'."""
    others = max(len(scores) - 1, 1)
    contrasted: Floats = scores - (scores.sum(axis=0) - scores) / others
    return contrasted


def _by_class(counts: Any, labels: npt.NDArray[np.int64], classes: int) -> Floats:
    return np.stack([_total(counts[labels == index]) for index in range(classes)])


def _total(counts: Any) -> Floats:
    """Sums over utterances, which gives a matrix for sparse counts."""
    total: Floats = np.asarray(counts.sum(axis=0), dtype=np.float64).ravel()
    return total


def _least_count(having: Floats, choice: Choice) -> int:
    """Gives in how many utterances an item must occur, so that a class with these items has enough of them."""
    if not len(having):
        return choice.min_count
    enough = np.sort(having)[::-1][: choice.most][-1]
    return min(choice.min_count, int(enough))


def _note(pairs: Mapping[tuple[int, int], float], classes: Sequence[str], told: str, most: float) -> str:
    if not pairs:
        return ""
    one, other = max(pairs, key=lambda pair: pairs[pair])
    value = pairs[one, other]
    digits = 2 if most == MOST_OVERLAP else 3
    warning = f" (above {most:g}: hardly told apart)" if value > most else ""
    return f"{told % f'{classes[one]} and {classes[other]}'} {value:.{digits}f}{warning}"
