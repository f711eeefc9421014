"""Targets: what a head learns to predict, read from ``--target``, and the rated values of utterances.

Classes of a label set are the default (`fusion.protocols.labels`). Dimensions are rated values such as valence; each is
a column of the cache, on the scale of its corpus.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from cache.errors import MmerError
from cache.utterance import Utterance
from fusion.config import nearest
from fusion.protocols.labels import LabelSet

Range: TypeAlias = tuple[float, float]

DIMENSIONS = ("valence", "activation", "dominance")
ALSO_CALLED: Mapping[str, str] = {"arousal": "activation"}
# Corpus -> least and greatest rating of its published scale. IEMOCAP is not among them: its files hold means outside 1
# to 5.
SCALES: Mapping[str, Range] = {"demo": (1.0, 5.0), "msp-podcast": (1.0, 7.0), "msp-improv": (1.0, 5.0)}
FORM = "--target valence,activation or, with the scale of the ratings, valence=1:5"


@dataclass(frozen=True, kw_only=True)
class Target:
    """The rated dimensions that a head predicts.

    Attributes:
        dimensions: their names, in the order of the outputs.
        scales: dimension -> least and greatest allowed value, where the user gave them.
    """

    dimensions: tuple[str, ...]
    scales: Mapping[str, Range] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The target as ``--target`` reads it."""
        return ",".join(
            f"{name}={self.scales[name][0]:g}:{self.scales[name][1]:g}" if name in self.scales else name
            for name in self.dimensions
        )

    @property
    def label_set(self) -> LabelSet:
        """The dimensions in the form of a label set, which names the outputs of a head."""
        return LabelSet(name=",".join(self.dimensions), classes={name: (name,) for name in self.dimensions})


def parse_target(text: str) -> Target | None:
    """Reads the value of ``--target``; None for classes, the default.

    Args:
        text: dimensions separated by commas, each ``name`` or ``name=least:greatest``; empty for classes.

    Raises:
        MmerError: if a dimension is unknown or named twice, or a scale has no two numbers in ascending order.

    Example:
        >>> parse_target("valence,arousal=1:5").dimensions
        ('valence', 'activation')
    """
    if text in {"", "classes"}:
        return None
    dimensions: list[str] = []
    scales: dict[str, Range] = {}
    for item in text.split(","):
        written, _, scale = (part.strip() for part in item.partition("="))
        name = ALSO_CALLED.get(written, written)
        if name not in DIMENSIONS:
            raise MmerError(f"--target: unknown {written!r}; {nearest(written, ('classes', *DIMENSIONS))}")
        if name in dimensions:
            raise MmerError(f"--target: {name} is named twice; name it once")
        dimensions.append(name)
        if "=" in item:
            scales[name] = _scale(item.strip(), scale)
    return Target(dimensions=tuple(dimensions), scales=scales)


def rated_values(utterances: Sequence[Utterance], target: Target, corpus: str) -> npt.NDArray[np.float64]:
    """Returns the values of each utterance, float64 ``(n, dimensions)``; NaN where a rating is absent.

    Raises:
        MmerError: if no utterance has a dimension, or a value lies outside the scale.
    """
    columns = [[getattr(utterance, name) for utterance in utterances] for name in target.dimensions]
    values = np.array([[math.nan if value is None else value for value in column] for column in columns]).T
    for index, name in enumerate(target.dimensions):
        if np.isnan(values[:, index]).all():
            rated = [other for other in DIMENSIONS if any(getattr(u, other) is not None for u in utterances)]
            has = f"it has {', '.join(rated)}" if rated else "it has no ratings"
            raise MmerError(f"--target {name}: no utterance of {corpus} has a {name}; {has}")
        _check_scale(values[:, index], name, target.scales.get(name, SCALES.get(corpus)), utterances)
    return values


def _scale(item: str, scale: str) -> Range:
    try:
        least, greatest = map(float, scale.split(":"))
    except ValueError:
        least, greatest = math.nan, math.nan
    if not (math.isfinite(least) and math.isfinite(greatest) and least < greatest):
        raise MmerError(f"--target: invalid scale in {item!r}; expected NAME=LEAST:GREATEST, such as valence=1:5")
    return least, greatest


def _check_scale(
    values: npt.NDArray[np.float64], name: str, scale: Range | None, utterances: Sequence[Utterance]
) -> None:
    if scale is None:
        return
    outside = np.flatnonzero((values < scale[0]) | (values > scale[1]))
    if len(outside):
        index = int(outside[0])
        raise MmerError(
            f"{len(outside)} utterances have a {name} outside {scale[0]:g} to {scale[1]:g} (first: "
            f"{utterances[index].id}, {values[index]:g}); correct the corpus, or name its scale as in "
            f"--target {name}=LEAST:GREATEST"
        )
