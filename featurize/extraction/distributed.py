"""Encodes the batches of a run on workers; the rows come back, and this process alone writes them.

The batches are those of a run without workers, and so are the functions that encode them. Since the workers write
nothing, a task that outlives its killed client does no harm.
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
from featurize.encoders.base import Encoder
from featurize.extraction.encode import EncodeRequest, FailedInput, encode_sources, load_source
from featurize.extraction.job import EncoderSet, ExtractionJob, PlannedJob
from featurize.extraction.pipeline import CommitThread, EncoderRun, pending_batches
from featurize.extraction.progress import ExtractionProgress
from featurize.extraction.run import ExtractionReport, joined_report, run_job, shard_jobs
from featurize.runtime.cluster import Cluster, Killed, own_device
from featurize.runtime.memory import keep_freed_memory


@dataclass(frozen=True, kw_only=True)
class BatchTask:
    """One batch to be encoded somewhere.

    Attributes:
        shelf: name of the plugin that holds the encoders on a worker.
        place: of the encoder in the lineup.
        specs: of the streams that it is planned to write.
        orders: the utterances.
    """

    shelf: str
    place: int
    specs: Sequence[StreamSpec]
    orders: Sequence[EncodeRequest]


class EncoderCache(WorkerPlugin):  # type: ignore[misc]
    """The encoders of a run on one worker, loaded when the first batch comes.

    Args:
        name: under which tasks find it.
        lineup: what to load.
    """

    def __init__(self, name: str, lineup: EncoderSet) -> None:
        self.name = name
        self._lineup = lineup

    def setup(self, worker: Worker) -> None:
        """Is called by dask once the plugin is on a worker."""
        self.lock, self._encoders = Lock(), list[Encoder[Any, Any]]()

    def teardown(self, worker: Worker) -> None:
        """Is called by dask when the run is over: the memory is the next run's."""
        self._encoders = []

    def encoder(self, place: int, device: str) -> Encoder[Any, Any]:
        """Gives an encoder of the lineup, on the device of this worker; the caller holds the lock."""
        if not self._encoders:
            keep_freed_memory()
            options = replace(self._lineup.options, device=own_device(device))
            self._encoders, _ = replace(self._lineup, options=options).load()
        return self._encoders[place]


def extract_on(cluster: Cluster, ready: PlannedJob, writer: CacheWriter, progress: ExtractionProgress) -> None:
    """Encodes on a cluster everything that is not committed yet.

    Raises:
        DiskFull: if the disk fills up; whatever was committed stays.
        MmerError: if a worker has other encoders than this machine, or the cluster is gone.
    """
    shelf = f"mmer-encoders-{cluster.client.id}"
    batch_seconds = ready.job.batch_budget(cluster.device)
    with cluster.sharing(EncoderCache(shelf, ready.lineup)), CommitThread(writer) as commits:
        for place, plan in enumerate(ready.plans):
            run = EncoderRun(plan=plan, inputs=ready.inputs, commits=commits, progress=progress)
            batches = pending_batches(plan, writer, batch_seconds)
            if batches:
                run.start(batches)
                orders = [[run.order(index) for index in batch] for batch in batches]
                task = partial(BatchTask, shelf=shelf, place=place, specs=plan.specs)
                _run(cluster, run, [task(orders=one) for one in orders])


def run_shards_on(cluster: Cluster, job: ExtractionJob, count: int, progress: ExtractionProgress) -> ExtractionReport:
    """Featurizes the shares of a corpus on a cluster; each is read, encoded and written whole by one worker.

    A worker holds the lock of the file that it writes. A share that is still being written by a task that outlived its
    killed client is waited for.

    Raises:
        MmerError: one line on what stopped the run; everything committed stays.
    """
    started = time.monotonic()
    shards, utterances = shard_jobs(job, count)
    jobs = [replace(one, wait=True) for one in shards]
    progress.start(f"{count} shards", utterances, 0.0)
    topic = f"mmer-{cluster.client.id}"
    cluster.client.subscribe_topic(topic, lambda event: progress.note([event[1]]))
    reports = []
    task = partial(run_shard, topic=topic)
    suspected = []
    for one, report in cluster.results(task, jobs):
        if isinstance(report, Killed):
            suspected.append(one)
            continue
        progress.advance(report.summary["utterances"], 0.0)
        reports.append(report)
    for one, report in cluster.results(task, suspected, alone=True):
        if isinstance(report, Killed):
            raise MmerError(f"{one.cache} killed every worker that tried it ({report}); run it alone to see why")
        progress.advance(report.summary["utterances"], 0.0)
        reports.append(report)
    return joined_report(job, count, reports, seconds=time.monotonic() - started)


def run_shard(job: ExtractionJob, device: str, *, topic: str) -> ExtractionReport:
    """Featurizes one share on the worker that calls it."""
    keep_freed_memory()
    options = replace(job.options, device=own_device(device))
    return run_job(replace(job, options=options), _Told(topic, job))


class _Told:
    """Progress of a worker, told to the client as events."""

    def __init__(self, topic: str, job: ExtractionJob) -> None:
        self._topic, self._job = topic, job

    def note(self, notes: Sequence[str]) -> None:
        for note in notes:
            self._tell(note)

    def start(self, name: str, utterances: int, seconds: float) -> None:
        self._tell(f"{name}, {utterances:,} utterances")

    def advance(self, utterances: int, seconds: float) -> None:
        """Is too frequent to be told."""

    def _tell(self, what: str) -> None:
        get_worker().log_event(self._topic, f"{self._job.cache.name}: {what}")


def _run(cluster: Cluster, run: EncoderRun, tasks: Sequence[BatchTask], *, alone: bool = False) -> None:
    """Runs tasks; of those that kill their workers, the halves and then each utterance with no other task beside it."""
    killed: list[BatchTask] = []
    for task, made in cluster.results(encode_batch, tasks, alone=alone):
        if not isinstance(made, Killed):
            run.finish([order.index for order in task.orders], made)
        elif alone and len(task.orders) == 1:
            reason = f"killed every worker that tried it ({made}); try --chunk or more memory"
            run.finish([task.orders[0].index], [FailedInput(task.orders[0].index, reason)])
        else:
            killed.append(task)
    if killed:  # dask blames every task of a worker that dies, those that only waited there included
        _run(cluster, run, [half for task in killed for half in _halves(task)], alone=True)


def _halves(task: BatchTask) -> list[BatchTask]:
    middle = len(task.orders) // 2
    parts = [task.orders[:middle], task.orders[middle:]]
    return [replace(task, orders=orders) for orders in parts if orders]


def encode_batch(task: BatchTask, device: str) -> list[Row | FailedInput]:
    """Encodes a batch on the worker that calls it.

    Raises:
        MmerError: if the encoders here are not those that the run was planned with.
    """
    worker = get_worker()
    shelf: EncoderCache = worker.plugins[task.shelf]
    sources = [load_source(order, task.specs) for order in task.orders]
    with shelf.lock:  # the threads of a worker share its encoders, whose layers are tapped and masked by hooks
        encoder = shelf.encoder(task.place, device)
        for planned, found in zip(task.specs, encoder.specs, strict=True):
            if planned.key != found.key:
                changed = "; ".join(planned.differences(found))
                raise MmerError(f"worker {worker.address} has another {planned.name} ({changed}); bring the same there")
        return encode_sources(encoder, sources)
