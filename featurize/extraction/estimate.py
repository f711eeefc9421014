"""What a run would take: rows and bytes of every stream, the time, the room on the disk."""

import time
from dataclasses import dataclass

from cache.rebuild import free_bytes, plan_bytes
from featurize.extraction.encode import EncodeInput, encode_split, load_source, order_of
from featurize.extraction.job import PlannedJob
from featurize.extraction.pipeline import all_batches
from featurize.extraction.plan import EncoderPlan, Inputs


@dataclass(frozen=True, kw_only=True)
class StreamEstimate:
    """Rows and bytes of one stream, and how many utterances it cannot hold."""

    name: str
    rows: int
    size_bytes: int
    failed: int


@dataclass(frozen=True, kw_only=True)
class ExtractionEstimate:
    """What a run from nothing would take.

    Attributes:
        utterances: how many.
        audio_s: seconds of speech.
        streams: rows and bytes of each.
        size_bytes: of the file.
        free_bytes: of the disk that it would lie on.
        seconds: encoding time, measured on one batch of each encoder.
    """

    utterances: int
    audio_s: float
    streams: list[StreamEstimate]
    size_bytes: int
    free_bytes: int
    seconds: float


def estimate_extraction(ready: PlannedJob) -> ExtractionEstimate:
    """Estimates a run; encodes one batch of medium size per encoder to see how fast it is here."""
    plans = [stream for plan in ready.plans for stream in plan.streams()]
    streams = [
        StreamEstimate(
            name=stream.spec.name,
            rows=int(stream.lengths.sum()),
            size_bytes=int(stream.lengths.sum()) * stream.spec.row_bytes,
            failed=len(stream.failures),
        )
        for stream in plans
    ]
    budget = ready.job.batch_budget(ready.job.options.device)
    return ExtractionEstimate(
        utterances=len(ready.inputs.utterances),
        audio_s=sum(utterance.duration_s or 0.0 for utterance in ready.inputs.utterances),
        streams=streams,
        size_bytes=plan_bytes(plans),
        free_bytes=free_bytes(ready.job.cache.parent),
        seconds=sum(_seconds(plan, ready.inputs, budget) for plan in ready.plans),
    )


def _seconds(plan: EncoderPlan, inputs: Inputs, batch_seconds: float) -> float:
    batches = all_batches(plan, batch_seconds)
    if not batches:
        return 0.0
    batch = batches[len(batches) // 2]  # they are sorted by length
    found = [load_source(order_of(plan, inputs, index), plan.specs) for index in batch]
    values = [one.value for one in found if isinstance(one, EncodeInput)]
    if not values:
        return 0.0
    encode_split(plan.encoder, values)  # the first call is slower than all others
    started = time.monotonic()
    encode_split(plan.encoder, values)
    elapsed = time.monotonic() - started
    total = sum(one.cost for one in plan.planned)
    return elapsed * total / sum(plan.planned[index].cost for index in batch)
