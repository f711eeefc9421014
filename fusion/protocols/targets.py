"""Targets: what a head learns to predict, read from ``--target``; the ratings and the votes of utterances.

Classes of a label set are the default (`fusion.protocols.labels`). Dimensions are rated values such as valence; each is
a column of the cache, on the scale of its corpus. Soft labels are the shares of the votes of annotators over the
classes of a label set.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from cache.errors import MmerError
from cache.near_names import nearest
from cache.utterance import Utterance, parse_votes
from fusion.protocols.labels import LabelSet

Range: TypeAlias = tuple[float, float]

SOFT, SOFT_TIES = "soft", "soft,ties"
DIMENSIONS = ("valence", "activation", "dominance")
ALSO_CALLED: Mapping[str, str] = {"arousal": "activation"}
# Corpus -> least and greatest rating of its published scale. IEMOCAP is not among them: its files hold means outside 1
# to 5.
SCALES: Mapping[str, Range] = {"demo": (1.0, 5.0), "msp-podcast": (1.0, 7.0), "msp-improv": (1.0, 5.0)}
LEAST_VOTES = 1e-9  # divisor of the shares of an utterance without votes


@dataclass(frozen=True, kw_only=True)
class Target:
    """The rated dimensions that a head predicts, or soft labels.

    Attributes:
        dimensions: names of the dimensions, in the order of the outputs; empty for soft labels.
        scales: dimension -> least and greatest allowed value, where the user gave them.
        keep_ties: with soft labels, utterances without a majority stay in training.
    """

    dimensions: tuple[str, ...] = ()
    scales: Mapping[str, Range] = field(default_factory=dict)
    keep_ties: bool = False

    @property
    def soft(self) -> bool:
        """True for soft labels."""
        return not self.dimensions

    @property
    def task(self) -> str:
        """Name of the task."""
        return SOFT if self.soft else "dimensions"

    @property
    def text(self) -> str:
        """The target as ``--target`` reads it."""
        if self.soft:
            return SOFT_TIES if self.keep_ties else SOFT
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
        text: dimensions separated by commas, each ``name`` or ``name=least:greatest``; ``soft`` or ``soft,ties`` for
            soft labels; empty for classes.

    Raises:
        MmerError: if a dimension is unknown or named twice, or a scale has no two numbers in ascending order.

    Example:
        >>> parse_target("valence,arousal=1:5").dimensions
        ('valence', 'activation')
    """
    if text in {"", "classes"}:
        return None
    if text in {SOFT, SOFT_TIES}:
        return Target(keep_ties=text == SOFT_TIES)
    dimensions: list[str] = []
    scales: dict[str, Range] = {}
    for item in text.split(","):
        written, _, scale = (part.strip() for part in item.partition("="))
        name = ALSO_CALLED.get(written, written)
        if name not in DIMENSIONS:
            raise MmerError(f"--target: unknown {written!r}; {nearest(written, ('classes', SOFT, *DIMENSIONS))}")
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
        _check_scale(values[:, index], name, scale_of(name, target, corpus), utterances)
    return values


def scale_of(name: str, target: Target, corpus: str) -> Range | None:
    """Returns least and greatest rating of a dimension, as the user or the corpus gives it; None if neither does."""
    return target.scales.get(name, SCALES.get(corpus))


def voted_labels(utterances: Sequence[Utterance], corpus: str) -> LabelSet:
    """Returns a label set in which every label with a vote is a class.

    Raises:
        MmerError: if fewer than two labels have votes.
    """
    votes = [parse_votes(utterance.votes, utterance.id) for utterance in utterances if utterance.votes]
    names = sorted({label for found in votes for label, count in found.items() if count})
    if len(names) < 2:
        found = f"only {names[0]!r}" if names else "none; a manifest has them in the column votes, as in happy:3,sad:1"
        raise MmerError(f"--target {SOFT}: the utterances of {corpus} need votes for at least two labels, got {found}")
    return LabelSet(name="as voted", classes={name: (name,) for name in names}, corpus=corpus)


def vote_shares(utterances: Sequence[Utterance], labels: LabelSet) -> npt.NDArray[np.float64]:
    """Returns the share of each class among the votes for the label set, ``(n, classes)``; 0 throughout without votes.

    Raises:
        MmerError: if no utterance has a vote for a class.
    """
    index_of = {raw: index for index, members in enumerate(labels.classes.values()) for raw in members}
    counts = np.zeros((len(utterances), len(labels.names)))
    for row, utterance in zip(counts, utterances, strict=True):
        if not utterance.votes or (labels.channels and utterance.channel not in labels.channels):
            continue
        for label, count in parse_votes(utterance.votes, utterance.id).items():
            if label in index_of:
                row[index_of[label]] += count
    if not counts.any():
        voted = sorted({label for u in utterances if u.votes for label in parse_votes(u.votes, u.id)})
        found = f"votes are for {', '.join(voted)}" if voted else "the cache has no votes"
        raise MmerError(f"--target {SOFT}: no utterance has a vote for {', '.join(index_of)}; {found}")
    shares: npt.NDArray[np.float64] = counts / np.maximum(counts.sum(axis=1, keepdims=True), LEAST_VOTES)
    return shares


def has_tie(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Returns True for each utterance in which several classes have the most votes, ``(n,)``."""
    most = shares.max(axis=1, keepdims=True)
    tied: npt.NDArray[np.bool_] = (np.isclose(shares, most, atol=1e-9).sum(axis=1) > 1) & (most[:, 0] > 0)
    return tied


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
