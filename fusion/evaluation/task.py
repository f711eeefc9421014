"""Contract of a prediction task: targets, loss, scores, the scores that may choose an epoch, columns of predictions.

A task collects everything that depends on the kind of target. Training, evaluation, run folders and grids read it and
know nothing else about targets. One class for each utterance is in `fusion.evaluation.classes`, shares of votes in
`fusion.evaluation.votes`, rated values in `fusion.evaluation.ratings`; `fusion.evaluation.catalog` has the table of
them. The intervals of all are in `fusion.evaluation.statistics`, their tables and plots in `fusion.run.score_table` and
`fusion.run.pictures`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy.typing as npt

from fusion.evaluation.dimensions import TargetScale

if TYPE_CHECKING:
    from torch import Tensor  # commands list and check monitors before torch is imported

Array: TypeAlias = npt.NDArray[Any]
LOSS = "loss"  # name of the loss on the development subset
ID = "id"  # first column of predictions.csv
LABEL, GUESS = "label", "guess"  # columns with the true and with the predicted class
OUTPUT = "p_"  # prefix of the columns with the outputs of a head


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
        is_classification: True if an utterance has one class, False if it has shares of votes or rated values.
        has_classes: True if predictions are probabilities of classes, False if they are values.
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
    is_classification: bool = False
    has_classes: bool = True

    def __post_init__(self) -> None:
        unknown = [name for name in self.monitors if name not in {*self.names, LOSS}]
        if unknown:
            raise ValueError(f"monitors must be scores of the task or {LOSS}, got {', '.join(unknown)}")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the scores in the order of tables."""
        return tuple(score.name for score in self.scores)

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
            >>> from fusion.evaluation.votes import SOFT
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


def unchanged(outputs: Any) -> Any:
    """Returns outputs as predictions, or predictions as guesses."""
    return outputs


def _to_corpus(scale: TargetScale, outputs: "Tensor") -> "Tensor":
    import torch

    return torch.from_numpy(scale.to_corpus(outputs.numpy()))
