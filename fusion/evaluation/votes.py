"""Shares of votes over the classes of each utterance: divergence from the votes, scores, columns of predictions."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fusion.evaluation.classes import (
    CLASSIFICATION,
    CROSS_ENTROPY,
    class_scores,
    class_weights,
    cross_entropy,
    softmax,
)
from fusion.evaluation.task import GUESS, LABEL, OUTPUT, Array, Score, Task, unchanged

if TYPE_CHECKING:
    from torch import Tensor

SHARE = "v_"  # prefix of the columns with the shares of votes
KL = "kl"  # name of the score
LEAST_PROBABILITY = 1e-12  # least probability of the divergence, which would be infinite


def divergences(truth: Array, guess: Array) -> Array:
    """Computes the Kullback-Leibler divergence of each prediction from the shares of votes in nats, ``(n,)``.

    Args:
        truth: shares of votes, ``(n, classes)``.
        guess: probabilities, ``(n, classes)``; at least `LEAST_PROBABILITY` is counted.
    """
    truth, guess = np.asarray(truth, dtype=np.float64), np.maximum(guess, LEAST_PROBABILITY).astype(np.float64)
    terms = truth * (np.log(np.maximum(truth, LEAST_PROBABILITY)) - np.log(guess))
    sums: Array = terms.sum(axis=1)
    return sums


def _majority_weights(targets: Array, outputs: int) -> "Tensor":
    return class_weights(targets.argmax(axis=1), outputs)


def _soft_scores(truth: Array, guess: Array, outputs: int, *, complete: bool = True) -> dict[str, float]:
    scores = class_scores(truth.argmax(axis=1), guess.argmax(axis=1), outputs, complete=complete)
    return {**scores, KL: float(divergences(truth, guess).mean())}


def _soft_columns(names: Sequence[str]) -> list[str]:
    return [LABEL, GUESS, *(f"{SHARE}{name}" for name in names), *(f"{OUTPUT}{name}" for name in names)]


def _soft_row(truth: Any, prediction: Array, names: Sequence[str]) -> list[object]:
    guess = names[int(prediction.argmax())]
    return [names[int(truth.argmax())], guess, *map(float, truth), *map(float, prediction)]


def _parse_soft(rows: Sequence[Mapping[str, str]], names: Sequence[str]) -> tuple[Array, Array]:
    truth = np.array([[float(row[f"{SHARE}{name}"]) for name in names] for row in rows])
    return truth, np.array([[float(row[f"{OUTPUT}{name}"]) for name in names] for row in rows])


# Shares of votes over classes; targets are float (n, classes), and outputs are logits, (n, classes). The class of an
# utterance is the one with the most votes.
SOFT = Task(
    name="soft",
    scores=(
        *CLASSIFICATION.scores,
        Score(
            name=KL,
            title="KL",
            meaning="mean divergence from the votes in nats",
            higher_is_better=False,
            in_percent=False,
            decimals=3,
        ),
    ),
    loss_name=CROSS_ENTROPY,
    monitors=(*CLASSIFICATION.monitors, KL),
    loss=cross_entropy,
    losses=(CROSS_ENTROPY,),
    balance=_majority_weights,
    predict=softmax,
    decide=unchanged,
    evaluate=_soft_scores,
    columns=_soft_columns,
    row=_soft_row,
    parse=_parse_soft,
    scores_predictions=True,
)
