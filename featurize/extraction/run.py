"""Runs of a job: from a corpus folder to one cache, or to one cache per shard, and the report on it."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from cache.errors import CacheBusy
from cache.layout import COMMITTED, read_layout
from cache.store import FeatureCache
from cache.writer import CacheWriter, writing_lock
from featurize.asr.stream import parse_asr
from featurize.extraction.finished import RunRequest, watch_files, watch_recordings, write_record
from featurize.extraction.job import ExtractionJob
from featurize.extraction.pipeline import extract
from featurize.extraction.plan import EncoderPlan
from featurize.extraction.planned_job import PlannedJob, plan_job, plan_transcription, read_job, with_transcripts
from featurize.extraction.prepare import prepared_cache
from featurize.extraction.progress import ExtractionProgress
from featurize.extraction.report import ExtractionReport, build_report
from featurize.extraction.shard import all_shards, check_shards, shard_pattern

Extractor = Callable[[PlannedJob, CacheWriter, ExtractionProgress], None]


def extract_here(planned_job: PlannedJob, writer: CacheWriter, progress: ExtractionProgress) -> None:
    """Encodes everything that is not committed yet in this process."""
    budget = planned_job.job.batch_budget(planned_job.job.options.device)
    extract(planned_job.plans, planned_job.inputs, writer, batch_seconds=budget, progress=progress)


def run_job(job: ExtractionJob, progress: ExtractionProgress, extractor: Extractor = extract_here) -> ExtractionReport:
    """Featurizes a corpus: computes the rows that its cache lacks.

    A run that ends complete is recorded, so that `finished_report` answers the next one.

    Args:
        job: description of the run.
        progress: receives the state of the run.
        extractor: encodes the missing rows, here or on a cluster.

    Raises:
        MmerError: if something stops the run; everything committed stays.
    """
    started = time.monotonic()
    notes: list[str] = []
    request = RunRequest.of_job(job)
    files = watch_files(request)  # before anything is read: what changes meanwhile does not match the record
    reading, encoder_set = read_job(job)
    if files is not None:
        files = watch_recordings(files, request, [utterance.audio for utterance in reading.utterances[: job.limit]])
    path = job.cache.resolve() if job.cache.is_symlink() else job.cache  # the lock belongs to the file, not to the link
    with _write_lock(path, job, progress):
        if path.exists():
            read_layout(path)  # an unreadable file must stop the run before the encoders are loaded
        if job.asr:  # first: the encoders of text count the tokens of its transcripts
            transcription = plan_transcription(job, reading, path)
            notes += _compute(path, transcription, progress, extractor)
            planned_job = plan_job(job, reading, *with_transcripts(encoder_set, transcription, path))
            plans = [*transcription.plans, *planned_job.plans]
        else:
            planned_job = plan_job(job, reading, encoder_set)
            plans = planned_job.plans
        notes += _compute(path, planned_job, progress, extractor)
        streams = [spec.name for plan in plans for spec in plan.specs]
        cache = FeatureCache(path)
        if files is not None and _is_complete(cache, plans):
            write_record(request, files, cache.utterances, streams=streams, notes=planned_job.notes)
    return build_report(
        job.cache, streams, notes=notes, seconds=time.monotonic() - started, transcripts=_transcripts(job), opened=cache
    )


def shard_jobs(job: ExtractionJob, count: int) -> tuple[list[ExtractionJob], int]:
    """Splits a job into one per shard, each with a file of its own; also returns the number of utterances.

    Raises:
        MmerError: if a shard would be empty.
    """
    reading, _ = read_job(job)
    utterances = reading.utterances[: job.limit]
    check_shards(utterances, count)
    return [replace(job, shard=shard, cache=shard.path(job.cache)) for shard in all_shards(count)], len(utterances)


def shard_job(job: ExtractionJob, number: int, count: int) -> ExtractionJob:
    """Returns the job of one shard, with a file of its own, for example for an array of batch jobs.

    Args:
        job: job of the whole corpus.
        number: number of the shard, from 1 to `count`.
        count: number of shards.

    Raises:
        MmerError: if a shard would be empty.
        ValueError: if the number is not in 1 to `count`.
    """
    if not 1 <= number <= count:
        raise ValueError(f"a shard of {count} is numbered 1 to {count}, got {number}")
    return shard_jobs(job, count)[0][number - 1]


def run_shards(job: ExtractionJob, count: int, progress: ExtractionProgress) -> ExtractionReport:
    """Featurizes the shards of a corpus one after another in this process.

    Raises:
        MmerError: if something stops the run; everything committed stays.
    """
    started = time.monotonic()
    jobs, _ = shard_jobs(job, count)
    reports = [run_job(shard, progress) for shard in jobs]
    return joined_report(job, count, reports, seconds=time.monotonic() - started)


def joined_report(
    job: ExtractionJob, count: int, reports: Sequence[ExtractionReport], *, seconds: float
) -> ExtractionReport:
    """Builds the common report of the runs over all shards."""
    streams = dict.fromkeys(name for report in reports for name in report.streams)
    notes = dict.fromkeys(note for report in reports for note in report.notes)
    pattern = shard_pattern(job.cache, count)
    return build_report(pattern, list(streams), notes=list(notes), seconds=seconds, transcripts=_transcripts(job))


def _compute(path: Path, planned_job: PlannedJob, progress: ExtractionProgress, extractor: Extractor) -> list[str]:
    """Prepares the cache for a plan and computes the rows that it lacks; returns notes."""
    inputs, replace_rows = planned_job.inputs, planned_job.job.replace
    with prepared_cache(
        path, planned_job.corpus, inputs, planned_job.plans, replace=replace_rows, progress=progress
    ) as (writer, notes):
        progress.note([*planned_job.notes, *notes])
        extractor(planned_job, writer, progress)
    return [*planned_job.notes, *notes]


def _is_complete(cache: FeatureCache, plans: Sequence[EncoderPlan]) -> bool:
    """Returns True if the next run has nothing to compute: every row is committed, or failed before encoding."""
    for plan in (stream for each in plans for stream in each.streams()):
        is_done = cache.stream(plan.spec.name).state == COMMITTED
        is_done[list(plan.failures)] = True
        if not is_done.all():
            return False
    return True


def _transcripts(job: ExtractionJob) -> str:
    return parse_asr(job.asr).stream if job.asr else ""


@contextmanager
def _write_lock(path: Path, job: ExtractionJob, progress: ExtractionProgress) -> Iterator[None]:
    """Holds the lock of the file; if the job waits, it is acquired when another run has released it."""
    with ExitStack() as held:
        try:
            held.enter_context(writing_lock(path))
        except CacheBusy:
            if not job.wait:
                raise
            progress.note([f"{path} is being written by another run; waiting for it"])
            held.enter_context(writing_lock(path, wait=True))
        yield
