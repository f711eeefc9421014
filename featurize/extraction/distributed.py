"""Extraction on a dask cluster: workers encode batches or whole shards.

Without shards, the workers return rows and only this process writes. The batches and the functions that encode them
are those of a run without workers. Since the workers write nothing, a task that outlives its killed client is harmless.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from threading import Lock
from typing import Any

from distributed import Worker, WorkerPlugin, get_worker

from cache.errors import MmerError
from cache.stream import StreamSpec
from cache.writer import CacheWriter, Row
from featurize.asr.stream import AsrEncoderSet
from featurize.encoders.base import Encoder
from featurize.extraction.encode import EncodeRequest, FailedInput, encode_inputs, load_input
from featurize.extraction.job import EncoderSet, ExtractionJob
from featurize.extraction.pipeline import CommitThread, EncoderRun, pending_batches
from featurize.extraction.planned_job import PlannedJob
from featurize.extraction.progress import ExtractionProgress
from featurize.extraction.report import ExtractionReport
from featurize.extraction.run import joined_report, run_job, shard_jobs
from featurize.runtime.cluster import Cluster, Killed, own_device
from featurize.runtime.memory import keep_freed_memory


@dataclass(frozen=True, kw_only=True)
class BatchTask:
    """One batch for any worker to encode.

    Attributes:
        plugin: name of the `EncoderCache` that holds the encoders on a worker.
        encoder_index: index of the encoder in the encoder set.
        specs: specs of the streams that the run was planned with.
        requests: the utterances.
    """

    plugin: str
    encoder_index: int
    specs: Sequence[StreamSpec]
    requests: Sequence[EncodeRequest]


class EncoderCache(WorkerPlugin):  # type: ignore[misc]
    """The encoders of a run on one worker, loaded when the first batch arrives.

    Args:
        name: name under which tasks find it.
        encoder_set: encoders to load.
    """

    def __init__(self, name: str, encoder_set: EncoderSet | AsrEncoderSet) -> None:
        self.name = name
        self._encoder_set = encoder_set

    def setup(self, worker: Worker) -> None:
        """Creates the lock; dask calls it when the plugin arrives on a worker."""
        self.lock, self._encoders = Lock(), list[Encoder[Any, Any]]()

    def teardown(self, worker: Worker) -> None:
        """Releases the memory of the encoders; dask calls it at the end of the run."""
        self._encoders = []

    def encoder(self, index: int, device: str) -> Encoder[Any, Any]:
        """Returns an encoder of the set, on the device of this worker; the caller must hold the lock."""
        if not self._encoders:
            keep_freed_memory()
            options = replace(self._encoder_set.options, device=own_device(device))
            self._encoders, _ = replace(self._encoder_set, options=options).load()
        return self._encoders[index]


def extract_on(cluster: Cluster, planned_job: PlannedJob, writer: CacheWriter, progress: ExtractionProgress) -> None:
    """Encodes on a cluster everything that is not committed yet.

    Raises:
        DiskFull: if the disk fills up; whatever was committed stays.
        MmerError: if a worker has different encoders from this machine, or the cluster is gone.
    """
    plugin = f"mmer-encoders-{cluster.client.id}"
    batch_seconds = planned_job.job.batch_budget(cluster.device)
    with cluster.sharing(EncoderCache(plugin, planned_job.encoder_set)), CommitThread(writer) as commits:
        for encoder_index, plan in enumerate(planned_job.plans):
            run = EncoderRun(plan=plan, inputs=planned_job.inputs, commits=commits, progress=progress)
            batches = pending_batches(plan, writer, batch_seconds)
            if batches:
                run.start(batches)
                task = partial(BatchTask, plugin=plugin, encoder_index=encoder_index, specs=plan.specs)
                _run_tasks(cluster, run, [task(requests=[run.request(index) for index in batch]) for batch in batches])


def run_shards_on(cluster: Cluster, job: ExtractionJob, count: int, progress: ExtractionProgress) -> ExtractionReport:
    """Featurizes the shards of a corpus on a cluster; one worker reads, encodes and writes a whole shard.

    A worker holds the lock of the file that it writes. If a task that outlived its killed client is still writing a
    shard, the run waits for it.

    Raises:
        MmerError: if something stops the run; everything committed stays.
    """
    started = time.monotonic()
    shards, utterances = shard_jobs(job, count)
    jobs = [replace(shard, wait=True) for shard in shards]
    progress.start(f"{count} shards", utterances, 0.0)
    topic = f"mmer-{cluster.client.id}"
    cluster.client.subscribe_topic(topic, lambda event: progress.note([event[1]]))
    reports = []
    task = partial(run_shard, topic=topic)
    suspected = []  # dask blames every task of a worker that dies, so these are tried again one by one
    for shard_job, report in cluster.results(task, jobs):
        if isinstance(report, Killed):
            suspected.append(shard_job)
            continue
        progress.advance(report.summary["utterances"], 0.0)
        reports.append(report)
    for shard_job, report in cluster.results(task, suspected, alone=True):
        if isinstance(report, Killed):
            raise MmerError(f"{shard_job.cache} killed every worker that tried it ({report}); run it alone to see why")
        progress.advance(report.summary["utterances"], 0.0)
        reports.append(report)
    return joined_report(job, count, reports, seconds=time.monotonic() - started)


def run_shard(job: ExtractionJob, device: str, *, topic: str) -> ExtractionReport:
    """Featurizes one shard on the worker that calls it."""
    keep_freed_memory()
    options = replace(job.options, device=own_device(device))
    return run_job(replace(job, options=options), _WorkerProgress(topic, job))


def encode_batch(task: BatchTask, device: str) -> list[Row | FailedInput]:
    """Encodes a batch on the worker that calls it.

    Raises:
        MmerError: if the encoders of this worker differ from those that the run was planned with.
    """
    worker = get_worker()
    encoders: EncoderCache = worker.plugins[task.plugin]
    inputs = [load_input(request, task.specs) for request in task.requests]
    with encoders.lock:  # threads of a worker share its encoders, whose hooks serve one batch at a time
        encoder = encoders.encoder(task.encoder_index, device)
        for planned, loaded in zip(task.specs, encoder.specs, strict=True):
            if planned.key != loaded.key:
                changed = "; ".join(planned.differences(loaded))
                raise MmerError(
                    f"worker {worker.address} has a different {planned.name} ({changed}); "
                    "install the same checkpoint and versions there"
                )
        return encode_inputs(encoder, inputs)


class _WorkerProgress:
    """Progress of a worker, sent to the client as dask events."""

    def __init__(self, topic: str, job: ExtractionJob) -> None:
        self._topic, self._job = topic, job

    def note(self, notes: Sequence[str]) -> None:
        for note in notes:
            self._send(note)

    def start(self, name: str, utterances: int, seconds: float) -> None:
        self._send(f"{name}, {utterances:,} utterances")

    def advance(self, utterances: int, seconds: float) -> None:
        """Does nothing: these calls are too frequent to send."""

    def _send(self, text: str) -> None:
        get_worker().log_event(self._topic, f"{self._job.cache.name}: {text}")


def _run_tasks(cluster: Cluster, run: EncoderRun, tasks: Sequence[BatchTask], *, alone: bool = False) -> None:
    """Runs tasks; repeats those that killed their workers in halves, alone on the cluster, down to one utterance."""
    killed: list[BatchTask] = []
    for task, result in cluster.results(encode_batch, tasks, alone=alone):
        if not isinstance(result, Killed):
            run.finish([request.index for request in task.requests], result)
        elif alone and len(task.requests) == 1:
            reason = f"killed every worker that tried it ({result}); try --chunk or more memory"
            run.finish([task.requests[0].index], [FailedInput(task.requests[0].index, reason)])
        else:
            killed.append(task)
    if killed:  # dask blames every task of a worker that dies, including those that only waited there
        _run_tasks(cluster, run, [half for task in killed for half in _halves(task)], alone=True)


def _halves(task: BatchTask) -> list[BatchTask]:
    middle = len(task.requests) // 2
    halves = [task.requests[:middle], task.requests[middle:]]
    return [replace(task, requests=requests) for requests in halves if requests]
