"""Which utterances make a batch, and in which order batches come.

Utterances of like length share a batch, so that little of it is padding. The order follows from the data seed, the
epoch, the lengths and the batch size alone: every model, engine and device sees the same.
"""

import numpy as np

from fusion.arrays import Indices

# Lengths are blurred by so much before utterances are sorted. Measured on 4400 utterances with lengths as IEMOCAP's, in
# batches of 32: 1.06 times the valid rows (2.7 at random), 18% of an utterance's company stays from epoch to epoch;
# 1.11 and 11% for twice as much; 1.27 and 7% for sorting within pools of 8 shuffled batches.
BLUR = 0.05


def training_batches(lengths: Indices, *, batch_size: int, data_seed: int, epoch: int) -> list[Indices]:
    """Gives the batches of one epoch: sorted by length, not quite exactly, cut, and the batches shuffled.

    Args:
        lengths: of the training utterances, ``(n,)``.
        batch_size: utterances of a batch; the last may be smaller, and takes in what would be left alone.
        data_seed: of the data, not of the model.
        epoch: counted from 1.

    Returns:
        Places among the training utterances, each once.

    Example:
        >>> batches = training_batches(np.array([9, 1, 8, 2, 7]), batch_size=2, data_seed=0, epoch=1)
        >>> sorted(sorted(batch.tolist()) for batch in batches)
        [[0, 2, 4], [1, 3]]
    """
    random = np.random.default_rng([data_seed, epoch])
    order = random.permutation(len(lengths))  # so that those of equal length, such as 0, mix too
    blurred = lengths[order] * random.uniform(1 - BLUR, 1 + BLUR, len(lengths))
    batches = _cut(order[np.argsort(blurred, kind="stable")], batch_size, least=2)
    return [batches[place] for place in random.permutation(len(batches)).tolist()]


def scoring_batches(lengths: Indices, *, batch_size: int) -> list[Indices]:
    """Gives batches of all utterances, longest first, so that memory runs out at once or never.

    Returns:
        Places among the utterances, each once.
    """
    return _cut(np.argsort(-lengths, kind="stable"), batch_size, least=1)


def _cut(order: Indices, batch_size: int, *, least: int) -> list[Indices]:
    """Cuts into batches; a rest of fewer than `least` joins the batch before it."""
    firsts = list(range(0, len(order), batch_size))
    if len(firsts) > 1 and len(order) - firsts[-1] < least:
        firsts.pop()
    return np.split(order, firsts[1:]) if firsts else []
