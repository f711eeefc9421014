"""Rated values of each utterance: losses, scores and columns of predictions of dimensions such as valence."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fusion.evaluation.dimensions import AGREEMENT, ccc_loss, mean_agreement, mse_loss, value_moments
from fusion.evaluation.task import LOSS, OUTPUT, Array, Score, Task, unchanged

if TYPE_CHECKING:
    from torch import Tensor

CCC, MSE = "ccc", "mse"  # names of the main losses
CCC_LOSS = "ccc_loss"  # column of curves.csv with 1 - CCC


def _dimension_loss(
    outputs: "Tensor", targets: "Tensor", *, weights: "Tensor | None" = None, smoothing: float = 0.0
) -> "Tensor":
    """Computes 1 - CCC; rated values have neither class weights nor label smoothing."""
    return ccc_loss(outputs, targets)


def squared_error(
    outputs: "Tensor", targets: "Tensor", *, weights: "Tensor | None" = None, smoothing: float = 0.0
) -> "Tensor":
    """Computes the mean squared error; rated values have neither class weights nor label smoothing."""
    return mse_loss(outputs, targets)


def _no_weights(targets: Array, outputs: int) -> "Tensor":
    raise ValueError("rated values have no class weights")


def _dimension_scores(truth: Array, guess: Array, outputs: int, *, complete: bool = True) -> dict[str, float]:
    return dict(zip(AGREEMENT, mean_agreement(value_moments(truth, guess))[0].tolist(), strict=True))


def _dimension_columns(names: Sequence[str]) -> list[str]:
    return [*names, *(f"{OUTPUT}{name}" for name in names)]


def _dimension_row(truth: Any, prediction: Array, names: Sequence[str]) -> list[object]:
    return [*map(float, truth), *map(float, prediction)]


def _parse_dimensions(rows: Sequence[Mapping[str, str]], names: Sequence[str]) -> tuple[Array, Array]:
    truth = np.array([[float(row[name]) for name in names] for row in rows])
    return truth, np.array([[float(row[f"{OUTPUT}{name}"]) for name in names] for row in rows])


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
    predict=unchanged,
    decide=unchanged,
    evaluate=_dimension_scores,
    columns=_dimension_columns,
    row=_dimension_row,
    parse=_parse_dimensions,
    has_classes=False,
)
