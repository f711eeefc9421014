"""Which utterances of a fold have all the features that are read, and over how many the test scores are taken."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cache.errors import MmerError
from cache.joined import AnyCache
from cache.layout import COMMITTED
from cache.published import broken_clips
from fusion.members import Fold

NAMED = 3  # how many utterances a message spells out


@dataclass(frozen=True, kw_only=True)
class Covered:
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


def cover(
    fold: Fold,
    cache: AnyCache,
    streams: Sequence[str],
    *,
    training_streams: Sequence[str] = (),
    allow_missing: bool = False,
) -> Covered:
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
        f"fold {fold.name}: {len(gone)} of {len(fold.parts[part])} {part} utterances are left out, they have no "
        f"features ({_reasons(cache, [*streams, *training_streams], gone)})"
        for part in fold.parts
        if (gone := np.setdiff1d(fold.parts[part], covered.parts[part]).tolist())
    ]
    return Covered(fold=covered, scored=len(covered.test), total=len(fold.test), notes=notes)


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
