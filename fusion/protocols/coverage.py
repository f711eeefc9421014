"""Coverage of a fold: utterances without features are left out; in test they are an error, or show in the count."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cache.corpus_facts import broken_clips
from cache.errors import MmerError
from cache.joined import AnyCache
from cache.layout import COMMITTED
from fusion.protocols.folds import Fold

NAMED = 3  # utterances that a message names


@dataclass(frozen=True, kw_only=True)
class CoveredFold:
    """A fold restricted to utterances with features.

    Attributes:
        fold: fold without utterances that lack features.
        scored: number of test utterances with features.
        total: number of test utterances in the protocol.
        notes: notes on the utterances that are left out.
    """

    fold: Fold
    scored: int
    total: int
    notes: list[str]

    @property
    def denominator(self) -> str:
        """The line on the number of scored utterances."""
        return f"fold {self.fold.name}: scored on {self.scored} of {self.total} test utterances"


def drop_uncovered(
    fold: Fold,
    cache: AnyCache,
    streams: Sequence[str],
    *,
    training_streams: Sequence[str] = (),
    allow_missing: bool = False,
) -> CoveredFold:
    """Leaves out the utterances without features; missing test utterances are an error.

    Clips that are published as broken may be missing from test; all others need `allow_missing`.

    Args:
        fold: one fold.
        cache: open cache.
        streams: names of the streams that every subset reads.
        training_streams: names of the streams that only training reads.
        allow_missing: score the test utterances with features if others have none.

    Raises:
        MmerError: if test utterances have no features, or a stream is not found.
    """
    complete = _committed(cache, streams)
    missing = fold.test[~complete[fold.test]].tolist()
    broken = broken_clips(str(cache.header["corpus"].get("name", "")))
    unexpected = [index for index in missing if cache.ids[index] not in broken]
    if unexpected and not allow_missing:
        raise MmerError(
            f"{cache.path}: fold {fold.name}: {len(unexpected)} of {len(fold.test)} test utterances have no features "
            f"({_reasons(cache, streams, unexpected)}); run mmer-featurize again, or pass --allow-missing to score the "
            "others"
        )
    train = fold.train[(complete & _committed(cache, training_streams))[fold.train]]
    dev = fold.dev[complete[fold.dev]]
    parts = {part: indices[complete[indices]] for part, indices in fold.test_parts.items()}
    covered = replace(fold, train=train, dev=dev, test=fold.test[complete[fold.test]], test_parts=parts)
    notes = [
        f"fold {fold.name}: {len(left_out)} of {len(indices)} {subset} utterances are left out, they have no "
        f"features ({_reasons(cache, [*streams, *training_streams], left_out)})"
        for subset, indices in fold.subsets.items()
        if (left_out := np.setdiff1d(indices, covered.subsets[subset]).tolist())
    ]
    return CoveredFold(fold=covered, scored=len(covered.test), total=len(fold.test), notes=notes)


def _committed(cache: AnyCache, streams: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Returns True for each utterance with features in all of these streams, bool ``(n,)``."""
    committed = np.ones(len(cache.ids), dtype=np.bool_)
    for name in streams:
        committed &= cache.stream(name).state == COMMITTED
    return committed


def _reasons(cache: AnyCache, streams: Sequence[str], indices: Sequence[int]) -> str:
    """Returns a text with the first utterances, each with its missing stream and the reason."""
    reasons = []
    for index in indices[:NAMED]:
        missing = next(stream for name in streams if (stream := cache.stream(name)).state[index] != COMMITTED)
        reasons.append(f"{cache.ids[index]}: no {missing.spec.name}, {missing.reason(index) or 'not computed yet'}")
    more = [f"and {len(indices) - NAMED} more"] if len(indices) > NAMED else []
    return "; ".join([*reasons, *more])
