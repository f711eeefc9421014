"""Runs of a job: from a corpus folder to one cache, or to one cache per shard, and the report on it."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cache.audit import left_out, noted, summarize
from cache.errors import CacheBusy
from cache.joined import AnyCache, AnyStream, open_cache
from cache.layout import COMMITTED, read_layout
from cache.transcripts import stored_transcripts
from cache.writer import CacheWriter, writing_lock
from featurize.asr.stream import parse_asr
from featurize.asr.word_errors import WordErrors, word_errors
from featurize.extraction.job import (
    ExtractionJob,
    PlannedJob,
    plan_job,
    plan_transcription,
    read_job,
    with_transcripts,
)
from featurize.extraction.pipeline import extract
from featurize.extraction.prepare import prepared_cache
from featurize.extraction.progress import ExtractionProgress
from featurize.extraction.shard import all_shards, check_shards, shard_pattern

Extractor = Callable[[PlannedJob, CacheWriter, ExtractionProgress], None]


@dataclass(frozen=True, kw_only=True)
class ExtractionReport:
    """The result of a run.

    Attributes:
        cache: the file, or the pattern of the files of all shards.
        streams: names of the streams of this run.
        summary: summary of the cache, as ``mmer-cache info`` prints it.
        noted: notes on committed rows.
        notes: notes on the run as a whole.
        seconds: duration of the run.
        empty: streams of this run without any committed utterance.
        word_errors: errors of the transcripts by ASR against the corpus' texts; None where both do not exist.
    """

    cache: Path
    streams: list[str]
    summary: dict[str, Any]
    noted: list[dict[str, str]]
    notes: list[str]
    seconds: float
    empty: list[str]
    word_errors: WordErrors | None = None


def extract_here(planned_job: PlannedJob, writer: CacheWriter, progress: ExtractionProgress) -> None:
    """Encodes everything that is not committed yet in this process."""
    budget = planned_job.job.batch_budget(planned_job.job.options.device)
    extract(planned_job.plans, planned_job.inputs, writer, batch_seconds=budget, progress=progress)


def run_job(job: ExtractionJob, progress: ExtractionProgress, extractor: Extractor = extract_here) -> ExtractionReport:
    """Featurizes a corpus: computes the rows that its cache lacks.

    Args:
        job: description of the run.
        progress: receives the state of the run.
        extractor: encodes the missing rows, here or on a cluster.

    Raises:
        MmerError: if something stops the run; everything committed stays.
    """
    started = time.monotonic()
    notes: list[str] = []
    reading, encoder_set = read_job(job)
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
    return build_report(job.cache, streams, asr=job.asr, notes=notes, seconds=time.monotonic() - started)


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
    return build_report(pattern, list(streams), asr=job.asr, notes=list(notes), seconds=seconds)


def build_report(
    cache: Path, streams: Sequence[str], *, asr: str, notes: Sequence[str], seconds: float
) -> ExtractionReport:
    """Builds the report of a run from its cache.

    Args:
        cache: the file, or the pattern of several files.
        streams: names of the streams of the run.
        asr: ASR model of the run; empty for none.
        notes: notes on the run as a whole.
        seconds: duration of the run.
    """
    opened = open_cache(cache)
    return ExtractionReport(
        cache=cache,
        streams=list(streams),
        summary=summarize(opened),
        noted=noted(opened),
        notes=list(notes),
        seconds=seconds,
        empty=[name for name in streams if _is_empty(opened.streams[name])],
        word_errors=_word_errors(opened, parse_asr(asr).stream) if asr else None,
    )


def _word_errors(cache: AnyCache, name: str) -> WordErrors | None:
    transcripts = stored_transcripts(cache, cache.stream(name).key)
    return word_errors(cache, name, transcripts or {})


def _compute(path: Path, planned_job: PlannedJob, progress: ExtractionProgress, extractor: Extractor) -> list[str]:
    """Prepares the cache for a plan and computes the rows that it lacks; returns notes."""
    inputs, replace_rows = planned_job.inputs, planned_job.job.replace
    with prepared_cache(
        path, planned_job.corpus, inputs, planned_job.plans, replace=replace_rows, progress=progress
    ) as (writer, notes):
        progress.note([*planned_job.notes, *notes])
        extractor(planned_job, writer, progress)
    return [*planned_job.notes, *notes]


def _is_empty(stream: AnyStream) -> bool:
    """Returns True for a stream without committed rows that leaves out some utterance for want of rows."""
    return not np.any(stream.state == COMMITTED) and len(left_out(stream)) < len(stream)


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
