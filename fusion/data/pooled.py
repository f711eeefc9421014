"""Pooled features: one vector per utterance and role, computed once for all epochs, folds, seeds and models of a grid.

A head whose rows are pooled before anything random or learned (`Head.early_pooling`) reads these in place of its rows.
Each utterance is pooled by itself, without padding, so that a vector does not depend on the batch, the fold or the
engine. Rows are read, and compared with their checksums, when an utterance is first used.
"""

from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fusion.arrays import Indices
from fusion.data.batches import scoring_batches
from fusion.data.features import BatchSource, CachedFeatures
from fusion.data.views import ViewDraw
from fusion.head import Batch, Head

READ_AT_ONCE = 32  # utterances of a batch that is pooled
KEPT_BYTES = 64_000_000  # vectors of other folds and poolings that are kept; of 10,000 utterances 4 sets of width 400


class PooledVectors:
    """The vectors of the utterances that were pooled so far, for each role, stream and pooling.

    One object serves all views of a source (`CachedFeatures.with_roles`, `CachedFeatures.with_labels`).
    """

    def __init__(self) -> None:
        self._sets: dict[tuple[str, str, str], tuple[Tensor, Tensor, npt.NDArray[np.bool_]]] = {}
        self._lock = Lock()

    def of(self, head: Head, source: BatchSource, indices: Indices) -> dict[str, tuple[Tensor, Tensor]]:
        """Returns the vectors of utterances, pooling those that are new.

        Args:
            head: head on the device of the source, with early pooling.
            source: source of the rows.
            indices: the utterances, int64 ``(n,)``.

        Returns:
            For each role, ``(utterances of the source, ...)`` and a bool ``(utterances of the source,)`` that is True
            where an utterance has a row to pool; other utterances than the requested ones are undefined.
        """
        with self._lock:
            keys = {role: (role, text, str(source.identity([role])[role])) for role, text in head.early_pooling.items()}
            sets = {role: self._sets.pop(key) for role, key in keys.items() if key in self._sets}
            done = [pooled[2][indices] for pooled in sets.values()]
            complete = np.logical_and.reduce(done) if len(sets) == len(keys) else np.zeros(len(indices), dtype=np.bool_)
            missing = np.unique(indices[~complete])
            if len(missing):
                sets = _pool(head, source, missing, sets)
            for role, key in keys.items():  # the latest last
                self._sets[key] = sets[role]
            self._drop_oldest(frozenset(keys.values()))
            return {role: pooled[:2] for role, pooled in sets.items()}

    def _drop_oldest(self, used: Collection[tuple[str, str, str]]) -> None:
        sizes = {key: pooled[0].nbytes for key, pooled in self._sets.items()}
        for key in [key for key in self._sets if key not in used]:
            if sum(sizes[held] for held in self._sets) <= KEPT_BYTES:
                return
            del self._sets[key]


class PooledSource:
    """The pooled batches of a head, a `fusion.data.features.BatchSource`.

    Batches have the composition, the targets and the texts of those of the source.

    Args:
        source: source of the rows.
        vectors: role -> vectors and presence, as `PooledVectors.of` returns them.
        indices: utterances that batches may contain, int64 ``(n,)``.
    """

    def __init__(self, source: BatchSource, vectors: Mapping[str, tuple[Tensor, Tensor]], indices: Indices) -> None:
        self._source, self._vectors = source, vectors
        self._allowed = np.zeros(len(source.labels), dtype=np.bool_)
        self._allowed[indices] = True
        self._targets = torch.from_numpy(np.asarray(source.labels)).to(source.device)

    @property
    def ids(self) -> Sequence[str]:
        """The identifier of every utterance, ``(n,)``."""
        return self._source.ids

    @property
    def labels(self) -> npt.NDArray[Any]:
        """The targets of the source."""
        return self._source.labels

    @property
    def device(self) -> torch.device:
        """The device of the batches."""
        return self._source.device

    def lengths(self, indices: Indices, roles: Collection[str]) -> Indices:
        """Counts the rows of each utterance before pooling, so that batches have the same utterances."""
        return self._source.lengths(indices, roles)

    def batches(
        self, groups: Iterable[Indices], roles: Collection[str], draw: ViewDraw | None = None
    ) -> Generator[Batch]:
        """Yields a pooled batch for each group of indices.

        Raises:
            ValueError: if an utterance is not among those that were pooled.
        """
        for indices in groups:
            if not self._allowed[indices].all():
                raise ValueError(f"utterance {indices[int(self._allowed[indices].argmin())]} was not pooled")
            on_device = torch.from_numpy(indices).to(self.device)
            yield Batch(
                features={role: vectors[on_device][:, None] for role, (vectors, _) in self._vectors.items()},
                masks={role: present[on_device][:, None] for role, (_, present) in self._vectors.items()},
                labels=self._targets[on_device],
                indices=on_device,
                pooled=True,
            )

    def describe(self) -> str:
        """Returns the text of the source."""
        return self._source.describe()

    def identity(self, roles: Collection[str]) -> Mapping[str, str]:
        """Returns the texts of the source."""
        return self._source.identity(roles)

    def nonfinite_text(self, index: int, role: str) -> str:
        """Returns the error text of the source."""
        return self._source.nonfinite_text(index, role)


def pooled_once(heads: Sequence[Head], source: BatchSource, indices: Indices, *, precision: str) -> BatchSource:
    """Returns pooled features for the training of heads; the source itself if they do not pool first.

    Mixed precision computes statistics of rows in another type than this module, so it reads rows.

    Args:
        heads: heads on the device of the source, which train together.
        source: source of the rows.
        indices: utterances of training and development, int64 ``(n,)``.
        precision: precision of the training.
    """
    keys = [head.early_pooling for head in heads]
    if not keys[0] or precision != "float32" or not isinstance(source, CachedFeatures):
        return source
    if any(other != keys[0] for other in keys) or _vector_bytes(heads[0], source) > source.budget:
        return source
    vectors: PooledVectors = source.memo.setdefault(PooledVectors.__name__, PooledVectors())
    return PooledSource(source, vectors.of(heads[0], source, indices), indices)


def _vector_bytes(head: Head, source: CachedFeatures) -> int:
    """Returns an upper bound of the size of all vectors in bytes."""
    widths = [int(np.prod(source.streams[role].spec.shape)) for role in head.early_pooling]
    return 2 * 4 * len(source.labels) * sum(widths)  # mean and deviation, float32


def _pool(
    head: Head,
    source: BatchSource,
    indices: Indices,
    known: Mapping[str, tuple[Tensor, Tensor, npt.NDArray[np.bool_]]],
) -> dict[str, tuple[Tensor, Tensor, npt.NDArray[np.bool_]]]:
    """Pools utterances one by one into sets of vectors; new sets are created."""
    was_training, roles = head.training, [*head.early_pooling]
    head.eval()
    sets = dict(known)
    groups = [
        indices[group] for group in scoring_batches(source.lengths(indices, head.config.roles), batch_size=READ_AT_ONCE)
    ]
    with torch.no_grad():
        for group, batch in zip(groups, source.batches(groups, head.config.roles), strict=True):
            for position, index in enumerate(group.tolist()):
                single = _utterance(batch, position)
                for role in roles:
                    vector, present = head.pool_role(role, single)
                    if role not in sets:
                        sets[role] = _empty(len(source.labels), vector)
                    sets[role][0][index], sets[role][1][index] = vector[0], present[0]
    for role in roles:
        sets[role][2][indices] = True
    head.train(was_training)
    return sets


def _utterance(batch: Batch, position: int) -> Batch:
    """Returns one utterance of a batch without padding; a role without rows has one invalid row."""
    here = slice(position, position + 1)
    counts = {role: max(1, int(mask[position].sum())) for role, mask in batch.masks.items()}
    return Batch(
        features={role: rows[here, : counts[role]] for role, rows in batch.features.items()},
        masks={role: mask[here, : counts[role]] for role, mask in batch.masks.items()},
        labels=batch.labels[here],
        indices=batch.indices[here],
    )


def _empty(utterances: int, vector: Tensor) -> tuple[Tensor, Tensor, npt.NDArray[np.bool_]]:
    vectors = torch.zeros(utterances, *vector.shape[1:], dtype=vector.dtype, device=vector.device)
    present = torch.zeros(utterances, dtype=torch.bool, device=vector.device)
    return vectors, present, np.zeros(utterances, dtype=np.bool_)
