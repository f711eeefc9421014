"""Extraction pipeline of one process: threads decode, the device encodes, and one thread writes.

Batches are a pure function of the plan, and a batch that is only partly committed is encoded as a whole, so that a
resumed run gives the values of an uninterrupted one.
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
from featurize.extraction.encode import (
    EncodeInput,
    EncodeRequest,
    FailedInput,
    encode_inputs,
    encode_request,
    load_input,
)
from featurize.extraction.plan import EncoderPlan, Inputs, pack_batches
from featurize.extraction.progress import ExtractionProgress
from featurize.inputs.audio import DECODE_THREADS

QUEUED_BATCHES = 8  # batches that may wait to be written: limits memory if the disk is slower than the encoder
BATCHES_AHEAD = 3  # batches decoded ahead of the encoder: enough to overlap, few enough to limit memory
TOKEN_BUDGET = 2048  # tokens of a batch of transcripts: sorted by length, they need little padding on any device

Failure = tuple[Sequence[str], int, str]  # streams, utterance, reason


class CommitThread:
    """A thread that writes rows and failures in the order of the calls; rows that wait together share one flush.

    An error of the writer is raised by the next call, or at the end of the ``with`` block.
    """

    def __init__(self, writer: CacheWriter) -> None:
        self.writer = writer
        self._waiting: queue.Queue[list[Row] | Failure | None] = queue.Queue(QUEUED_BATCHES)
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
        """Queues the rows of a batch."""
        self._enqueue(rows)

    def fail(self, streams: Sequence[str], index: int, reason: str) -> None:
        """Queues the failure of an utterance."""
        self._enqueue((streams, index, reason))

    def _enqueue(self, item: list[Row] | Failure) -> None:
        if self._error is not None:
            raise self._error
        self._waiting.put(item)

    def _work(self) -> None:
        while True:
            items = self._next()
            if self._error is None:
                try:
                    self._write([item for item in items if item is not None])
                except BaseException as error:  # raised again in the thread that queues
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
        plans: one plan per encoder; encoders run one after another.
        inputs: inputs of the corpus.
        writer: writer of the prepared cache.
        batch_seconds: seconds of speech of one batch, padding included; 0 for one utterance at a time.
        progress: receives the state of the run.

    Raises:
        DiskFull: if the disk fills up; everything committed stays.
    """
    with CommitThread(writer) as commits, ThreadPoolExecutor(DECODE_THREADS) as threads:
        for plan in plans:
            batches = pending_batches(plan, writer, batch_seconds)
            if batches:
                _run(EncoderRun(plan=plan, inputs=inputs, commits=commits, progress=progress), batches, threads)


def pending_batches(plan: EncoderPlan, writer: CacheWriter, batch_seconds: float) -> list[list[int]]:
    """Selects the batches that hold an utterance not committed yet; each stays complete."""
    missing = np.zeros(len(plan.planned), dtype=bool)
    for spec in plan.specs:
        missing |= writer.states[spec.name] != COMMITTED
    return [batch for batch in all_batches(plan, batch_seconds) if missing[batch].any()]


def all_batches(plan: EncoderPlan, batch_seconds: float) -> list[list[int]]:
    """Builds the batches of all utterances that can be encoded, longest first."""
    budget = batch_seconds * plan.specs[0].rate_hz if plan.consumes == SPEECH else TOKEN_BUDGET
    possible = [index for index, planned in enumerate(plan.planned) if not planned.failure]
    return pack_batches([planned.cost for planned in plan.planned], possible, budget)


def load_ahead(
    batches: Sequence[list[int]], load: Callable[[int], EncodeInput | FailedInput], threads: ThreadPoolExecutor
) -> Iterator[tuple[list[int], list[EncodeInput | FailedInput]]]:
    """Yields each batch with its inputs, and loads a few batches ahead of it.

    Args:
        batches: indices of the utterances of each batch.
        load: loads the input of an utterance.
        threads: threads that load.
    """
    waiting: deque[tuple[list[int], list[Future[EncodeInput | FailedInput]]]] = deque()
    for batch in batches:
        waiting.append((batch, [threads.submit(load, index) for index in batch]))
        if len(waiting) > BATCHES_AHEAD:
            first, futures = waiting.popleft()
            yield first, [future.result() for future in futures]
    for last, futures in waiting:
        yield last, [future.result() for future in futures]


@dataclass(frozen=True, kw_only=True)
class EncoderRun:
    """The run of one encoder, here or on workers: it builds requests and commits the rows that result."""

    plan: EncoderPlan
    inputs: Inputs
    commits: CommitThread
    progress: ExtractionProgress

    def start(self, batches: Sequence[list[int]]) -> None:
        """Reports the number of utterances and their duration."""
        utterances = sum(len(batch) for batch in batches)
        self.progress.start(self.plan.specs[0].name, utterances, sum(map(self._seconds, batches)))

    def request(self, index: int) -> EncodeRequest:
        """Builds the request for an utterance."""
        return encode_request(self.plan, self.inputs, index)

    def finish(self, batch: Sequence[int], results: Sequence[Row | FailedInput]) -> None:
        """Commits the results of a batch, except rows that are committed already."""
        for result in results:
            if isinstance(result, FailedInput):
                names = [spec.name for spec in self.plan.specs if self._is_missing(spec.name, result.index)]
                self.commits.fail(names, result.index, result.reason)
        rows = [result for result in results if isinstance(result, Row)]
        self.commits.put([row for row in rows if self._is_missing(row.stream, row.index)])
        self.progress.advance(len(batch), self._seconds(batch))

    def _is_missing(self, stream: str, index: int) -> bool:
        return bool(self.commits.writer.states[stream][index] != COMMITTED)

    def _seconds(self, batch: Sequence[int]) -> float:
        return sum(self.inputs.utterances[index].duration_s or 0.0 for index in batch)


def _run(run: EncoderRun, batches: Sequence[list[int]], threads: ThreadPoolExecutor) -> None:
    run.start(batches)
    for batch, inputs in load_ahead(batches, lambda index: load_input(run.request(index), run.plan.specs), threads):
        run.finish(batch, encode_inputs(run.plan.encoder, inputs))
