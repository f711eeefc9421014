"""Features of a cache as padded batches: held on the device where they fit, read ahead from the memory map if not."""

from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle
from shlex import quote
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cache.joined import AnyCache
from cache.layout import COMMITTED
from fusion.arrays import Indices
from fusion.data.memory import memory_budget
from fusion.data.packing import PackBuffer, RowTensors, held_bytes, hold_rows, to_device
from fusion.head import Batch

AHEAD = 2  # batches packed ahead of the one that is trained on: enough to overlap, few enough to bound memory
CPU = torch.device("cpu")
RESIDENT_SHARE = 0.5  # of a device's memory: leaves as much for what training takes

Placed: TypeAlias = tuple[RowTensors, Indices]  # rows, and the first of each utterance


class BatchSource(Protocol):
    """Batches of any utterances of a corpus, wherever their rows are read from.

    Training and evaluation know nothing else of the data. An utterance is named by its index among all of the corpus.
    """

    @property
    def ids(self) -> Sequence[str]:
        """Identifier of every utterance, ``(n,)``."""
        ...

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Class of every utterance, int64 ``(n,)``; -1 where there is none."""
        ...

    @property
    def device(self) -> torch.device:
        """Device that batches are on."""
        ...

    def lengths(self, indices: Indices, roles: Collection[str]) -> Indices:
        """Returns the number of rows of each utterance, summed over roles, int64 ``(n,)``."""
        ...

    def batches(self, groups: Iterable[Indices], roles: Collection[str]) -> Generator[Batch]:
        """Yields a batch for each group of indices, with the features of the given roles."""
        ...

    def describe(self) -> str:
        """Returns a text for the user that states where the data is."""
        ...

    def identity(self, roles: Collection[str]) -> Mapping[str, str]:
        """Returns a text for each role that differs where its rows differ: checkpoints are resumed by it."""
        ...

    def nonfinite_text(self, index: int, role: str) -> str:
        """Returns the error text for an utterance with features that are not finite, with the way out."""
        ...


class CachedFeatures:
    """Gives batches of any utterances of a cache.

    An utterance without committed rows in a stream lacks that role: its mask is False throughout.

    Args:
        cache: where the streams are.
        streams: role -> name of the stream that is read for it.
        labels: class of every utterance of the cache, int64 ``(n,)``; -1 where there is none.
        device: where batches go.
        chosen: the utterances that will be asked for; all if None.
        resident_share: share of the device's memory that their rows may take to be held there; of that which is free
            on a GPU, of all of a CPU's.
        resident_bytes: the same in bytes, instead of a share.

    Raises:
        MmerError: if the cache lacks one of the streams.
        ValueError: if there is not one label for each utterance.
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
    ) -> None:
        if len(labels) != len(cache):
            raise ValueError(f"labels must hold one class for each of {len(cache)} utterances, got {len(labels)}")
        self.cache = cache
        self.streams = {role: cache.stream(name) for role, name in streams.items()}
        self.labels = labels
        self.device = device
        self.rows_by_role: Mapping[str, Indices] = {
            role: np.where(np.asarray(stream.state) == COMMITTED, stream.lengths, 0)
            for role, stream in self.streams.items()
        }
        self.chosen = np.arange(len(cache)) if chosen is None else np.unique(chosen)
        self._labels = torch.from_numpy(np.asarray(labels, dtype=np.int64)).to(device)
        self.budget = memory_budget(device, resident_share) if resident_bytes is None else resident_bytes
        self.resident = self.size_bytes <= self.budget
        self._held = {role: self._hold(role) for role in streams} if self.resident else {}

    @property
    def size_bytes(self) -> int:
        """What the rows of the chosen utterances take on the device."""
        rows = {role: int(self.rows_by_role[role][self.chosen].sum()) for role in self.streams}
        return sum(held_bytes(self.streams[role], count) for role, count in rows.items())

    @property
    def ids(self) -> Sequence[str]:
        """Identifier of every utterance of the cache, ``(n,)``."""
        return self.cache.ids

    def describe(self) -> str:
        """Returns a text for the user that states where the rows are."""
        size = f"{self.size_bytes / 1e6:,.1f} MB of features"
        if self.resident:
            return f"{size} are held on {self.device}"
        return f"{size} are read as they are needed: {self.device} has room for {self.budget / 1e6:,.1f} MB of them"

    def lengths(self, indices: Indices, roles: Collection[str] | None = None) -> Indices:
        """Returns the number of rows of each utterance, summed over roles (all if None), int64 ``(n,)``."""
        rows: Indices = np.sum([self.rows_by_role[role][indices] for role in self._read(roles)], axis=0, dtype=np.int64)
        return rows

    def identity(self, roles: Collection[str]) -> dict[str, str]:
        """Returns the name and the key of the stream that is read for each role."""
        return {role: f"{self.streams[role].spec.name} {self.streams[role].key}" for role in self._read(roles)}

    def nonfinite_text(self, index: int, role: str) -> str:
        """Returns the error text for an utterance with features that are not finite, with the way out."""
        see = f"see mmer-cache verify {quote(str(self.cache.path))}"
        return f"features of utterance {self.ids[index]} in {self.streams[role].spec.name} are not finite; {see}"

    def batch(self, indices: Indices, roles: Collection[str] | None = None) -> Batch:
        """Gives some utterances as a batch; see `batches` for many.

        Raises:
            ValueError: if one of them is not among the chosen ones.
        """
        (batch,) = self.batches([indices], roles)
        return batch

    def batches(self, groups: Iterable[Indices], roles: Collection[str] | None = None) -> Generator[Batch]:
        """Gives a batch for each group of utterances, the next ones read ahead where they are not on the device.

        Args:
            groups: indices of the utterances of each batch, in the order wanted.
            roles: those to read; all if None.

        Raises:
            ValueError: if an utterance is not among the chosen ones.
        """
        wanted = self._read(roles)
        if not self.resident:
            yield from self._read_ahead(groups, wanted)
            return
        for indices in groups:
            yield self._assembled(indices, {role: self._placed(role, indices) for role in wanted})

    def _read(self, roles: Collection[str] | None) -> list[str]:
        return [role for role in self.streams if roles is None or role in roles]

    def _hold(self, role: str) -> Placed:
        lengths = self.rows_by_role[role][self.chosen]
        starts = np.full(len(self.cache), -1)
        starts[self.chosen] = _starts(lengths)
        present = self.chosen[lengths > 0]
        return hold_rows(self.streams[role], present, int(lengths.sum()), self.device), starts

    def _placed(self, role: str, indices: Indices) -> Placed:
        rows, starts = self._held[role]
        first = starts[indices]
        if (first < 0).any():
            raise ValueError(f"utterance {indices[int(first.argmin())]} is not among the {len(self.chosen)} chosen")
        return rows, first

    def _read_ahead(self, groups: Iterable[Indices], roles: Collection[str]) -> Iterator[Batch]:
        stages = cycle([_Stage(self, roles) for _ in range(AHEAD + 1)])
        waiting: deque[tuple[Indices, _Stage, Future[dict[str, Tensor]]]] = deque()
        with ThreadPoolExecutor(1) as thread:
            for indices, stage in zip(groups, stages, strict=False):  # stages never end
                waiting.append((indices, stage, thread.submit(stage.pack, indices)))
                if len(waiting) > AHEAD:
                    yield self._unpacked(*waiting.popleft())
            while waiting:
                yield self._unpacked(*waiting.popleft())

    def _unpacked(self, indices: Indices, stage: "_Stage", packed: Future[dict[str, Tensor]]) -> Batch:
        rows = {role: to_device(tensor, self.device) for role, tensor in packed.result().items()}
        stage.copied = _event(self.device)
        starts = {role: _starts(self.rows_by_role[role][indices]) for role in rows}
        return self._assembled(indices, {role: (rows[role], starts[role]) for role in rows})

    def _assembled(self, indices: Indices, placed: Mapping[str, Placed]) -> Batch:
        made = {
            role: rows.padded(starts, self.rows_by_role[role][indices]) for role, (rows, starts) in placed.items()
        }  # role -> features and mask
        chosen = torch.from_numpy(indices).to(self.device)
        return Batch(
            features={role: features for role, (features, _) in made.items()},
            masks={role: mask for role, (_, mask) in made.items()},
            labels=self._labels[chosen],
            indices=chosen,
        )


class TrainingSubset:
    """The training part of a fold, and nothing else: a `fusion.head.TrainingRows`.

    Args:
        source: of all utterances.
        indices: those of the training part.
    """

    def __init__(self, source: CachedFeatures, indices: Indices) -> None:
        self._source = source
        self._indices = np.array(indices)
        self.labels: npt.NDArray[np.int64] = source.labels[self._indices]

    def __len__(self) -> int:
        return len(self._indices)

    def text(self, place: int) -> str:
        """Gives the transcript of one of them, as stored."""
        return self._source.cache.utterances[int(self._indices[place])].text

    def rows(self, role: str, place: int) -> npt.NDArray[Any]:
        """Gives the cached rows of one of them, ``(rows, ...)``; none where it lacks the role."""
        index, stream = int(self._indices[place]), self._source.streams[role]
        if not self._source.rows_by_role[role][index]:
            return np.empty((0, *stream.spec.shape), dtype=np.float32)
        return stream.read(index)


class _Stage:
    """The packed rows of one batch on their way: buffers that are reused once they were copied to the device."""

    def __init__(self, source: CachedFeatures, roles: Collection[str]) -> None:
        pinned = source.device.type == "cuda"
        self._buffers = {role: PackBuffer(source.streams[role], pinned=pinned) for role in roles}
        self._lengths = source.rows_by_role
        self.copied: Callable[[], None] = _nothing

    def pack(self, indices: Indices) -> dict[str, Tensor]:
        """Packs the rows of a batch by role, as soon as the buffers are free again."""
        self.copied()
        return {role: buffer.fill(indices[self._lengths[role][indices] > 0]) for role, buffer in self._buffers.items()}


def _starts(lengths: Indices) -> Indices:
    """Gives the first row of each utterance, where they lie one after another."""
    return np.cumsum(lengths) - lengths


def _event(device: torch.device) -> Callable[[], None]:
    """Gives what waits until everything that a GPU was told so far is done; on a CPU it is done."""
    if device.type != "cuda":
        return _nothing
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    wait: Callable[[], None] = event.synchronize
    return wait


def _nothing() -> None:
    """Waits for nothing."""
