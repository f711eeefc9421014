"""Estimate of a run: rows and bytes of every stream, encoding time, free disk space."""

import time
from dataclasses import dataclass, field

from cache.rebuild import free_bytes, plan_bytes
from featurize.extraction.encode import EncodeInput, encode_request, encode_split, load_input
from featurize.extraction.pipeline import all_batches
from featurize.extraction.plan import EncoderPlan, Inputs
from featurize.extraction.planned_job import PlannedJob


@dataclass(frozen=True, kw_only=True)
class StreamEstimate:
    """Rows and bytes of one stream, and the number of utterances that it cannot hold."""

    name: str
    rows: int
    size_bytes: int
    failed: int


@dataclass(frozen=True, kw_only=True)
class ExtractionEstimate:
    """The resources of a run that starts without a cache.

    Attributes:
        utterances: number of utterances.
        audio_s: duration of their speech in seconds.
        streams: rows and bytes of each stream.
        size_bytes: size of the cache file.
        free_bytes: free space of the disk for that file.
        seconds: encoding time, extrapolated from one batch of each encoder.
        notes: notes on the corpus and its inputs, which a run prints first.
    """

    utterances: int
    audio_s: float
    streams: list[StreamEstimate]
    size_bytes: int
    free_bytes: int
    seconds: float
    notes: list[str] = field(default_factory=list)


def estimate_extraction(planned_job: PlannedJob) -> ExtractionEstimate:
    """Estimates a run; encodes one batch of medium size with each encoder to measure its speed here."""
    plans = [stream for plan in planned_job.plans for stream in plan.streams()]
    streams = [
        StreamEstimate(
            name=stream.spec.name,
            rows=int(stream.lengths.sum()),
            size_bytes=int(stream.lengths.sum()) * stream.spec.row_bytes,
            failed=len(stream.failures),
        )
        for stream in plans
    ]
    budget = planned_job.job.batch_budget(planned_job.job.options.device)
    return ExtractionEstimate(
        utterances=len(planned_job.inputs.utterances),
        audio_s=sum(utterance.duration_s or 0.0 for utterance in planned_job.inputs.utterances),
        streams=streams,
        size_bytes=plan_bytes(plans),
        free_bytes=free_bytes(planned_job.job.cache.parent),
        seconds=sum(_seconds(plan, planned_job.inputs, budget) for plan in planned_job.plans),
        notes=list(planned_job.notes),
    )


def _seconds(plan: EncoderPlan, inputs: Inputs, batch_seconds: float) -> float:
    batches = all_batches(plan, batch_seconds)
    if not batches:
        return 0.0
    batch = batches[len(batches) // 2]  # batches are sorted by length
    loaded = [load_input(encode_request(plan, inputs, index), plan.specs) for index in batch]
    values = [item.value for item in loaded if isinstance(item, EncodeInput)]
    if not values:
        return 0.0
    encode_split(plan.encoder, values)  # the first call is slower than all others
    started = time.monotonic()
    encode_split(plan.encoder, values)
    elapsed = time.monotonic() - started
    total = sum(planned.cost for planned in plan.planned)
    return elapsed * total / sum(plan.planned[index].cost for index in batch)
