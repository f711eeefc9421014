"""Divides a cache for training, with every check that stands between the protocol and an honest score.

Takes only some utterances of a corpus, by a column: improvised speech alone, or one speaker.

Which utterances of a fold have all the features that are read, and over how many the test scores are taken.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cache.corpus_facts import broken_clips
from cache.errors import MmerError
from cache.joined import AnyCache
from cache.layout import COMMITTED
from cache.utterance import Utterance
from fusion.arrays import Indices
from fusion.config import nearest
from fusion.protocols.catalog import choose_protocol, describe, make_folds, notes_on, refuse_history
from fusion.protocols.folds import Fold
from fusion.protocols.labels import LEFT_OUT, LabelSet, choose_labels, classes_of
from fusion.protocols.leaks import check_classes, check_encoders, check_parts, note_transcripts, note_twins

Filters = Mapping[str, tuple[str, ...]]  # column -> the values that take part

# Columns that tell utterances apart; what they mean is the matter of labels.
FILTER_COLUMNS = ("speaker", "session", "dialogue", "split", "style", "channel", "sentiment")
SHOWN = 6  # values that a message spells out
NAMED = 3  # how many utterances a message spells out
NO_LIMITS: Filters = {}


def parse_filters(pairs: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Reads columns and their values, each ``value+value``.

    Args:
        pairs: values by column, as written.

    Raises:
        MmerError: if there is no such column, or a value is empty.

    Example:
        >>> parse_only({"style": "improvised", "session": "1+2"})
        {'style': ('improvised',), 'session': ('1', '2')}
    """
    read: dict[str, tuple[str, ...]] = {}
    for column, text in pairs.items():
        if column not in FILTER_COLUMNS:
            raise MmerError(f"--only takes no column {column!r}; {nearest(column, FILTER_COLUMNS)}")
        read[column] = tuple(sorted({value.strip() for value in text.split("+")}))
        if not all(read[column]):
            raise MmerError(f"--only {column}={text} names no value between two signs; write {column}=a+b")
    return read


def filter_utterances(classes: Indices, utterances: Sequence[Utterance], only: Filters) -> tuple[Indices, list[str]]:
    """Leaves out all utterances but some.

    Args:
        classes: class index of each utterance, int64 ``(n,)``; -1 for those that are left out anyway.
        utterances: all of the cache.
        only: column -> the values that take part.

    Returns:
        The class indices with -1 for those that are left out now too, and what to print.

    Raises:
        MmerError: if no utterance has one of the values, or none is left, with the values that there are.
    """
    notes = []
    for column, values in only.items():
        before = classes
        told = np.array([str(getattr(one, column)) for one in utterances])
        classes = np.where(np.isin(told, values), before, LEFT_OUT)
        left, all_of_them = int((classes >= 0).sum()), int((before >= 0).sum())
        asked = f"{column}={'+'.join(values)}"
        unknown = next((value for value in values if not (told == value).any()), None)
        if unknown is not None or not left:
            counts = Counter(told[before >= 0].tolist()).most_common(SHOWN)
            there = ", ".join(f"{value or 'none'} ({count})" for value, count in counts)
            why = "leaves no utterance" if unknown is None else f"asks for {unknown!r}, which no utterance has"
            raise MmerError(f"--only {asked} {why}; there are: {there}")
        notes.append(f"only {asked}: {left} of {all_of_them} utterances")
    return classes, notes


@dataclass(frozen=True, kw_only=True)
class CoveredFold:
    """A fold of utterances that have their features.

    Attributes:
        fold: the fold without those that lack some.
        scored: utterances of test that are left.
        total: utterances of test in the protocol.
        notes: what was left out, to print.
    """

    fold: Fold
    scored: int
    total: int
    notes: list[str]

    @property
    def denominator(self) -> str:
        """The line that stands beside the scores."""
        return f"fold {self.fold.name}: scored on {self.scored} of {self.total} test utterances"


def drop_uncovered(
    fold: Fold,
    cache: AnyCache,
    streams: Sequence[str],
    *,
    training_streams: Sequence[str] = (),
    allow_missing: bool = False,
) -> CoveredFold:
    """Leaves out the utterances without features, and refuses a test part that has some of them.

    Clips that are published as broken may be missing from test; everything else needs `allow_missing`.

    Args:
        fold: one fold.
        cache: an open cache.
        streams: names of the streams that are read in every part.
        training_streams: names of those that are read in training only.
        allow_missing: score the test utterances that are there.

    Raises:
        MmerError: if test utterances have no features, or the cache has no such stream.
    """
    everywhere = _committed(cache, streams)
    lacking = fold.test[~everywhere[fold.test]].tolist()
    published = broken_clips(str(cache.header["corpus"].get("name", "")))
    unexpected = [index for index in lacking if cache.ids[index] not in published]
    if unexpected and not allow_missing:
        raise MmerError(
            f"{cache.path}: fold {fold.name}: {len(unexpected)} of {len(fold.test)} test utterances have no features "
            f"({_reasons(cache, streams, unexpected)}); run mmer-featurize again, or --allow-missing to score the rest"
        )
    train = fold.train[(everywhere & _committed(cache, training_streams))[fold.train]]
    dev = fold.dev[everywhere[fold.dev]]
    covered = Fold(name=fold.name, train=train, dev=dev, test=fold.test[everywhere[fold.test]])
    notes = [
        f"fold {fold.name}: {len(gone)} of {len(fold.subsets[part])} {part} utterances are left out, they have no "
        f"features ({_reasons(cache, [*streams, *training_streams], gone)})"
        for part in fold.subsets
        if (gone := np.setdiff1d(fold.subsets[part], covered.subsets[part]).tolist())
    ]
    return CoveredFold(fold=covered, scored=len(covered.test), total=len(fold.test), notes=notes)


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """The utterances of a cache in folds, as they are trained and scored.

    Attributes:
        protocol: the protocol that was taken, never ``auto``.
        labels: the label set.
        classes: class index of every utterance of the cache, int64 ``(n,)``; -1 for those that are left out.
        folds: in the order of the protocol, without the utterances that lack features.
        totals: fold -> utterances of test in the protocol, those without features included.
        promise: what the protocol promises, in words.
        notes: all that is to be printed beside the scores.
    """

    protocol: str
    labels: LabelSet
    classes: npt.NDArray[np.int64]
    folds: list[Fold]
    totals: dict[str, int]
    promise: str
    notes: list[str]


def split_cache(
    cache: AnyCache,
    *,
    streams: Sequence[str],
    training_streams: Sequence[str] = (),
    other_streams: Sequence[str] = (),
    labels: str | None = None,
    protocol: str | None = None,
    only: Filters = NO_LIMITS,
    data_seed: int = 0,
    allow_missing: bool = False,
    allow_leak: bool = False,
) -> Split:
    """Chooses label set and protocol, makes the folds, and checks them against the streams that are read.

    Args:
        cache: an open cache.
        streams: names of the streams that are read in every part.
        training_streams: names of those that are read in training only.
        other_streams: names of those that have a part in training in another way, by their encoder's weights for one;
            utterances may lack them.
        labels: what ``--labels`` says, None for the default of the corpus.
        protocol: what ``--protocol`` says, None for the default of the corpus.
        only: column -> the values that take part.
        data_seed: decides every draw.
        allow_missing: score the test utterances that have features where some have none.
        allow_leak: take encoders that have seen test speakers, and say so.

    Raises:
        MmerError: if a promise does not hold, a stream leaks, or test utterances have no features.
    """
    corpus = str(cache.header["corpus"].get("name", ""))
    utterances = cache.utterances
    chosen = choose_labels(labels, corpus, utterances)
    classes, narrowing = filter_utterances(classes_of(utterances, chosen), utterances, only)
    name, notes = choose_protocol(protocol, corpus, utterances, classes)
    notes = [*narrowing, *notes]
    folds = make_folds(utterances, classes, name, data_seed, chosen.names)
    opened = [cache.stream(stream) for stream in [*streams, *training_streams]]
    specs = [*(stream.spec for stream in opened), *(cache.stream(name).spec for name in other_streams)]
    refuse_history(folds, utterances, specs, name)
    covered = [
        drop_uncovered(fold, cache, streams, training_streams=training_streams, allow_missing=allow_missing)
        for fold in folds
    ]
    for one in covered:
        check_parts(one.fold)
        check_classes(one.fold, classes, chosen.names)
        notes += [*one.notes, *check_encoders(one.fold, utterances, specs, corpus, allow_leak=allow_leak)]
        notes += [*note_twins(one.fold, cache.ids, opened), *note_transcripts(one.fold, utterances, specs)]
    kept = [one.fold for one in covered]
    return Split(
        protocol=name,
        labels=chosen,
        classes=classes,
        folds=kept,
        totals={one.fold.name: one.total for one in covered},
        promise=describe(name),
        notes=[*notes, *notes_on(kept, utterances, classes, chosen.names, name)],
    )


def _committed(cache: AnyCache, streams: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Tells which utterances have all of these streams, bool ``(n,)``."""
    committed = np.ones(len(cache.ids), dtype=np.bool_)
    for name in streams:
        committed &= cache.stream(name).state == COMMITTED
    return committed


def _reasons(cache: AnyCache, streams: Sequence[str], indices: Sequence[int]) -> str:
    told = [f"{cache.ids[index]}: {_reason(cache, streams, index)}" for index in indices[:NAMED]]
    more = [f"and {len(indices) - NAMED} more"] if len(indices) > NAMED else []
    return "; ".join([*told, *more])


def _reason(cache: AnyCache, streams: Sequence[str], index: int) -> str:
    """Says why the first stream that an utterance lacks is not there."""
    lacking = next(stream for name in streams if (stream := cache.stream(name)).state[index] != COMMITTED)
    return f"no {lacking.spec.name}, {lacking.reason(index) or 'not computed yet'}"
