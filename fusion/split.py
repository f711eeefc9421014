"""Divides a cache for training, with every check that stands between the protocol and an honest score."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cache.joined import AnyCache
from fusion.coverage import cover
from fusion.labels import LabelSet, choose_labels, classes_of
from fusion.leaks import check_classes, check_encoders, check_parts, note_transcripts, note_twins
from fusion.members import Fold
from fusion.narrowing import Only, narrowed
from fusion.protocols import choose_protocol, describe, make_folds, notes_on, refuse_history

NO_LIMITS: Only = {}


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
    only: Only = NO_LIMITS,
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
    classes, narrowing = narrowed(classes_of(utterances, chosen), utterances, only)
    name, notes = choose_protocol(protocol, corpus, utterances, classes)
    notes = [*narrowing, *notes]
    folds = make_folds(utterances, classes, name, data_seed, chosen.names)
    opened = [cache.stream(stream) for stream in [*streams, *training_streams]]
    specs = [*(stream.spec for stream in opened), *(cache.stream(name).spec for name in other_streams)]
    refuse_history(folds, utterances, specs, name)
    covered = [
        cover(fold, cache, streams, training_streams=training_streams, allow_missing=allow_missing) for fold in folds
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
