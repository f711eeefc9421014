"""The pipeline: decode in threads, encode on the device, write in a thread.

Batches are a pure function of the plan, and a batch that is only partly committed is encoded whole, so that a resumed
run gives the values of an undisturbed one.

The thread that commits rows while the device encodes the next ones.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np

from cache.layout import COMMITTED
from cache.stream import SPEECH
from cache.writer import CacheWriter, Row
from featurize.extraction.encode import EncodeInput, EncodeRequest, FailedInput, encode_sources, load_source, order_of
from featurize.extraction.plan import EncoderPlan, Inputs, pack_batches
from featurize.extraction.progress import ExtractionProgress
from featurize.inputs.audio import DECODE_THREADS

WAITING = 8  # batches that may wait to be written: bounds memory when the disk is slower than the encoder
Failure = tuple[Sequence[str], int, str]
AHEAD = 3  # batches decoded ahead of the encoder: enough to overlap, few enough to bound memory
TOKENS = 2048  # of a batch of transcripts: sorted by length they need little padding on any device


class CommitThread:
    """Writes what it is given in the order given; rows that wait together are flushed to disk together.

    An error of the writer is raised at the next call, and when the thread is left.
    """

    def __init__(self, writer: CacheWriter) -> None:
        self.writer = writer
        self._waiting: queue.Queue[list[Row] | Failure | None] = queue.Queue(WAITING)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="mmer-commit", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waiting.put(None)
        while self._thread.is_alive():
            with suppress(KeyboardInterrupt):  # a second Ctrl-C must not close the file under the thread
                self._thread.join()
        if self._error is not None and error is None:
            raise self._error

    def put(self, rows: list[Row]) -> None:
        """Hands over the rows of a batch."""
        self._hand_over(rows)

    def fail(self, streams: Sequence[str], index: int, reason: str) -> None:
        """Hands over a failure."""
        self._hand_over((streams, index, reason))

    def _hand_over(self, item: list[Row] | Failure) -> None:
        if self._error is not None:
            raise self._error
        self._waiting.put(item)

    def _work(self) -> None:
        while True:
            items = self._next()
            if self._error is None:
                try:
                    self._write([item for item in items if item is not None])
                except BaseException as error:  # raised in the thread that hands over
                    self._error = error
            if None in items:
                return

    def _next(self) -> list[list[Row] | Failure | None]:
        items = [self._waiting.get()]
        while not self._waiting.empty():
            items.append(self._waiting.get())
        return items

    def _write(self, items: Sequence[list[Row] | Failure]) -> None:
        rows: list[Row] = []
        for item in items:
            if isinstance(item, list):
                rows += item
                continue
            self.writer.commit(rows)
            rows = []
            streams, index, reason = item
            for stream in streams:
                self.writer.fail(stream, index, reason)
        self.writer.commit(rows)


def extract(
    plans: Sequence[EncoderPlan],
    inputs: Inputs,
    writer: CacheWriter,
    *,
    batch_seconds: float,
    progress: ExtractionProgress,
) -> None:
    """Encodes everything that is not committed yet.

    Args:
        plans: one per encoder; they run one after another.
        inputs: of the corpus.
        writer: of the prepared cache.
        batch_seconds: speech of one batch, padding included; 0 for one utterance at a time.
        progress: told how far the run is.

    Raises:
        DiskFull: if the disk fills up; whatever was committed stays.
    """
    with CommitThread(writer) as commits, ThreadPoolExecutor(DECODE_THREADS) as threads:
        for plan in plans:
            batches = pending_batches(plan, writer, batch_seconds)
            if batches:
                _run(EncoderRun(plan=plan, inputs=inputs, commits=commits, progress=progress), batches, threads)


def pending_batches(plan: EncoderPlan, writer: CacheWriter, batch_seconds: float) -> list[list[int]]:
    """Gives the batches that hold something not committed yet, each whole."""
    missing = np.zeros(len(plan.planned), dtype=bool)
    for spec in plan.specs:
        missing |= writer.states[spec.name] != COMMITTED
    return [batch for batch in all_batches(plan, batch_seconds) if missing[batch].any()]


def all_batches(plan: EncoderPlan, batch_seconds: float) -> list[list[int]]:
    """Gives the batches of everything that can be encoded, longest first."""
    budget = batch_seconds * plan.specs[0].rate_hz if plan.consumes == SPEECH else TOKENS
    possible = [index for index, one in enumerate(plan.planned) if not one.failure]
    return pack_batches([one.cost for one in plan.planned], possible, budget)


@dataclass(frozen=True, kw_only=True)
class EncoderRun:
    """One encoder at work, wherever its batches are encoded: orders go out, rows come back and are committed."""

    plan: EncoderPlan
    inputs: Inputs
    commits: CommitThread
    progress: ExtractionProgress

    def start(self, batches: Sequence[list[int]]) -> None:
        """Says what is to be done."""
        utterances = sum(len(batch) for batch in batches)
        self.progress.start(self.plan.specs[0].name, utterances, sum(map(self._seconds, batches)))

    def order(self, index: int) -> EncodeRequest:
        """Gives what an encoder needs to know of an utterance."""
        return order_of(self.plan, self.inputs, index)

    def finish(self, batch: Sequence[int], made: Sequence[Row | FailedInput]) -> None:
        """Hands over what a batch gave, as far as it is missing."""
        for one in made:
            if isinstance(one, FailedInput):
                names = [spec.name for spec in self.plan.specs if self._misses(spec.name, one.index)]
                self.commits.fail(names, one.index, one.reason)
        self.commits.put([one for one in made if isinstance(one, Row) and self._misses(one.stream, one.index)])
        self.progress.advance(len(batch), self._seconds(batch))

    def _misses(self, stream: str, index: int) -> bool:
        return bool(self.commits.writer.states[stream][index] != COMMITTED)

    def _seconds(self, batch: Sequence[int]) -> float:
        return sum(self.inputs.utterances[index].duration_s or 0.0 for index in batch)


def _run(run: EncoderRun, batches: Sequence[list[int]], threads: ThreadPoolExecutor) -> None:
    run.start(batches)
    for batch, found in _ahead(batches, lambda index: load_source(run.order(index), run.plan.specs), threads):
        run.finish(batch, encode_sources(run.plan.encoder, found))


def _ahead(
    batches: Sequence[list[int]], source: Callable[[int], EncodeInput | FailedInput], threads: ThreadPoolExecutor
) -> Iterator[tuple[list[int], list[EncodeInput | FailedInput]]]:
    """Loads a few batches ahead of the one that is asked for."""
    waiting: deque[tuple[list[int], list[Future[EncodeInput | FailedInput]]]] = deque()
    for batch in batches:
        waiting.append((batch, [threads.submit(source, index) for index in batch]))
        if len(waiting) > AHEAD:
            first, futures = waiting.popleft()
            yield first, [future.result() for future in futures]
    for last, futures in waiting:
        yield last, [future.result() for future in futures]
