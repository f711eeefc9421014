"""Chooses what describes each class, words or quantizer codes, by TF-IDF over the training part of a fold.

Source: LE-MER (Wang et al., 2023, arXiv:2309.02106), section 2.2: "TF-IDF on the text corpus under one class".
L-3: documents of the IDF are training utterances. With the classes as documents it is 0 for whatever all of them have
(``idf="class"``). The frequency is a share of the class's items: within a class that ranks as counts do, and with
`contrast` it lets classes of different sizes compare.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from sklearn.feature_extraction.text import CountVectorizer

UTTERANCE, CLASS = "utterance", "class"
IDF = (UTTERANCE, CLASS)
MOST_OVERLAP, MOST_COSINE = 0.5, 0.99  # L-3: above these, two classes are described alike
Item = TypeVar("Item", bound=Hashable)
Floats = npt.NDArray[np.float64]


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
