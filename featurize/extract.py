"""The pipeline: decode in threads, encode on the device, write in a thread.

Batches are a pure function of the plan, and a batch that is only partly committed is encoded whole, so that a resumed
run gives the values of an undisturbed one.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cache.layout import COMMITTED
from cache.rows import Rows, StoredRows, all_finite, to_stored
from cache.stream import SPEECH, StreamSpec
from cache.writer import CacheWriter, Row
from featurize.audio import DECODE_THREADS, RecordingError, Span, load
from featurize.commit import CommitThread
from featurize.encoders.base import Encoder
from featurize.plan import EncoderPlan, Inputs, pack_batches, speech_digest, transcript_digest, transcript_note
from featurize.progress import Progress

AHEAD = 3  # batches decoded ahead of the encoder: enough to overlap, few enough to bound memory
TOKENS = 2048  # of a batch of transcripts: sorted by length they need little padding on any device


@dataclass(frozen=True, kw_only=True)
class Source:
    """One input of an encoder, its digest for each stream, and what was noticed about it."""

    index: int
    value: Any
    digests: tuple[bytes, ...]
    note: str


@dataclass(frozen=True)
class Refused:
    """One input that cannot be had, and why."""

    index: int
    reason: str


def extract(
    plans: Sequence[EncoderPlan], inputs: Inputs, writer: CacheWriter, *, batch_seconds: float, progress: Progress
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
                _run(_Run(plan=plan, inputs=inputs, commits=commits, progress=progress), batches, threads)


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


def encode_split(
    encoder: Encoder[Any, Any], values: Sequence[Any], *, precise: bool = False
) -> list[tuple[Rows, ...] | str]:
    """Encodes a batch, in halves where it does not fit the memory; one input that does not fit gives the reason."""
    try:
        return list(encoder.encode(values, precise=precise))
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if len(values) == 1:
        return ["out of memory for this utterance alone; try --chunk or another --device"]
    half = len(values) // 2
    parts = (values[:half], values[half:])
    return [output for part in parts for output in encode_split(encoder, part, precise=precise)]


@dataclass(frozen=True, kw_only=True)
class _Run:
    """One encoder at work, and which utterances each of its streams misses."""

    plan: EncoderPlan
    inputs: Inputs
    commits: CommitThread
    progress: Progress

    def missing(self, stream: str, index: int) -> bool:
        return bool(self.commits.writer.states[stream][index] != COMMITTED)


def _run(run: _Run, batches: Sequence[list[int]], threads: ThreadPoolExecutor) -> None:
    seconds = [utterance.duration_s or 0.0 for utterance in run.inputs.utterances]
    total_s = sum(seconds[index] for batch in batches for index in batch)
    run.progress.start(run.plan.specs[0].name, sum(len(batch) for batch in batches), total_s)
    for batch, found in _ahead(batches, lambda index: load_source(run.plan, run.inputs, index), threads):
        for one in found:
            if isinstance(one, Refused):
                _fail(run, one.index, one.reason)
        sources = [one for one in found if isinstance(one, Source)]
        if sources:
            _encode(run, sources)
        run.progress.advance(len(batch), sum(seconds[index] for index in batch))


def _encode(run: _Run, sources: Sequence[Source]) -> None:
    outputs = encode_split(run.plan.encoder, [source.value for source in sources])
    rows: list[Row] = []
    for source, output in zip(sources, outputs, strict=True):
        made = _rows(run.plan, source, output)
        if isinstance(made, str):
            _fail(run, source.index, made)
        else:
            rows.extend(row for row in made if run.missing(row.stream, row.index))
    run.commits.put(rows)


def _fail(run: _Run, index: int, reason: str) -> None:
    run.commits.fail([spec.name for spec in run.plan.specs if run.missing(spec.name, index)], index, reason)


def _rows(plan: EncoderPlan, source: Source, output: tuple[Rows, ...] | str) -> list[Row] | str:
    """Converts what was computed to what is stored, or says why it cannot be."""
    if isinstance(output, str):
        return output
    note, stored = source.note, _stored(plan.specs, output)
    if not all(map(all_finite, stored)) and plan.specs[0].precision != "float32":
        output = encode_split(plan.encoder, [source.value], precise=True)[0]
        if isinstance(output, str):
            return output
        stored = _stored(plan.specs, output)
        note = "; ".join(one for one in (note, f"in float32: {plan.specs[0].precision} overflowed") if one)
    if not all(map(all_finite, stored)):
        return _not_finite(output, plan.specs[0])
    return [
        Row(stream=spec.name, index=source.index, stored=rows, digest=digest, note=note)
        for spec, rows, digest in zip(plan.specs, stored, source.digests, strict=True)
    ]


def _stored(specs: Sequence[StreamSpec], output: tuple[Rows, ...]) -> list[StoredRows]:
    return [to_stored(rows, spec.dtype) for spec, rows in zip(specs, output, strict=True)]


def _not_finite(output: tuple[Rows, ...], spec: StreamSpec) -> str:
    if all(np.isfinite(rows).all() for rows in output):
        peak = max(float(np.abs(rows).max()) for rows in output)
        return f"values up to {peak:.3g} do not fit {spec.dtype}; --dtype float32 holds them"
    return "the encoder gives NaN or infinity, in float32 too"


def load_source(plan: EncoderPlan, inputs: Inputs, index: int) -> Source | Refused:
    """Loads what an encoder reads of one utterance, or says why it cannot be had."""
    note = plan.planned[index].note
    if plan.consumes != SPEECH:
        turn = inputs.turn(index, plan.planned[index].turns)
        digests = tuple(transcript_digest(turn, spec) for spec in plan.specs)
        return Source(index=index, value=turn, digests=digests, note=transcript_note(plan, inputs, index))
    span = inputs.spans[index]
    assert isinstance(span, Span)  # a plan without a failure has one
    try:
        loaded = load(span)
    except RecordingError as error:
        return Refused(index, str(error))
    digests = tuple(speech_digest(loaded.digest, span.samples, spec) for spec in plan.specs)
    noted = "; ".join(one for one in (loaded.note, note) if one)
    return Source(index=index, value=loaded.waveform, digests=digests, note=noted)


def _ahead(
    batches: Sequence[list[int]], source: Callable[[int], Source | Refused], threads: ThreadPoolExecutor
) -> Iterator[tuple[list[int], list[Source | Refused]]]:
    """Loads a few batches ahead of the one that is asked for."""
    waiting: deque[tuple[list[int], list[Future[Source | Refused]]]] = deque()
    for batch in batches:
        waiting.append((batch, [threads.submit(source, index) for index in batch]))
        if len(waiting) > AHEAD:
            first, futures = waiting.popleft()
            yield first, [future.result() for future in futures]
    for last, futures in waiting:
        yield last, [future.result() for future in futures]


def _out_of_memory(error: BaseException) -> bool:
    told = str(error)
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in told
