"""Scores of a classifier: WA, UA, weighted and macro F1, and their confusion matrix (docs/decisions.md#scores).

WA is the accuracy, UA the mean recall over all classes of the label set; some published code exchanges the two names.
A class without a true utterance is an error and is not skipped. A class that is never guessed has precision 0.

If the truth may lack a class (development subsets, resamples of clusters), UA and both F1 are means over the classes
of the truth, even if another class is guessed. `sklearn.metrics.f1_score` with ``average="macro"`` and ``labels`` of
all classes would count such a class as F1 0.

Every value is bit-equal to scikit-learn, whose functions check their arguments at a cost of milliseconds: an epoch of a
small head is shorter.
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
        wa: weighted accuracy, the share of utterances that are classified correctly.
        ua: unweighted accuracy, the mean recall over classes.
        wf1: weighted F1, the mean over classes weighted by their frequency.
        mf1: macro F1, the mean over classes with equal weights.
    """

    wa: float
    ua: float
    wf1: float
    mf1: float

    def as_dict(self) -> dict[str, float]:
        """Returns the scores by name, in the order of `METRICS`."""
        return asdict(self)


def compute_scores(truth: ClassIds, guess: ClassIds, classes: int, *, every_class: bool = True) -> Scores:
    """Computes the scores of guesses.

    Args:
        truth: true class of each utterance, int64 ``(n,)``.
        guess: predicted class of each utterance, int64 ``(n,)``.
        classes: number of classes in the label set.
        every_class: raise an error if a class has no true utterance. A development subset may lack classes; UA and
            macro F1 are then means over the classes of the truth.

    Raises:
        MmerError: if there is no utterance, or a class is missing.
        ValueError: if a class is not below `classes`.

    Example:
        >>> compute_scores(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), 2).as_dict()["wa"]
        0.75
    """
    counts = confusion(truth, guess, classes)
    present = counts.sum(axis=1) > 0
    if not present.any():
        raise MmerError("there is nothing to score: no utterance")
    if every_class and not present.all():
        missing = ", ".join(str(index) for index in np.flatnonzero(~present))
        raise MmerError(f"UA is the mean over {classes} classes, but no utterance is of class {missing}")
    right, true, guessed = (np.diagonal(counts)[present], counts.sum(axis=1)[present], counts.sum(axis=0)[present])
    recall, f1 = right / true, 2 * right / (true + guessed)
    return Scores(
        wa=float(right.sum() / true.sum()),
        ua=float(recall.mean()),
        wf1=float((f1 * true).sum() / true.sum()),
        mf1=float(f1.mean()),
    )


def confusion(truth: ClassIds, guess: ClassIds, classes: int) -> Matrix:
    """Counts utterances by truth and guess.

    Returns a matrix, int64 ``(classes, classes)``, with the truth in rows and the guess in columns.

    Example:
        >>> confusion(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), 2).tolist()
        [[2, 1], [0, 1]]
    """
    cells = np.ravel_multi_index((truth, guess), (classes, classes))
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def score_confusions(matrices: Matrix) -> Matrix:
    """Computes the scores of many confusion matrices at once.

    Equal to `compute_scores` with ``every_class=False``.

    Args:
        matrices: counts or weights, rows are the truth, ``(..., classes, classes)``; no matrix may be all zero.

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
    # f1 of a class that the truth lacks is 0
    return np.stack([wa, ua, (f1 * true).sum(axis=-1) / total, f1.sum(axis=-1) / present], axis=-1)


def _ratio(part: Matrix, whole: Matrix) -> Matrix:
    """Computes part / whole, 0 where whole is 0."""
    quotient: Matrix = np.divide(part, whole, out=np.zeros(np.shape(part)), where=whole > 0)
    return quotient
