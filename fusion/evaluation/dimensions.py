"""Dimensions: scores and losses of rated values such as valence, and the scale that targets are trained on.

CCC is the concordance correlation coefficient of Lin, 1989, doi:10.2307/2532051, with the moments of the population
(the divisor n). It is 0 where truth and guess are constant and equal. Pearson's correlation is 0 where truth or guess
is constant. MAE is in units of the corpus.

All scores follow from seven sums over utterances (`value_moments`), which add up over clusters: the bootstrap of
`fusion.evaluation.statistics` draws these sums.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from cache.errors import MmerError

if TYPE_CHECKING:
    from torch import Tensor  # commands list and check monitors before torch is imported

Values: TypeAlias = npt.NDArray[np.float64]

AGREEMENT = ("ccc", "mae", "pearson")
EPSILON = 1e-8  # added to the denominator of the loss: a batch of one utterance has no variance


@dataclass(frozen=True, kw_only=True)
class TargetScale:
    """Mean and standard deviation of each dimension over a training subset.

    Heads learn values of mean 0 and variance 1; predictions are mapped back to the scale of the corpus.

    Attributes:
        mean: mean of each dimension.
        std: standard deviation of each dimension, with the divisor n.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not all(value > 0 for value in self.std):
            raise ValueError(f"std must have a positive value for each of {len(self.mean)} means, got {self.std}")

    @classmethod
    def of(cls, values: Values, names: Sequence[str], fold: str) -> "TargetScale":
        """Computes the scale of a training subset.

        Args:
            values: values of its utterances, ``(n, dimensions)``.
            names: names of the dimensions, for messages.
            fold: name of the fold, for messages.

        Raises:
            MmerError: if all utterances have the same value of a dimension.
        """
        mean, std = values.mean(axis=0), values.std(axis=0)
        for name, deviation, value in zip(names, std.tolist(), values[0].tolist(), strict=True):
            if not deviation > 0:
                raise MmerError(
                    f"fold {fold}: all {len(values)} training utterances have {name} {value:g}; leave {name} out of "
                    "--target, or choose another --protocol"
                )
        return cls(mean=tuple(mean.tolist()), std=tuple(std.tolist()))

    def to_unit(self, values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Returns values of mean 0 and variance 1, float32 ``(n, dimensions)``."""
        unit: npt.NDArray[np.float32] = ((values - np.array(self.mean)) / np.array(self.std)).astype(np.float32)
        return unit

    def to_corpus(self, values: npt.NDArray[Any]) -> Values:
        """Returns values on the scale of the corpus, float64 ``(n, dimensions)``."""
        restored: Values = np.asarray(values, dtype=np.float64) * np.array(self.std) + np.array(self.mean)
        return restored

    @property
    def plain(self) -> dict[str, list[float]]:
        """The scale as plain values."""
        return {"mean": list(self.mean), "std": list(self.std)}


def value_moments(truth: Values, guess: Values, groups: npt.NDArray[np.int64] | None = None) -> Values:
    """Computes the sums of each group of utterances from which all scores follow.

    Args:
        truth: rated values, ``(n, dimensions)``.
        guess: predicted values, ``(n, dimensions)``.
        groups: number of the group of each utterance, ``(n,)``; None for a single group.

    Returns:
        Sums of 1, x, y, x², y², xy and |x - y| with x the truth and y the guess, both minus the mean of the truth;
        float64 ``(groups, dimensions, 7)``.
    """
    truth, guess = np.asarray(truth, dtype=np.float64), np.asarray(guess, dtype=np.float64)
    groups = np.zeros(len(truth), dtype=np.int64) if groups is None else groups
    center = truth.mean(axis=0)  # agreement does not depend on it, and squares of small numbers lose no digits
    x, y = truth - center, guess - center
    parts = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y, np.abs(x - y)], axis=-1)  # (n, dimensions, 7)
    sums = np.zeros((int(groups.max()) + 1, *parts.shape[1:]))
    np.add.at(sums, groups, parts)
    return sums


def agreement(moments: Values) -> Values:
    """Computes CCC, MAE and Pearson's correlation of each dimension, ``(..., dimensions, 3)``.

    Args:
        moments: sums of `value_moments`, ``(..., dimensions, 7)``.
    """
    count, x, y, xx, yy, xy, distance = np.moveaxis(moments, -1, 0)
    mean_x, mean_y = x / count, y / count
    variance_x, variance_y = np.maximum(xx / count - mean_x**2, 0), np.maximum(yy / count - mean_y**2, 0)
    covariance = xy / count - mean_x * mean_y
    ccc = _ratio(2 * covariance, variance_x + variance_y + (mean_x - mean_y) ** 2)
    pearson = _ratio(covariance, np.sqrt(variance_x * variance_y))
    return np.stack([ccc, distance / count, pearson], axis=-1)


def mean_agreement(moments: Values) -> Values:
    """Computes the mean over dimensions of CCC, MAE and Pearson's correlation, ``(..., 3)``."""
    mean: Values = agreement(moments).mean(axis=-2)
    return mean


def ccc_loss(outputs: "Tensor", targets: "Tensor", weights: "Tensor | None" = None) -> "Tensor":
    """Computes the mean over dimensions of 1 - CCC of a batch.

    Args:
        outputs: ``(batch, dimensions)``.
        targets: ``(batch, dimensions)``.
        weights: weight of each utterance, ``(batch,)``; 0 leaves it out.
    """
    import torch

    x, y = targets.float(), outputs.float()
    share = torch.ones_like(x[:, :1]) if weights is None else weights.to(x.dtype)[:, None]
    share = share / share.sum().clamp(min=EPSILON)
    mean_x, mean_y = (share * x).sum(dim=0), (share * y).sum(dim=0)
    from_x, from_y = x - mean_x, y - mean_y
    covariance = (share * from_x * from_y).sum(dim=0)
    spread = (share * (from_x.square() + from_y.square())).sum(dim=0) + (mean_x - mean_y).square()
    return (1 - 2 * covariance / (spread + EPSILON)).mean()


def mse_loss(outputs: "Tensor", targets: "Tensor", weights: "Tensor | None" = None) -> "Tensor":
    """Computes the mean squared error of a batch; arguments are those of `ccc_loss`."""
    squares = (outputs.float() - targets.float()).square().mean(dim=1)
    if weights is None:
        return squares.mean()
    return (weights * squares).sum() / weights.sum().clamp(min=1)


def _ratio(part: Values, whole: Values) -> Values:
    """Computes part / whole, 0 where whole is 0."""
    quotient: Values = np.divide(part, whole, out=np.zeros(np.shape(part)), where=whole > 1e-24)
    return quotient
