"""Targets of another corpus in terms of those of a run, for scores across corpora.

Label sets are joined by the names of the classes; names that papers exchange (ang, angry, anger) count as one. Votes
are joined in the same way. Rated values stay on the scale of the other corpus; where the published scales of the two
corpora differ, predictions are mapped from the one to the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.joined import AnyCache
from fusion.experiment.featurize_commands import MANIFEST, corpus_of
from fusion.experiment.plan import RunPlan
from fusion.protocols.labels import LEFT_OUT, choose_labels, classes_of
from fusion.protocols.targets import (
    Range,
    Target,
    has_tie,
    parse_target,
    rated_values,
    scale_of,
    vote_shares,
    voted_labels,
)

# Other names of a class in published corpora -> the name under which label sets are joined.
ALIASES: Mapping[str, str] = {
    "ang": "angry",
    "anger": "angry",
    "hap": "happy",
    "happiness": "happy",
    "joy": "happy",
    "neu": "neutral",
    "sadness": "sad",
    "exc": "excited",
    "excitement": "excited",
    "fru": "frustrated",
    "frustration": "frustrated",
    "fea": "fearful",
    "fear": "fearful",
    "dis": "disgust",
    "disgusted": "disgust",
    "sur": "surprised",
    "surprise": "surprised",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class JoinedTargets:
    """The truth of the utterances of another corpus.

    Attributes:
        truth: class of each utterance among those of the run, int64 ``(n,)``; or shares of votes, or rated values,
            float64 ``(n, outputs)``. Utterances that are left out have -1, no share, or NaN.
        usable: whether an utterance can be scored, bool ``(n,)``.
        notes: what is joined, mapped and left out.
        scales: dimension -> scale of the run's corpus and scale of the other, where they differ.
    """

    truth: npt.NDArray[Any]
    usable: npt.NDArray[np.bool_]
    notes: tuple[str, ...]
    scales: Mapping[str, tuple[Range, Range]] = field(default_factory=dict)


def join_targets(plan: RunPlan, cache: AnyCache, requested: str | None) -> JoinedTargets:
    """Joins the targets of another corpus with those of a run.

    Args:
        plan: plan of the run.
        cache: open cache of the other corpus.
        requested: label set of the other corpus, or scales of its ratings; None for the default.

    Raises:
        MmerError: if the label set or a scale is invalid, or the corpus has no votes or ratings.
    """
    if plan.task.is_classification:
        return _joined_classes(plan, cache, requested)
    return _joined_shares(plan, cache, requested) if plan.task.has_classes else _rated(plan, cache, requested)


def _joined_classes(plan: RunPlan, cache: AnyCache, requested: str | None) -> JoinedTargets:
    """Returns the class of each utterance, with notes on joined and left-out classes."""
    utterances, label_set = cache.utterances, plan.split.labels
    if not requested and corpus_of(cache) == corpus_of(plan.cache) != MANIFEST:  # tables of any corpus have one name
        raws = {raw: index for index, members in enumerate(label_set.classes.values()) for raw in members}
        classes = np.array([raws.get(label_set.raw(held), LEFT_OUT) for held in utterances], dtype=np.int64)
        return JoinedTargets(truth=classes, usable=classes >= 0, notes=())
    labels = choose_labels(requested, corpus_of(cache), utterances)
    found = classes_of(utterances, labels)
    ids = {_joint_name(name): index for index, name in enumerate(label_set.names)}
    meant = np.array([ids.get(_joint_name(name), LEFT_OUT) for name in labels.names], dtype=np.int64)
    classes = np.where(found >= 0, meant[found], LEFT_OUT)
    pairs = zip(labels.names, meant.tolist(), strict=True)
    renamed = [
        f"{name} is {label_set.names[index]}" for name, index in pairs if index >= 0 and name != label_set.names[index]
    ]
    left_out = [
        f"{name} ({int((found == index).sum())})" for index, name in enumerate(labels.names) if meant[index] < 0
    ]
    notes = [f"classes joined by name: {', '.join(renamed)}"] if renamed else []
    notes += [f"left out, not a class of the run: {', '.join(left_out)}"] if left_out else []
    return JoinedTargets(truth=classes, usable=classes >= 0, notes=tuple(notes))


def _joined_shares(plan: RunPlan, cache: AnyCache, requested: str | None) -> JoinedTargets:
    """Returns the shares of votes among the classes of the run, with notes on what is left out."""
    labels = choose_labels(requested, corpus_of(cache), cache.utterances) if requested else None
    labels = labels or voted_labels(cache.utterances, corpus_of(cache))
    shares = vote_shares(cache.utterances, labels)
    names = plan.split.labels.names
    ids = {_joint_name(name): index for index, name in enumerate(names)}
    joined = np.zeros((len(shares), len(names)))
    left_out = []
    for column, name in zip(shares.T, labels.names, strict=True):
        if (index := ids.get(_joint_name(name))) is None:
            left_out.append(name)
        else:
            joined[:, index] += column
    total = joined.sum(axis=1, keepdims=True)
    joined = np.divide(joined, total, out=np.zeros_like(joined), where=total > 0)
    voted, kept, tied = shares.sum(axis=1) > 0, total[:, 0] > 0, has_tie(joined)
    notes = [f"votes for {', '.join(left_out)} are left out, no class of the run"] if left_out else []
    if gone := int((voted & ~kept).sum()):
        notes.append(f"{gone} utterances have no vote for a class of the run")
    if tied.any():
        notes.append(f"{int(tied.sum())} utterances have no majority and are left out")
    return JoinedTargets(truth=joined, usable=kept & ~tied, notes=tuple(notes))


def _rated(plan: RunPlan, cache: AnyCache, requested: str | None) -> JoinedTargets:
    """Returns rated values, with notes on their scales."""
    trained = plan.split.target or Target()
    named = parse_target(requested or "")
    given = named.scales if named else {}
    tested = Target(dimensions=trained.dimensions, scales=given)
    corpora = corpus_of(plan.cache), corpus_of(cache)
    values = rated_values(cache.utterances, tested, corpora[1])
    scales, notes = {}, []
    for name in trained.dimensions:
        from_scale, to_scale = scale_of(name, trained, corpora[0]), scale_of(name, tested, corpora[1])
        if from_scale and to_scale and from_scale != to_scale:
            scales[name] = from_scale, to_scale
            notes.append(f"predicted {name} is mapped from {_scale_text(from_scale)} to {_scale_text(to_scale)}")
        elif from_scale != to_scale or (from_scale is None and corpora[0] != corpora[1]):
            notes.append(
                f"{name} is compared as it is, since a scale is unknown; name it with --target {name}=1:5 or "
                f"--test-labels {name}=1:7"
            )
    complete = np.asarray(np.isfinite(values).all(axis=1))
    return JoinedTargets(truth=values, usable=complete, notes=tuple(notes), scales=scales)


def _scale_text(scale: Range) -> str:
    return f"{scale[0]:g} to {scale[1]:g}"


def _joint_name(name: str) -> str:
    plain = name.strip().casefold()
    return ALIASES.get(plain, plain)
