"""Runs a job: a corpus folder in, one cache out, or one for each share of it."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cache.audit import noted, summarize
from cache.errors import CacheBusy
from cache.joined import open_cache
from cache.layout import COMMITTED, read_layout
from cache.writer import CacheWriter, writing_lock
from featurize.extraction.job import ExtractionJob, PlannedJob, plan_job, read_job
from featurize.extraction.pipeline import extract
from featurize.extraction.prepare import prepared
from featurize.extraction.progress import ExtractionProgress
from featurize.extraction.shard import all_shards, check_shards, shard_pattern

Extractor = Callable[[PlannedJob, CacheWriter, ExtractionProgress], None]


@dataclass(frozen=True, kw_only=True)
class ExtractionReport:
    """What a run left behind.

    Attributes:
        cache: the file, or the pattern of the files of all shares.
        streams: of this run.
        summary: as ``mmer-cache info`` gives it.
        noted: what was noted of committed rows.
        notes: what was noticed about the run as a whole.
        seconds: how long it took.
        empty: streams of this run without a single committed utterance.
    """

    cache: Path
    streams: list[str]
    summary: dict[str, Any]
    noted: list[dict[str, str]]
    notes: list[str]
    seconds: float
    empty: list[str]


def extract_here(ready: PlannedJob, writer: CacheWriter, progress: ExtractionProgress) -> None:
    """Encodes in this process everything that is not committed yet."""
    budget = ready.job.batch_budget(ready.job.options.device)
    extract(ready.plans, ready.inputs, writer, batch_seconds=budget, progress=progress)


def run_job(job: ExtractionJob, progress: ExtractionProgress, extractor: Extractor = extract_here) -> ExtractionReport:
    """Featurizes a corpus, or what is missing of it.

    Args:
        job: what to do.
        progress: told how far the run is.
        extractor: encodes what is missing, here or on a cluster.

    Raises:
        MmerError: one line on what stopped the run; everything committed stays.
    """
    started = time.monotonic()
    reading, lineup = read_job(job)
    path = job.cache.resolve() if job.cache.is_symlink() else job.cache  # the lock belongs to the file, not to a link
    with _lock(path, job, progress):
        if path.exists():
            read_layout(path)  # a file that cannot be read stops the run before the encoders are loaded
        ready = plan_job(job, reading, lineup)
        with prepared(path, ready.corpus, ready.inputs, ready.plans, replace=job.replace, progress=progress) as (
            writer,
            notes,
        ):
            progress.note([*ready.notes, *notes])
            extractor(ready, writer, progress)
    mine = [spec.name for plan in ready.plans for spec in plan.specs]
    return report_on(job.cache, mine, notes=[*ready.notes, *notes], seconds=time.monotonic() - started)


def shard_jobs(job: ExtractionJob, count: int) -> tuple[list[ExtractionJob], int]:
    """Divides a job into one for each share of the corpus, each with a file of its own; and counts the utterances.

    Raises:
        MmerError: if there are more shares than utterances to fill them.
    """
    reading, _ = read_job(job)
    utterances = reading.utterances[: job.limit]
    check_shards(utterances, count)
    return [replace(job, shard=shard, cache=shard.path(job.cache)) for shard in all_shards(count)], len(utterances)


def shard_job(job: ExtractionJob, number: int, count: int) -> ExtractionJob:
    """Returns the job of one share of the corpus, with a file of its own, as in an array of batch jobs.

    Args:
        job: of the whole corpus.
        number: of the share, from 1 to `count`.
        count: number of shares.

    Raises:
        MmerError: if there are more shares than utterances to fill them.
        ValueError: if there is no share of that number.
    """
    if not 1 <= number <= count:
        raise ValueError(f"a shard of {count} is numbered 1 to {count}, got {number}")
    return shard_jobs(job, count)[0][number - 1]


def run_shards(job: ExtractionJob, count: int, progress: ExtractionProgress) -> ExtractionReport:
    """Featurizes the shares of a corpus one after another in this process.

    Raises:
        MmerError: one line on what stopped the run; everything committed stays.
    """
    started = time.monotonic()
    reports = [run_job(one, progress) for one in shard_jobs(job, count)[0]]
    return joined_report(job, count, reports, seconds=time.monotonic() - started)


def joined_report(
    job: ExtractionJob, count: int, reports: Sequence[ExtractionReport], *, seconds: float
) -> ExtractionReport:
    """Tells what the runs over all shares left behind together."""
    streams = dict.fromkeys(name for one in reports for name in one.streams)
    notes = dict.fromkeys(note for one in reports for note in one.notes)
    return report_on(shard_pattern(job.cache, count), list(streams), notes=list(notes), seconds=seconds)


def report_on(cache: Path, streams: Sequence[str], *, notes: Sequence[str], seconds: float) -> ExtractionReport:
    """Looks at what a run left behind.

    Args:
        cache: the file, or the pattern of several.
        streams: those of the run.
        notes: what was noticed about it.
        seconds: how long it took.
    """
    opened = open_cache(cache)
    return ExtractionReport(
        cache=cache,
        streams=list(streams),
        summary=summarize(opened),
        noted=noted(opened),
        notes=list(notes),
        seconds=seconds,
        empty=[name for name in streams if not np.any(opened.streams[name].state == COMMITTED)],
    )


@contextmanager
def _lock(path: Path, job: ExtractionJob, progress: ExtractionProgress) -> Iterator[None]:
    """Holds the right to write, at once or, where the job waits, when another run is done with the file."""
    with ExitStack() as held:
        try:
            held.enter_context(writing_lock(path))
        except CacheBusy:
            if not job.wait:
                raise
            progress.note([f"{path} is being written by another run; waiting for it"])
            held.enter_context(writing_lock(path, wait=True))
        yield
