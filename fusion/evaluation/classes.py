"""One class for each utterance: cross entropy and focal loss, class weights, scores, columns of predictions."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fusion.arrays import ClassIds
from fusion.evaluation.metrics import METRICS, compute_scores
from fusion.evaluation.task import GUESS, LABEL, LOSS, OUTPUT, Array, Score, Task

if TYPE_CHECKING:
    from torch import Tensor

CROSS_ENTROPY = "cross_entropy"  # name of the main loss
FOCAL = "focal_loss"  # column of curves.csv with the focal loss
LEAST_MISS = 1e-6  # least 1 - p of the focal loss: its power has no finite gradient at 0
TITLES: Mapping[str, tuple[str, str]] = {
    "wa": ("WA", "accuracy"),
    "ua": ("UA", "mean recall of the classes"),
    "wf1": ("W-F1", "weighted F1"),
    "mf1": ("M-F1", "macro F1"),
}


def cross_entropy(
    outputs: "Tensor", targets: "Tensor", *, weights: "Tensor | None" = None, smoothing: float = 0.0
) -> "Tensor":
    """Computes the mean cross entropy.

    Args:
        outputs: logits, ``(batch, classes)``.
        targets: class of each utterance, int64 ``(batch,)``; or shares of classes, float32 ``(batch, classes)``.
        weights: weight of each class, ``(classes,)``.
        smoothing: label smoothing in [0, 1).
    """
    from torch.nn import functional

    return functional.cross_entropy(outputs.float(), targets, weight=weights, label_smoothing=smoothing)


def focal_loss(
    outputs: "Tensor", targets: "Tensor", *, gamma: float, weights: "Tensor | None" = None, smoothing: float = 0.0
) -> "Tensor":
    """Computes the mean focal loss (Lin et al., 2017, arXiv:1708.02002): cross entropy times (1 - p) ** gamma.

    With weights of classes it is the weighted mean, as the cross entropy of torch is.

    Args:
        outputs: logits, ``(batch, classes)``.
        targets: class of each utterance, int64 ``(batch,)``.
        gamma: exponent; with 0 the loss is the cross entropy.
        weights: weight of each class, ``(classes,)``.
        smoothing: not used; a training refuses label smoothing with a focal loss.
    """
    log_p = outputs.float().log_softmax(dim=1).gather(1, targets[:, None])[:, 0]  # of the true class, (batch,)
    losses = -log_p * (1 - log_p.exp()).clamp(min=LEAST_MISS) ** gamma
    if weights is None:
        return losses.mean()
    of_utterances = weights[targets]
    return (of_utterances * losses).sum() / of_utterances.sum()


def class_weights(targets: ClassIds, classes: int) -> "Tensor":
    """Computes the weight of each class, ``(classes,)``.

    The weight is n / (classes * count), as ``balanced`` in scikit-learn.

    Args:
        targets: class of each training utterance, int64 ``(n,)``.
        classes: number of classes.

    Example:
        >>> class_weights(np.array([0, 0, 0, 1]), 2)
        tensor([0.6667, 2.0000])
    """
    import torch

    counts = torch.bincount(torch.from_numpy(targets), minlength=classes)
    return (len(targets) / (classes * counts.clamp(min=1))).to(torch.float32)


def softmax(outputs: "Tensor") -> "Tensor":
    """Computes probabilities from logits, both ``(batch, classes)``."""
    return outputs.softmax(dim=1)


def class_scores(truth: Array, guess: Array, outputs: int, *, complete: bool = True) -> dict[str, float]:
    """Computes WA, UA, weighted and macro F1 of guesses, both int64 ``(n,)``; see `fusion.evaluation.task.Evaluate`."""
    return compute_scores(truth, guess, outputs, every_class=complete).as_dict()


def _most_probable(predictions: Array) -> Array:
    guess: Array = predictions.argmax(axis=1)  # the first of equal values
    return guess


def _class_columns(names: Sequence[str]) -> list[str]:
    return [LABEL, GUESS, *(f"{OUTPUT}{name}" for name in names)]


def _class_row(truth: str, prediction: Array, names: Sequence[str]) -> list[object]:
    return [truth, names[int(prediction.argmax())], *map(float, prediction)]


def _parse_classes(rows: Sequence[Mapping[str, str]], names: Sequence[str]) -> tuple[Array, Array]:
    ids = {name: index for index, name in enumerate(names)}
    return np.array([ids[row[LABEL]] for row in rows]), np.array([ids[row[GUESS]] for row in rows])


# One class for each utterance; targets are class ids, int64 (n,), and outputs are logits, (n, classes).
CLASSIFICATION = Task(
    name="classification",
    scores=tuple(Score(name=name, title=TITLES[name][0], meaning=TITLES[name][1]) for name in METRICS),
    loss_name=CROSS_ENTROPY,
    monitors=("wf1", "ua", "wa", "mf1", LOSS),
    loss=cross_entropy,
    losses=(CROSS_ENTROPY,),
    balance=class_weights,
    predict=softmax,
    decide=_most_probable,
    evaluate=class_scores,
    columns=_class_columns,
    row=_class_row,
    parse=_parse_classes,
    is_classification=True,
)
