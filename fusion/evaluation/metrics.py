"""Scores of a classifier: WA, UA, weighted and macro F1, and the confusion matrix they follow from (systems.md 1.4).

WA is the accuracy, UA the mean recall over all classes of the label set: published code has exchanged the two names.
A class that the truth lacks is an error and is not skipped; a class that is never guessed has precision 0.

Where the truth may lack a class (development subsets, resamples of clusters), UA and both F1 are means over the classes
that the truth holds, whether a class that it lacks is guessed or not. `sklearn.metrics.f1_score` with
``average="macro"`` and ``labels`` of all classes would count such a class as F1 0.
"""

from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from cache.errors import MmerError
from fusion.arrays import ClassIds

Matrix: TypeAlias = npt.NDArray[Any]

METRICS = ("wa", "ua", "wf1", "mf1")


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The four scores as fractions.

    Attributes:
        wa: weighted accuracy, the share of utterances that are right.
        ua: unweighted accuracy, the recall averaged over classes.
        wf1: F1 averaged over classes by their frequency.
        mf1: F1 averaged over classes, all of equal weight (macro F1).
    """

    wa: float
    ua: float
    wf1: float
    mf1: float

    def as_dict(self) -> dict[str, float]:
        """Gives the scores by name, in the order of `METRICS`."""
        return asdict(self)


def compute_scores(truth: ClassIds, guess: ClassIds, classes: int, *, every_class: bool = True) -> Scores:
    """Scores guesses against the truth.

    Args:
        truth: class of each utterance, int64 ``(n,)``.
        guess: what was predicted, int64 ``(n,)``.
        classes: how many classes the label set has.
        every_class: refuse a truth that lacks a class; a dev part may do without it, then UA and macro F1
            are means over the classes that are there.

    Raises:
        MmerError: if there is no utterance, or a class is missing.

    Example:
        >>> score(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), 2).as_dict()["wa"]
        0.75
    """
    from sklearn.metrics import accuracy_score, f1_score, recall_score  # here: it takes a second to import

    present = _present(truth, classes)
    if not present:
        raise MmerError("there is nothing to score: no utterance")
    if every_class and len(present) < classes:
        missing = ", ".join(str(index) for index in range(classes) if index not in present)
        raise MmerError(f"UA is the mean over {classes} classes, but no utterance is of class {missing}")
    return Scores(
        wa=float(accuracy_score(truth, guess)),
        ua=float(recall_score(truth, guess, labels=present, average="macro", zero_division=0)),
        wf1=float(f1_score(truth, guess, labels=present, average="weighted", zero_division=0)),
        mf1=float(f1_score(truth, guess, labels=present, average="macro", zero_division=0)),
    )


def confusion(truth: ClassIds, guess: ClassIds, classes: int) -> Matrix:
    """Counts guesses by class, int64 ``(classes, classes)``; rows are the truth, columns the guess.

    Example:
        >>> confusion(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), 2).tolist()
        [[2, 1], [0, 1]]
    """
    from sklearn.metrics import confusion_matrix  # here, as in `compute_scores`

    matrix: Matrix = confusion_matrix(truth, guess, labels=np.arange(classes))
    return matrix


def score_confusions(matrices: Matrix) -> Matrix:
    """Scores many confusion matrices at once, as `compute_scores` would with ``every_class=False``.

    Args:
        matrices: counts or weights, rows the truth, ``(..., classes, classes)``; none may be all zero.

    Returns:
        WA, UA, weighted and macro F1, float64 ``(..., 4)``.
    """
    right = np.diagonal(matrices, axis1=-2, axis2=-1).astype(np.float64)  # (..., classes)
    true, guessed = matrices.sum(axis=-1), matrices.sum(axis=-2)
    total = true.sum(axis=-1)
    recall = _ratio(right, true)
    f1 = _ratio(2 * right, true + guessed)
    present = (true > 0).sum(axis=-1)
    wa, ua = right.sum(axis=-1) / total, recall.sum(axis=-1) / present
    # F1 of a class that the truth lacks is 0
    return np.stack([wa, ua, (f1 * true).sum(axis=-1) / total, f1.sum(axis=-1) / present], axis=-1)


def _present(truth: ClassIds, classes: int) -> list[int]:
    return np.flatnonzero(np.bincount(truth, minlength=classes)).tolist()


def _ratio(part: Matrix, whole: Matrix) -> Matrix:
    """Divides, with 0 where there is nothing to divide by."""
    quotient: Matrix = np.divide(part, whole, out=np.zeros(np.shape(part)), where=whole > 0)
    return quotient
