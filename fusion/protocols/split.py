"""Split of a cache: targets, protocol and folds, with every check that an honest score needs.

Filters (`fusion.protocols.filters`) select utterances by a column; utterances without features are left out of a fold
(`fusion.protocols.coverage`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import MmerError
from cache.joined import AnyCache, AnyStream
from cache.stream import StreamSpec
from cache.utterance import Utterance
from fusion.arrays import ClassIds, Indices
from fusion.evaluation.dimensions import TargetScale
from fusion.protocols.catalog import (
    check_history_streams,
    choose_protocol,
    make_folds,
    promise_of,
    protocol_notes,
)
from fusion.protocols.coverage import CoveredFold, drop_uncovered
from fusion.protocols.filters import NO_FILTERS, Filters, filter_utterances
from fusion.protocols.folds import Fold
from fusion.protocols.labels import DEFAULTS as LABEL_DEFAULTS
from fusion.protocols.labels import LEFT_OUT, LabelSet, alike_notes, choose_labels, classes_of
from fusion.protocols.leaks import (
    check_classes,
    check_encoders,
    check_subsets,
    choose_streams,
    note_transcripts,
    note_twins,
)
from fusion.protocols.own_folds import OWN, OwnFolds
from fusion.protocols.targets import SOFT_TIES, Target, has_tie, parse_target, rated_values, vote_shares, voted_labels

RATED = "utterances with ratings"  # in the place of a class, for messages
NO_CHOICES: Mapping[str, Sequence[str]] = {}


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """The utterances of a cache, split into folds for training and scoring.

    Attributes:
        protocol: name of the protocol, never ``auto``.
        labels: label set.
        classes: class index of every utterance of the cache, int64 ``(n,)``; -1 for utterances that are left out.
        folds: folds in the order of the protocol, without utterances that lack features.
        totals: fold -> number of test utterances in the protocol, including those without features.
        promise: promise of the protocol, in words.
        notes: notes to print with the scores.
        chosen: fold -> role -> stream, for roles with a stream of its own for each fold.
        target: rated dimensions or soft labels that are predicted; None for classes. With dimensions, `labels` names
            them, and the class of an utterance that takes part is 0. With soft labels, the class has the most votes.
        values: rated values, or shares of votes, of every utterance, float64 ``(n, outputs)``; None for classes.
    """

    protocol: str
    labels: LabelSet
    classes: ClassIds
    folds: list[Fold]
    totals: dict[str, int]
    promise: str
    notes: list[str]
    chosen: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    target: Target | None = None
    values: npt.NDArray[np.float64] | None = None

    @property
    def targets(self) -> npt.NDArray[Any]:
        """Target of every utterance: its class, int64 ``(n,)``, or its values or shares, float64 ``(n, outputs)``."""
        return self.classes if self.values is None else self.values

    def truth(self, indices: Indices) -> list[Any]:
        """Returns the truth of utterances as predictions.csv holds it: names of classes, or values, or shares."""
        if self.values is not None:
            return list(self.values[indices])
        return [self.labels.names[index] for index in self.classes[indices]]

    def scale(self, train: Indices, fold: str) -> TargetScale | None:
        """Returns the scale of the rated values of a training subset; None for classes and soft labels.

        Args:
            train: indices of the training subset, int64 ``(n,)``.
            fold: name of the fold, for messages.

        Raises:
            MmerError: if all utterances have the same value of a dimension.
        """
        if self.values is None or self.target is None or self.target.soft:
            return None
        return TargetScale.of(self.values[train], self.labels.names, fold)


def split_cache(
    cache: AnyCache,
    *,
    streams: Sequence[str],
    training_streams: Sequence[str] = (),
    other_streams: Sequence[str] = (),
    choices: Mapping[str, Sequence[str]] = NO_CHOICES,
    labels: str | None = None,
    target: str = "",
    protocol: str | None = None,
    only: Filters = NO_FILTERS,
    own_folds: OwnFolds | None = None,
    data_seed: int = 0,
    allow_missing: bool = False,
    allow_leak: bool = False,
    earlier_dev: bool = False,
) -> Split:
    """Selects label set and protocol, makes the folds, and checks them against the streams.

    Args:
        cache: open cache.
        streams: names of the streams that every subset reads.
        training_streams: names of the streams that only training reads.
        other_streams: names of further streams that influence training, for example by the weights of their encoder;
            utterances may lack their features.
        choices: role -> streams of which each fold reads the one whose encoder has not seen its test subset.
        labels: value of ``--labels``; None for the default of the corpus.
        target: value of ``--target``; empty for classes.
        protocol: value of ``--protocol``; None for the default of the corpus.
        only: column -> values that take part.
        own_folds: folds of ``--folds``, which take the place of a protocol; None for the protocol.
        data_seed: random seed of all draws.
        allow_missing: score the test utterances with features if others have none.
        allow_leak: accept encoders that have seen test speakers, with a note.
        earlier_dev: draw dev as version 0.1 did, for a run that it began.

    Raises:
        MmerError: if a promise does not hold, a stream leaks, or test utterances have no features.
    """
    corpus, utterances = str(cache.header["corpus"].get("name", "")), cache.utterances
    targets = _targets_of(utterances, corpus, labels=labels, target=target)
    classes, filter_notes = filter_utterances(targets.classes, utterances, only)
    if own_folds is None:
        name, choice_notes = choose_protocol(protocol, corpus, utterances, classes)
    else:
        name, choice_notes = OWN, own_folds.check_ids(cache.ids)
    folds = make_folds(
        utterances, classes, name, data_seed, targets.names, own_folds=own_folds, earlier_dev=earlier_dev
    )
    if targets.tied.any():  # without a majority, an utterance can be trained on but not scored
        folds = [_without_ties(fold, targets.tied) for fold in folds]
    read = _streams_read(
        cache, streams=streams, training_streams=training_streams, other_streams=other_streams, choices=choices
    )
    check_history_streams(folds, utterances, read.every_spec, name)
    covered = [
        drop_uncovered(fold, cache, read.required, training_streams=training_streams, allow_missing=allow_missing)
        for fold in folds
    ]
    chosen, stream_notes = _check_streams(covered, cache, read, corpus, allow_leak=allow_leak)
    folds = [each.fold for each in covered]
    check_classes(folds, classes, targets.names)
    return Split(
        protocol=name,
        labels=targets.labels,
        classes=classes,
        folds=folds,
        totals={each.fold.name: each.total for each in covered},
        promise=f"{name}: {promise_of(name, folds, utterances, corpus, own_folds)}",
        notes=[
            *targets.notes,
            *filter_notes,
            *choice_notes,
            *stream_notes,
            *_choice_notes(chosen),
            *protocol_notes(folds, utterances, classes, targets.names, name, own_folds=own_folds),
        ],
        chosen=chosen,
        target=targets.target,
        values=targets.values,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Targets:
    """Targets of the utterances of a cache.

    Attributes:
        target: rated dimensions or soft labels; None for classes.
        labels: label set.
        names: names of the classes, for messages.
        classes: class index of every utterance, int64 ``(n,)``; -1 for utterances that are left out.
        values: as in `Split`.
        tied: True for an utterance without a majority of votes, bool ``(n,)``.
        notes: notes on the label set and on utterances that are left out.
    """

    target: Target | None
    labels: LabelSet
    names: tuple[str, ...]
    classes: ClassIds
    values: npt.NDArray[np.float64] | None
    tied: npt.NDArray[np.bool_]
    notes: list[str]


def _targets_of(utterances: Sequence[Utterance], corpus: str, *, labels: str | None, target: str) -> _Targets:
    """Reads the classes, the shares of votes or the rated values of all utterances.

    Raises:
        MmerError: if a value of ``--labels`` or ``--target`` does not suit the utterances.
    """
    wanted = parse_target(target)
    values: npt.NDArray[np.float64] | None = None
    tied = np.zeros(len(utterances), dtype=np.bool_)
    if wanted is None:
        label_set = choose_labels(labels, corpus, utterances)
        classes, names, notes = classes_of(utterances, label_set), label_set.names, alike_notes(utterances, label_set)
    elif wanted.soft:
        known = labels or corpus in LABEL_DEFAULTS
        label_set = choose_labels(labels, corpus, utterances) if known else voted_labels(utterances, corpus)
        values, names = vote_shares(utterances, label_set), label_set.names
        tied = has_tie(values)
        classes, notes = _voted(values, tied, wanted)
    else:
        label_set, names = wanted.label_set, (RATED,)
        values = rated_values(utterances, wanted, corpus)
        classes, notes = _rated(values, wanted)
    return _Targets(
        target=wanted, labels=label_set, names=names, classes=classes, values=values, tied=tied, notes=notes
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _StreamsRead:
    """The streams that a run reads.

    Attributes:
        required: names of the streams without whose features an utterance is left out.
        opened: streams that all folds read.
        specs: their specs, and those of streams that influence training.
        candidates: role -> specs of the streams of which each fold reads one.
    """

    required: list[str]
    opened: list[AnyStream]
    specs: list[StreamSpec]
    candidates: dict[str, list[StreamSpec]]

    @property
    def every_spec(self) -> list[StreamSpec]:
        """All specs."""
        return [*self.specs, *(spec for held in self.candidates.values() for spec in held)]


def _streams_read(
    cache: AnyCache,
    *,
    streams: Sequence[str],
    training_streams: Sequence[str],
    other_streams: Sequence[str],
    choices: Mapping[str, Sequence[str]],
) -> _StreamsRead:
    """Opens the streams of a split; the arguments are those of `split_cache`."""
    of_folds = {name for names in choices.values() for name in names}
    of_all = [name for name in streams if name not in of_folds]
    opened = [cache.stream(name) for name in [*of_all, *training_streams]]
    return _StreamsRead(
        required=[*of_all, *sorted(of_folds)],
        opened=opened,
        specs=[*(stream.spec for stream in opened), *(cache.stream(name).spec for name in other_streams)],
        candidates={role: [cache.stream(name).spec for name in names] for role, names in choices.items()},
    )


def _check_streams(
    covered: Sequence[CoveredFold], cache: AnyCache, read: _StreamsRead, corpus: str, *, allow_leak: bool
) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Checks every fold against the streams.

    Returns:
        Fold -> role -> stream for roles with a stream of its own for each fold, and notes on leaks and twins.

    Raises:
        MmerError: if a subset is empty, or a stream leaks.
    """
    utterances = cache.utterances
    chosen: dict[str, dict[str, str]] = {}
    notes: list[str] = []
    for each in covered:
        fold = each.fold
        check_subsets(fold)
        notes += [*each.notes, *check_encoders(fold, utterances, read.specs, corpus, allow_leak=allow_leak)]
        streams, leaks = choose_streams(fold, utterances, read.candidates, corpus, allow_leak=allow_leak)
        chosen |= {fold.name: streams} if streams else {}
        notes += [*leaks, *note_twins(fold, cache.ids, read.opened), *note_transcripts(fold, utterances, read.specs)]
    return chosen, notes


def _voted(shares: npt.NDArray[np.float64], tied: npt.NDArray[np.bool_], target: Target) -> tuple[ClassIds, list[str]]:
    """Returns the class with the most votes of each utterance, int64 ``(n,)``, and notes; -1 for those left out."""
    voted = shares.any(axis=1)
    kept = voted if target.keep_ties else voted & ~tied
    classes = np.where(kept, shares.argmax(axis=1), LEFT_OUT)
    notes = []
    if silent := int((~voted).sum()):
        notes.append(f"{silent} of {len(shares)} utterances are left out, they have no vote for a class")
    if ties := int(tied.sum()):
        fate = "only trained on" if target.keep_ties else f"left out (--target {SOFT_TIES} trains on them)"
        notes.append(f"{ties} of {len(shares)} utterances have no majority, they are {fate}")
    return classes, notes


def _rated(values: npt.NDArray[np.float64], target: Target) -> tuple[ClassIds, list[str]]:
    """Returns 0 for each utterance with all ratings and -1 for the others, int64 ``(n,)``; and a note on the others.

    Raises:
        MmerError: if no utterance has all ratings.
    """
    complete = ~np.isnan(values).any(axis=1)
    names = ", ".join(target.dimensions)
    if not complete.any():
        raise MmerError(f"--target {target.text}: no utterance has all of {names}; name fewer dimensions")
    absent = int((~complete).sum())
    notes = [f"{absent} of {len(values)} utterances are left out, a rating of {names} is absent"] if absent else []
    return np.where(complete, 0, LEFT_OUT), notes


def _without_ties(fold: Fold, tied: npt.NDArray[np.bool_]) -> Fold:
    """Returns a fold whose dev and test subset have no utterances without a majority."""
    parts = {part: indices[~tied[indices]] for part, indices in fold.test_parts.items()}
    return replace(fold, dev=fold.dev[~tied[fold.dev]], test=fold.test[~tied[fold.test]], test_parts=parts)


def _choice_notes(chosen: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Returns a note for each role with a stream of its own for each fold."""
    roles = dict.fromkeys(role for streams in chosen.values() for role in streams)
    return [
        f"{role} of each fold is of an encoder that has not seen its test subset: "
        + ", ".join(f"fold {fold} {streams[role]}" for fold, streams in chosen.items())
        for role in roles
    ]
