"""The thread that commits rows while the device encodes the next ones."""

import queue
import threading
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from cache.writer import CacheWriter, Row

WAITING = 8  # batches that may wait to be written: bounds memory when the disk is slower than the encoder

Failure = tuple[Sequence[str], int, str]


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
