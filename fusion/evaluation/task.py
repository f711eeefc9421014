"""Prediction tasks: targets, loss, scores, the scores that may choose an epoch, and the columns of predictions.csv.

A task collects everything that depends on the kind of target. Training, evaluation, run folders and grids read it and
know nothing else about targets. `CLASSIFICATION` has one class for each utterance, `SOFT` the shares of votes,
`DIMENSIONS` rated values. The intervals of all are in `fusion.evaluation.statistics`, their tables and plots in
`fusion.run.score_table` and `fusion.run.pictures`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from fusion.arrays import ClassIds
from fusion.evaluation.dimensions import (
    AGREEMENT,
    TargetScale,
    ccc_loss,
    mean_agreement,
    mse_loss,
    value_moments,
)
from fusion.evaluation.metrics import METRICS, compute_scores

if TYPE_CHECKING:
    from torch import Tensor  # commands list and check monitors before torch is imported

Array: TypeAlias = npt.NDArray[Any]
LOSS = "loss"  # name of the loss on the development subset
ID = "id"  # first column of predictions.csv
GUESS = "guess"  # column with the predicted class
OUTPUT = "p_"  # prefix of the columns with the outputs of a head
CROSS_ENTROPY, CCC, MSE = "cross_entropy", "ccc", "mse"  # main losses
SHARE = "v_"  # prefix of the columns with the shares of votes
KL = "kl"  # score of soft labels
LEAST_PROBABILITY = 1e-12  # least probability of the divergence, which would be infinite
FOCAL = "focal_loss"  # column of curves.csv with the focal loss
LEAST_MISS = 1e-6  # least 1 - p of the focal loss: its power has no finite gradient at 0
AUTO_LOSS = "auto"  # value of the training field `loss` for the default of the task
CCC_LOSS = "ccc_loss"  # column of curves.csv with 1 - CCC


@dataclass(frozen=True, kw_only=True)
class Score:
    """A number that measures predictions.

    Attributes:
        name: key in JSON, CSV and options, such as ``wf1``.
        title: heading in tables, such as ``W-F1``.
        meaning: definition in a few words, such as ``weighted F1``.
        higher_is_better: whether a higher value is better.
        in_percent: whether tables print it in percent; files always hold the plain value.
        decimals: number of decimals in tables.
    """

    name: str
    title: str
    meaning: str = ""
    higher_is_better: bool = True
    in_percent: bool = True
    decimals: int = 2

    @property
    def unit(self) -> float:
        """Factor from the plain value to the printed number."""
        return 100.0 if self.in_percent else 1.0

    def signed(self, value: float) -> str:
        """Formats a difference for a table, with its sign.

        Example:
            >>> Score(name="wf1", title="W-F1").signed(-0.0123)
            '-1.23'
        """
        return f"{self.unit * value + 0.0:+.{self.decimals}f}"

    def text(self, value: float | None) -> str:
        """Formats a value for a table; a missing value is a dash.

        Example:
            >>> Score(name="wf1", title="W-F1").text(0.57345)
            '57.34'
        """
        return "-" if value is None else f"{self.unit * value:.{self.decimals}f}"


class Loss(Protocol):
    """The main loss of a task."""

    def __call__(
        self, outputs: "Tensor", targets: "Tensor", *, weights: "Tensor | None" = None, smoothing: float = 0.0
    ) -> "Tensor":
        """Computes a scalar from outputs ``(batch, outputs)`` and targets.

        Targets are ``(batch, ...)``.
        """
        ...


class Evaluate(Protocol):
    """The scores of a task, computed from predictions."""

    def __call__(self, truth: Array, guess: Array, outputs: int, *, complete: bool = True) -> dict[str, float]:
        """Computes the scores by name.

        `complete` requires that the truth covers every class.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Task:
    """One kind of target with everything that depends on it.

    Attributes:
        name: name of the task.
        scores: scores in the order of tables, without the loss.
        loss_name: column of the main loss in curves.csv.
        monitors: names of the scores that may choose the epoch; ``loss`` is the main loss on the development subset.
        loss: main loss of the outputs of a head.
        losses: values of the training field ``loss`` that the task accepts; the first is the default.
        balance: weights for `loss` from the training targets and the number of outputs, ``(outputs,)``.
        predict: predictions from the outputs of a head, both ``(batch, outputs)``.
        decide: the guess of each utterance from its prediction, ``(n, outputs)`` to ``(n,)``.
        evaluate: scores of guesses.
        columns: columns of predictions.csv after the id, from the names of the outputs.
        row: cells of one utterance for `columns`, from its truth, its prediction and the names of the outputs.
        parse: truth and guess of the rows of predictions.csv, from the rows and the names of the outputs; raises
            KeyError or ValueError where the rows are not those of `columns`.
        scale: scale of the targets of a training; None for targets that are not scaled, and before a training.
        scores_predictions: whether `decide` reads predictions; else the outputs of a head give the same guess.
    """

    name: str
    scores: tuple[Score, ...]
    loss_name: str
    monitors: tuple[str, ...]
    loss: Loss
    losses: tuple[str, ...]
    balance: Callable[[Array, int], "Tensor"]
    predict: Callable[["Tensor"], "Tensor"]
    decide: Callable[[Array], Array]
    evaluate: Evaluate
    columns: Callable[[Sequence[str]], list[str]]
    row: Callable[[str, Array, Sequence[str]], list[object]]
    parse: Callable[[Sequence[Mapping[str, str]], Sequence[str]], tuple[Array, Array]]
    scale: TargetScale | None = None
    scores_predictions: bool = False

    def __post_init__(self) -> None:
        unknown = [name for name in self.monitors if name not in {*self.names, LOSS}]
        if unknown:
            raise ValueError(f"monitors must be scores of the task or {LOSS}, got {', '.join(unknown)}")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the scores in the order of tables."""
        return tuple(score.name for score in self.scores)

    @property
    def is_classification(self) -> bool:
        """True if an utterance has one class, False if it has shares of votes or rated values."""
        return self.name == CLASSIFICATION.name

    @property
    def has_classes(self) -> bool:
        """True if predictions are probabilities of classes, False if they are values."""
        return self.name != DIMENSIONS.name

    def scaled(self, scale: TargetScale | None) -> "Task":
        """Returns the task of a training, whose outputs and targets have a scale; itself without one."""
        if scale is None:
            return self
        return replace(self, scale=scale, predict=partial(_to_corpus, scale))

    def truth_columns(self, names: Sequence[str]) -> list[str]:
        """Returns the columns of predictions.csv that hold the truth.

        Args:
            names: names of the outputs.

        Example:
            >>> SOFT.truth_columns(["happy", "sad"])
            ['label', 'v_happy', 'v_sad']
        """
        return [name for name in self.columns(names) if name != GUESS and not name.startswith(OUTPUT)]

    def score(self, name: str) -> Score:
        """Returns the score with a name; ``loss`` is the main loss.

        Raises:
            ValueError: if the task has no such score.
        """
        for score in (*self.scores, LOSS_SCORE):
            if score.name == name:
                return score
        raise ValueError(f"unknown score {name!r}; known: {', '.join((*self.names, LOSS))}")

    def is_better(self, value: float, best: float, monitor: str) -> bool:
        """Checks whether a value of a score is better than the best so far.

        An equal value is not better.
        """
        return value > best if self.score(monitor).higher_is_better else value < best


LOSS_SCORE = Score(name=LOSS, title=LOSS, higher_is_better=False, in_percent=False)


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


def _softmax(outputs: "Tensor") -> "Tensor":
    return outputs.softmax(dim=1)


def _most_probable(predictions: Array) -> Array:
    guess: Array = predictions.argmax(axis=1)  # the first of equal values
    return guess


def _class_scores(truth: Array, guess: Array, outputs: int, *, complete: bool = True) -> dict[str, float]:
    return compute_scores(truth, guess, outputs, every_class=complete).as_dict()


def _class_columns(names: Sequence[str]) -> list[str]:
    return ["label", GUESS, *(f"{OUTPUT}{name}" for name in names)]


def _class_row(truth: str, prediction: Array, names: Sequence[str]) -> list[object]:
    return [truth, names[int(prediction.argmax())], *map(float, prediction)]


def _parse_classes(rows: Sequence[Mapping[str, str]], names: Sequence[str]) -> tuple[Array, Array]:
    ids = {name: index for index, name in enumerate(names)}
    return np.array([ids[row["label"]] for row in rows]), np.array([ids[row["guess"]] for row in rows])


def _to_corpus(scale: TargetScale, outputs: "Tensor") -> "Tensor":
    import torch

    return torch.from_numpy(scale.to_corpus(outputs.numpy()))


def _unchanged(outputs: Any) -> Any:
    return outputs


def _dimension_loss(
    outputs: "Tensor", targets: "Tensor", *, weights: "Tensor | None" = None, smoothing: float = 0.0
) -> "Tensor":
    """Computes 1 - CCC; rated values have neither class weights nor label smoothing."""
    return ccc_loss(outputs, targets)


def _squared_error(
    outputs: "Tensor", targets: "Tensor", *, weights: "Tensor | None" = None, smoothing: float = 0.0
) -> "Tensor":
    """Computes the mean squared error; rated values have neither class weights nor label smoothing."""
    return mse_loss(outputs, targets)


def _no_weights(targets: Array, outputs: int) -> "Tensor":
    raise ValueError("rated values have no class weights")


def _dimension_scores(truth: Array, guess: Array, outputs: int, *, complete: bool = True) -> dict[str, float]:
    return dict(zip(AGREEMENT, mean_agreement(value_moments(truth, guess))[0].tolist(), strict=True))


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
    scores = _class_scores(truth.argmax(axis=1), guess.argmax(axis=1), outputs, complete=complete)
    return {**scores, KL: float(divergences(truth, guess).mean())}


def _soft_columns(names: Sequence[str]) -> list[str]:
    return ["label", GUESS, *(f"{SHARE}{name}" for name in names), *(f"{OUTPUT}{name}" for name in names)]


def _soft_row(truth: Any, prediction: Array, names: Sequence[str]) -> list[object]:
    guess = names[int(prediction.argmax())]
    return [names[int(truth.argmax())], guess, *map(float, truth), *map(float, prediction)]


def _parse_soft(rows: Sequence[Mapping[str, str]], names: Sequence[str]) -> tuple[Array, Array]:
    truth = np.array([[float(row[f"{SHARE}{name}"]) for name in names] for row in rows])
    return truth, np.array([[float(row[f"{OUTPUT}{name}"]) for name in names] for row in rows])


def _dimension_columns(names: Sequence[str]) -> list[str]:
    return [*names, *(f"{OUTPUT}{name}" for name in names)]


def _dimension_row(truth: Any, prediction: Array, names: Sequence[str]) -> list[object]:
    return [*map(float, truth), *map(float, prediction)]


def _parse_dimensions(rows: Sequence[Mapping[str, str]], names: Sequence[str]) -> tuple[Array, Array]:
    truth = np.array([[float(row[name]) for name in names] for row in rows])
    return truth, np.array([[float(row[f"{OUTPUT}{name}"]) for name in names] for row in rows])


TITLES: Mapping[str, tuple[str, str]] = {
    "wa": ("WA", "accuracy"),
    "ua": ("UA", "mean recall of the classes"),
    "wf1": ("W-F1", "weighted F1"),
    "mf1": ("M-F1", "macro F1"),
}

# One class for each utterance; targets are class ids, int64 (n,), and outputs are logits, (n, classes).
CLASSIFICATION = Task(
    name="classification",
    scores=tuple(Score(name=name, title=TITLES[name][0], meaning=TITLES[name][1]) for name in METRICS),
    loss_name=CROSS_ENTROPY,
    monitors=("wf1", "ua", "wa", "mf1", LOSS),
    loss=cross_entropy,
    losses=(CROSS_ENTROPY,),
    balance=class_weights,
    predict=_softmax,
    decide=_most_probable,
    evaluate=_class_scores,
    columns=_class_columns,
    row=_class_row,
    parse=_parse_classes,
)

# Rated values; targets are float (n, dimensions), and outputs are values of mean 0 and variance 1, (n, dimensions).
DIMENSIONS = Task(
    name="dimensions",
    scores=(
        Score(name="ccc", title="CCC", meaning="concordance correlation coefficient", in_percent=False, decimals=3),
        Score(
            name="mae",
            title="MAE",
            meaning="mean absolute error",
            higher_is_better=False,
            in_percent=False,
            decimals=3,
        ),
        Score(name="pearson", title="Pearson", meaning="correlation coefficient", in_percent=False, decimals=3),
    ),
    loss_name=CCC_LOSS,
    monitors=("ccc", "mae", "pearson", LOSS),
    loss=_dimension_loss,
    losses=(CCC, MSE),
    balance=_no_weights,
    predict=_unchanged,
    decide=_unchanged,
    evaluate=_dimension_scores,
    columns=_dimension_columns,
    row=_dimension_row,
    parse=_parse_dimensions,
)

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
    predict=_softmax,
    decide=_unchanged,
    evaluate=_soft_scores,
    columns=_soft_columns,
    row=_soft_row,
    parse=_parse_soft,
    scores_predictions=True,
)
TASKS: Mapping[str, Task] = {task.name: task for task in (CLASSIFICATION, DIMENSIONS, SOFT)}
MONITORS: tuple[str, ...] = tuple(dict.fromkeys(name for task in TASKS.values() for name in task.monitors))


LOSSES: tuple[str, ...] = (AUTO_LOSS, *dict.fromkeys(name for task in TASKS.values() for name in task.losses))


def loss_of(task: Task, name: str) -> str:
    """Returns the name of a main loss, where ``auto`` is the default of the task.

    Raises:
        ValueError: if the task has no such loss.
    """
    name = task.losses[0] if name == AUTO_LOSS else name
    if name not in task.losses:
        raise ValueError(f"loss must be one of {', '.join((AUTO_LOSS, *task.losses))} for {task.name}, got {name!r}")
    return name


def with_loss(task: Task, name: str, focal_gamma: float = 0.0) -> Task:
    """Returns a task with one of its main losses.

    Args:
        task: the task.
        name: name of the loss, ``auto`` for the default of the task.
        focal_gamma: exponent of the focal loss; 0 for the cross entropy.

    Raises:
        ValueError: if the task has no such loss.
    """
    name = loss_of(task, name)
    if focal_gamma and name == CROSS_ENTROPY:
        return replace(task, loss=partial(focal_loss, gamma=focal_gamma), loss_name=FOCAL)
    return replace(task, loss=_squared_error, loss_name=MSE) if name == MSE else task


def task_of(record: Mapping[str, Any]) -> Task:
    """Returns the task of a run from its identity or its results.

    It is classification if they name no task.

    Raises:
        ValueError: if the task is unknown.
    """
    name = record.get("task", CLASSIFICATION.name)
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}; known: {', '.join(TASKS)}")
    return TASKS[name]
