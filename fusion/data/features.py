"""Cached features as padded batches.

Rows are held on the device if they fit; otherwise they are read ahead from the memory-mapped cache. Each row is
compared with its checksum once, when it is first read, and a cache that is rewritten while it is read ends the run.
"""

import copy
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property, partial
from hashlib import blake2b
from itertools import cycle
from shlex import quote
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cache.errors import DamagedRows, MmerError
from cache.joined import AnyCache, AnyStream, JoinedStream
from cache.layout import COMMITTED
from cache.transcripts import texts_read
from fusion.arrays import Indices
from fusion.data.memory import memory_budget
from fusion.data.packing import PackBuffer, RowTensors, held_bytes, hold_rows, to_device
from fusion.data.views import ViewDraw, alternatives
from fusion.head import Batch

AHEAD = 2  # batches packed ahead of the current batch: enough to overlap with training, few enough to bound memory
CPU = torch.device("cpu")
RESIDENT_SHARE = 0.5  # share of a device's memory for features: leaves as much for training

RowsAndStarts: TypeAlias = tuple[RowTensors, Indices]  # rows, and the first row of each utterance
Positions: TypeAlias = Mapping[str, Indices]  # role -> position of each utterance of a batch in the stream of the role


class BatchSource(Protocol):
    """Batches of any utterances of a corpus, independent of where their rows are stored.

    Training and evaluation know nothing else about the data. An utterance is identified by its index among all
    utterances of the corpus.
    """

    @property
    def ids(self) -> Sequence[str]:
        """The identifier of every utterance, ``(n,)``."""
        ...

    @property
    def labels(self) -> npt.NDArray[Any]:
        """The class of every utterance, int64 ``(n,)``, -1 where there is none; or its values, ``(n, outputs)``."""
        ...

    @property
    def device(self) -> torch.device:
        """The device of the batches."""
        ...

    def lengths(self, indices: Indices, roles: Collection[str]) -> Indices:
        """Counts the rows of each utterance over roles, int64 ``(n,)``."""
        ...

    def batches(
        self, groups: Iterable[Indices], roles: Collection[str], draw: ViewDraw | None = None
    ) -> Generator[Batch]:
        """Yields a batch for each group of indices, with features of some roles, and with the drawn views."""
        ...

    def describe(self) -> str:
        """Returns a text for the user that states where the data is."""
        ...

    def identity(self, roles: Collection[str]) -> Mapping[str, str]:
        """Returns a text for each role that differs if the rows of the role differ.

        A checkpoint is resumed only with the same texts.
        """
        ...

    def nonfinite_text(self, index: int, role: str) -> str:
        """Returns the error text for features that are not finite."""
        ...


class CachedFeatures:
    """Batches of any utterances of a cache.

    An utterance without committed rows in a stream lacks that role: its mask is False throughout.

    Args:
        cache: cache with the streams.
        streams: role -> name of the stream that is read for it. Several views of a role (`view_role`) are alternatives:
            a batch holds one of them for each utterance.
        labels: class of every utterance of the cache, int64 ``(n,)``; -1 where there is none.
        device: device of the batches.
        chosen: indices of the utterances that batches may contain; all if None.
        resident_share: share of the device's memory that their rows may take to be held there, in [0, 1]; of the free
            memory of a GPU, of the whole memory of a CPU.
        resident_bytes: the same limit in bytes, instead of a share.
        repair: returns the command that computes the damaged rows of a stream again; None if there is none.

    Raises:
        MmerError: if the cache lacks one of the streams, or rows to be held are damaged.
        ValueError: if the number of labels is not the number of utterances.

    Attributes:
        names: role -> name of its stream, as given.
        streams: role under which batches hold features -> its stream. The alternatives of a role are joined: the rows
            of utterance ``i`` in alternative ``a`` are at position ``a * n + i``.
        rows_by_role: role -> number of rows of each utterance, of the longest alternative, int64 ``(n,)``.
        rows_by_position: role -> number of rows at each position, int64 ``(alternatives * n,)``.
        memo: results computed from the rows, by a name of their own; `with_roles` and `with_labels` share it.
    """

    def __init__(
        self,
        cache: AnyCache,
        streams: Mapping[str, str],
        labels: npt.NDArray[np.int64],
        *,
        device: torch.device = CPU,
        chosen: Indices | None = None,
        resident_share: float = RESIDENT_SHARE,
        resident_bytes: int | None = None,
        repair: Callable[[str], str] | None = None,
    ) -> None:
        if len(labels) != len(cache):
            raise ValueError(f"labels must have one class for each of {len(cache)} utterances, got {len(labels)}")
        self.cache = cache
        self.names = dict(streams)
        self.memo: dict[str, Any] = {}
        self.streams = {
            role: _joined([cache.stream(name) for name in names]) for role, names in alternatives(streams).items()
        }
        self.labels: npt.NDArray[Any] = labels
        self.device = device
        self._repair = repair
        self._generation = cache.generation
        self._versions = {role: stream.row_versions() for role, stream in self.streams.items()}
        self.rows_by_position: Mapping[str, Indices] = {
            role: np.where(np.asarray(stream.state) == COMMITTED, stream.lengths, 0)
            for role, stream in self.streams.items()
        }
        self.rows_by_role: Mapping[str, Indices] = {
            role: rows.reshape(-1, len(cache)).max(axis=0, initial=0) for role, rows in self.rows_by_position.items()
        }
        self.chosen = np.arange(len(cache)) if chosen is None else np.unique(chosen)
        self._labels = torch.from_numpy(np.asarray(labels, dtype=np.int64)).to(device)
        self.budget = memory_budget(device, resident_share) if resident_bytes is None else resident_bytes
        self.resident = self.size_bytes <= self.budget
        self._held = {role: self._hold(role) for role in self.streams} if self.resident else {}
        self.check_unchanged()

    @property
    def size_bytes(self) -> int:
        """Size of the rows of the chosen utterances on the device, in bytes."""
        rows = {role: int(self.rows_by_position[role][self._all_positions(role)].sum()) for role in self.streams}
        return sum(held_bytes(self.streams[role], count) for role, count in rows.items())

    @property
    def ids(self) -> Sequence[str]:
        """The identifier of every utterance of the cache, ``(n,)``."""
        return self.cache.ids

    def rows(self, role: str, index: int) -> npt.NDArray[Any]:
        """Returns the stored rows of one utterance, ``(rows, ...)``; of several views, the first.

        The result has no rows if the utterance lacks the role.
        """
        stream = self.streams[role]
        if not self.rows_by_position[role][index]:
            return np.empty((0, *stream.spec.shape), dtype=np.float32)
        self.check_unchanged()
        self.check_rows(role, np.array([index]))
        return stream.read(index)

    def check_rows(self, role: str, positions: Indices) -> None:
        """Compares rows with their checksums, once for each position.

        Args:
            role: role that reads the rows.
            positions: positions in the stream of the role that have rows, int64 ``(n,)``.

        Raises:
            DamagedRows: if rows are damaged; contains the command that repairs them.
        """
        try:
            self.streams[role].check_rows(positions)
        except DamagedRows as error:
            way_out = self._repair(error.stream) if self._repair else f"mmer-cache verify {quote(str(self.cache.path))}"
            raise DamagedRows(f"{error}; compute them again with {way_out}", stream=error.stream) from error

    def check_unchanged(self) -> None:
        """Checks that the rows which were read are still those of the files; other rows may have been committed.

        Raises:
            MmerError: if rows were rewritten, or a file was cut short.
        """
        generation = self.cache.generation
        if generation == self._generation:
            return
        for role, stream in self.streams.items():
            positions = self._all_positions(role)
            used = positions[self.rows_by_position[role][positions] > 0]
            changed = used[stream.row_versions()[used] != self._versions[role][used]]
            if len(changed):
                raise MmerError(
                    f"{self.cache.path} was rewritten while it was read ({len(changed)} of {len(used)} utterances in "
                    f"{stream.spec.name} have other rows); wait until it is complete, then run the command again"
                )
            stream.recheck_rows()
        self._generation = generation

    def describe(self) -> str:
        """Returns a text for the user that states where the rows are."""
        size = f"{self.size_bytes / 1e6:,.1f} MB of features"
        if self.resident:
            return f"{size} are held on {self.device}"
        limit = f"at most {self.budget / 1e6:,.1f} MB may be held on {self.device}"
        return f"{size} are read from the cache as needed ({limit})"

    def lengths(self, indices: Indices, roles: Collection[str] | None = None) -> Indices:
        """Counts the rows of each utterance over roles, int64 ``(n,)``.

        All roles are counted if `roles` is None.
        """
        by_role = [self.rows_by_role[role][indices] for role in self._selected(roles)]
        rows: Indices = np.sum(by_role, axis=0, dtype=np.int64)
        return rows

    def identity(self, roles: Collection[str]) -> dict[str, str]:
        """Returns the name and the key of the stream that is read for each role, of all alternatives."""
        return {
            role: ", ".join(f"{stream.spec.name} {stream.key}" for stream in self._alternatives(role))
            for role in self._selected(roles)
        }

    def nonfinite_text(self, index: int, role: str) -> str:
        """Returns the error text for features that are not finite."""
        see = f"see mmer-cache verify {quote(str(self.cache.path))}"
        held = [stream for stream in self._alternatives(role) if stream.state[index] == COMMITTED]
        bad = [stream.spec.name for stream in held if not np.isfinite(stream.read(index)).all()]
        name = bad[0] if bad else self.streams[role].spec.name
        return f"features of utterance {self.ids[index]} in {name} are not finite; {see}"

    def with_roles(self, sources: Mapping[str, str]) -> "CachedFeatures":
        """Returns the same features, in which some roles have the rows of others.

        Args:
            sources: role -> role whose rows it gets.
        """
        other = copy.copy(self)
        named = {role: sources.get(role, role) for role in self.streams}
        other.streams = {role: self.streams[held] for role, held in named.items()}
        other.names = {role: self.names[sources.get(role, role)] for role in self.names}
        other.rows_by_role = {role: self.rows_by_role[held] for role, held in named.items()}
        other._versions = {role: self._versions[held] for role, held in named.items()}
        other.rows_by_position = {role: self.rows_by_position[held] for role, held in named.items()}
        other._held = {role: self._held[held] for role, held in named.items()} if self.resident else {}
        return other

    def with_labels(self, labels: npt.NDArray[Any]) -> "CachedFeatures":
        """Returns the same features with other targets.

        Args:
            labels: class of every utterance, int64 ``(n,)``, or its values, float32 ``(n, outputs)``.
        """
        other = copy.copy(self)
        other.labels, other._labels = labels, torch.from_numpy(labels).to(self.device)
        return other

    def batch(self, indices: Indices, roles: Collection[str] | None = None) -> Batch:
        """Returns one batch of some utterances; `batches` returns many.

        Raises:
            ValueError: if an utterance is not one of the chosen utterances.
        """
        (batch,) = self.batches([indices], roles)
        return batch

    def batches(
        self, groups: Iterable[Indices], roles: Collection[str] | None = None, draw: ViewDraw | None = None
    ) -> Generator[Batch]:
        """Yields a batch for each group of utterances.

        Rows that are not held on the device are read ahead.

        Args:
            groups: indices of the utterances of each batch.
            roles: roles to read; all if None.
            draw: draw of the views in an epoch; None for the first view that an utterance has.

        Raises:
            MmerError: if rows are damaged, or the cache was rewritten or cut short while it was read.
            ValueError: if an utterance is not one of the chosen utterances.
        """
        drawn = {role: self._drawn(role, draw) for role in self._selected(roles)}
        if not self.resident:
            yield from self._read_ahead(groups, drawn)
            self.check_unchanged()
            return
        for indices in groups:
            positions = {role: first[indices] + indices for role, first in drawn.items()}
            rows = {role: self._held_rows(role, indices, positions[role]) for role in positions}
            yield self._assemble(indices, positions, rows)

    def _selected(self, roles: Collection[str] | None) -> list[str]:
        return [role for role in self.streams if roles is None or role in roles]

    def _alternatives(self, role: str) -> list[AnyStream]:
        return [self.cache.stream(name) for name in alternatives(self.names)[role]]

    def _drawn(self, role: str, draw: ViewDraw | None) -> Indices:
        """Returns the first position of the alternative that is read for each utterance, int64 ``(n,)``."""
        present = self.rows_by_position[role].reshape(-1, len(self.cache)) > 0
        if len(present) == 1:
            return np.zeros(len(self.cache), dtype=np.int64)
        chosen = present.argmax(axis=0) if draw is None else draw.choose(role, present)
        positions: Indices = chosen * len(self.cache)
        return positions

    def _all_positions(self, role: str) -> Indices:
        """Returns the positions of the chosen utterances in all alternatives of a role, int64 ``(positions,)``."""
        firsts = np.arange(0, len(self.rows_by_position[role]), max(1, len(self.cache)))
        return (firsts[:, None] + self.chosen).ravel()

    def _hold(self, role: str) -> RowsAndStarts:
        positions = self._all_positions(role)
        lengths = self.rows_by_position[role][positions]
        starts = np.full(len(self.rows_by_position[role]), -1)
        starts[positions] = _starts(lengths)
        present = positions[lengths > 0]
        check = partial(self.check_rows, role)
        return hold_rows(self.streams[role], present, int(lengths.sum()), self.device, check), starts

    def _held_rows(self, role: str, indices: Indices, positions: Indices) -> RowsAndStarts:
        rows, starts = self._held[role]
        first = starts[positions]
        if (first < 0).any():
            raise ValueError(f"utterance {indices[int(first.argmin())]} is not among the {len(self.chosen)} chosen")
        return rows, first

    def _read_ahead(self, groups: Iterable[Indices], drawn: Mapping[str, Indices]) -> Iterator[Batch]:
        stages = cycle([_Stage(self, drawn) for _ in range(AHEAD + 1)])
        waiting: deque[tuple[Indices, Positions, _Stage, Future[dict[str, Tensor]]]] = deque()
        with ThreadPoolExecutor(1) as thread:
            for indices, stage in zip(groups, stages, strict=False):  # stages never end
                positions = {role: first[indices] + indices for role, first in drawn.items()}
                waiting.append((indices, positions, stage, thread.submit(stage.pack, positions)))
                if len(waiting) > AHEAD:
                    yield self._unpack(*waiting.popleft())
            while waiting:
                yield self._unpack(*waiting.popleft())

    def _unpack(
        self, indices: Indices, positions: Positions, stage: "_Stage", packed: Future[dict[str, Tensor]]
    ) -> Batch:
        rows = {role: to_device(tensor, self.device) for role, tensor in packed.result().items()}
        stage.wait_for_copy = _recorded_wait(self.device)
        starts = {role: _starts(self.rows_by_position[role][positions[role]]) for role in rows}
        return self._assemble(indices, positions, {role: (rows[role], starts[role]) for role in rows})

    def _assemble(self, indices: Indices, positions: Positions, rows_by_role: Mapping[str, RowsAndStarts]) -> Batch:
        padded = {
            role: rows.padded(starts, self.rows_by_position[role][positions[role]])
            for role, (rows, starts) in rows_by_role.items()
        }  # role -> features and mask
        on_device = torch.from_numpy(indices).to(self.device)
        return Batch(
            features={role: features for role, (features, _) in padded.items()},
            masks={role: mask for role, (_, mask) in padded.items()},
            labels=self._labels[on_device],
            indices=on_device,
        )


class TrainingSubset:
    """The training subset of a fold and no other data, a `fusion.head_config.TrainingRows`.

    Args:
        source: features of all utterances.
        indices: indices of the training utterances among them.
    """

    def __init__(self, source: CachedFeatures, indices: Indices) -> None:
        self._source = source
        self._indices = np.array(indices)
        targets = source.labels[self._indices]
        self.labels: npt.NDArray[np.int64] = targets if targets.ndim == 1 else targets.argmax(axis=1)

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def scales(self) -> dict[str, Any]:
        """Role -> scales that were learned from the subset; shared by all models of a fold."""
        digest = blake2b(np.asarray(self._indices, dtype=np.int64).tobytes(), digest_size=8).hexdigest()
        streams = sorted(self._source.identity(self._source.streams).items())
        found: dict[str, Any] = self._source.memo.setdefault(f"scales {digest} {streams}", {})
        return found

    def text(self, index: int) -> str:
        """Returns the transcript of one utterance of the subset, as stored."""
        return self._texts[int(self._indices[index])]

    @cached_property
    def _texts(self) -> Sequence[str]:
        """The text of every utterance that the tokens, or else the text vectors, were computed from."""
        cache = self._source.cache
        stream = next((self._source.streams[role] for role in ("tokens", "text") if role in self._source.streams), None)
        return [utterance.text for utterance in cache.utterances] if stream is None else texts_read(cache, stream.spec)

    def length(self, role: str, index: int) -> int:
        """Returns the number of rows of one utterance of the subset; 0 if it lacks the role."""
        return int(self._source.rows_by_role[role][int(self._indices[index])])

    def rows(self, role: str, index: int) -> npt.NDArray[Any]:
        """Returns the cached rows of one utterance of the subset, ``(rows, ...)``.

        The result has no rows if the utterance lacks the role; of several views, it is the first.
        """
        return self._source.rows(role, int(self._indices[index]))


class _Stage:
    """Buffers for the packed rows of one batch, reused once they were copied to the device."""

    def __init__(self, source: CachedFeatures, roles: Collection[str]) -> None:
        pinned = source.device.type == "cuda"
        self._buffers = {role: PackBuffer(source.streams[role], pinned=pinned) for role in roles}
        self._lengths, self._check_rows = source.rows_by_position, source.check_rows
        self.wait_for_copy: Callable[[], None] = _no_wait

    def pack(self, positions: Positions) -> dict[str, Tensor]:
        """Packs the rows of a batch by role as soon as the buffers are free."""
        self.wait_for_copy()
        present = {role: positions[role][self._lengths[role][positions[role]] > 0] for role in self._buffers}
        for role, held in present.items():
            self._check_rows(role, held)
        return {role: buffer.fill(present[role]) for role, buffer in self._buffers.items()}


def _joined(streams: Sequence[AnyStream]) -> AnyStream:
    """Returns one stream with the utterances of several, one stream after another."""
    if len(streams) == 1:
        return streams[0]
    files = [stream.streams if isinstance(stream, JoinedStream) else [stream] for stream in streams]
    return JoinedStream([stream for group in files for stream in group])


def _starts(lengths: Indices) -> Indices:
    """Returns the first row of each utterance in packed rows, int64 ``(n,)``."""
    return np.cumsum(lengths) - lengths


def _recorded_wait(device: torch.device) -> Callable[[], None]:
    """Returns a function that waits for all work queued on a GPU so far.

    On a CPU the function returns at once.
    """
    if device.type != "cuda":
        return _no_wait
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    wait: Callable[[], None] = event.synchronize
    return wait


def _no_wait() -> None:
    """Returns at once."""
