"""Dask workers: processes on this machine, or an existing cluster.

Dask replaces a worker that dies and gives its tasks to another worker. The tasks are plain functions of this package:
the same version of mmer must be installed on every machine, and every machine must find the recordings at the same
paths.

Whoever reaches a scheduler may run code by it. Processes of this machine therefore listen on the loopback interface
only, and accept only connections with the certificate of the run, which is made when they start and is in no file.
"""

import logging
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import dask
import torch
from distributed import Client, Future, LocalCluster, WorkerPlugin, as_completed, get_worker
from distributed.comm import CommClosedError, parse_address, parse_host_port
from distributed.scheduler import KilledWorker
from distributed.security import Security

from cache.errors import MmerError
from featurize.runtime.device import BATCH_SECONDS, choose_device

ANSWER_S = 10.0
SCHEDULER_PORT = 8786  # dask's default, for an address without a port
JOIN_S = 60.0  # a worker has to import torch and transformers first
# A nanny restarts a worker that died. Dask checks once, 15 s later, and closes the worker for good if it is absent at
# that moment, for example because it died a second time.
NEVER_GIVE_UP = {"distributed.deploy.lost-worker-timeout": "1000 days"}
LOOPBACK = "127.0.0.1"
PAGES = ("distributed.scheduler.http.routes", "distributed.worker.http.routes")  # modules that serve pages
STARTS = 3  # attempts to reach all workers, of which one may die while they start
AHEAD = 2  # submitted tasks per worker thread: one runs, the next is queued

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Workers to start on this machine, or the cluster to connect to.

    Attributes:
        count: number of processes to start on this machine; 0 if a scheduler is given.
        scheduler: address of an existing cluster, such as ``tcp://10.0.0.1:8786``; empty if workers are started.
        device: device of each worker, as on the command line; ``cuda`` assigns the GPUs of this machine in turn.
        dashboard: True to serve dask's dashboard of workers that are started, on the loopback interface.
    """

    count: int = 0
    scheduler: str = ""
    device: str = "auto"
    dashboard: bool = False

    def __post_init__(self) -> None:
        if bool(self.count) == bool(self.scheduler):
            raise ValueError(
                f"expected either a count of workers or a scheduler, got {self.count} and {self.scheduler!r}"
            )


class Killed(Exception):
    """Result of a task that killed every worker that ran it."""


def own_device(name: str) -> torch.device:
    """Selects the device of the calling worker; several GPUs are assigned by the worker's number.

    Raises:
        MmerError: if that device is not available on the machine of the worker.
    """
    device = choose_device(name)
    number = str(get_worker().name)
    if device.type == "cuda" and device.index is None and number.isdigit():
        return torch.device("cuda", int(number) % torch.cuda.device_count())
    return device


class Cluster:
    """A connected cluster with at least one worker; `cluster_of` opens it."""

    def __init__(self, client: Client, workers: Workers) -> None:
        self.client = client
        self.workers = workers

    @property
    def notes(self) -> list[str]:
        """The line for the user on the dashboard, if it was requested."""
        return [f"dashboard of the workers: {self.client.dashboard_link}"] if self.workers.dashboard else []

    @property
    def own_device(self) -> Callable[[str], torch.device]:
        """Function that returns the device of the worker that calls it, from its name on the command line."""
        return own_device

    @property
    def device(self) -> torch.device:
        """Type of device that all workers have.

        Raises:
            MmerError: if the workers have different types, or one of them lacks the requested device.
        """
        found: dict[str, str] = self.on_all_workers(lambda: self.client.run(_device_type, self.workers.device))
        problems = {address: kind for address, kind in found.items() if kind not in BATCH_SECONDS}
        if problems:
            address, problem = next(iter(problems.items()))
            raise MmerError(f"worker {address}: {problem}")
        if len(set(found.values())) > 1:
            kinds = ", ".join(f"{address} {kind}" for address, kind in sorted(found.items())[:4])
            raise MmerError(
                f"the workers have different devices ({kinds}), so their batches would differ; choose one with --device"
            )
        return torch.device(next(iter(found.values())))

    @contextmanager
    def sharing(self, plugin: WorkerPlugin) -> Iterator[None]:
        """Registers a plugin on every worker, including later ones, and removes it at the end."""
        self.on_all_workers(lambda: self.client.register_plugin(plugin))
        try:
            yield
        finally:
            with suppress(CommClosedError, OSError):  # the connection may be lost already
                self.client.unregister_worker_plugin(plugin.name)

    def results(
        self, task: Callable[..., Result], items: Iterable[Item], *, alone: bool = False
    ) -> Iterator[tuple[Item, Result | Killed]]:
        """Runs a task for every item and yields each result as it arrives.

        Only a few tasks per worker are submitted at a time, so that results do not accumulate in memory.

        Args:
            task: function of an item and of the device's name on the command line; it must be importable by workers.
            items: arguments of the tasks, read as they are submitted.
            alone: submit one task at a time, so that the task that kills a worker is known.

        Raises:
            MmerError: if a task raises one, or the connection to the scheduler is lost.
        """
        waiting = iter(items)
        running: dict[Future, Item] = {}
        done = as_completed(loop=self.client.loop)
        with _lost_connection_explained(self.workers), _cancelling(running):
            while True:
                for item in islice(waiting, max(0, (1 if alone else self._capacity()) - len(running))):
                    future = self.client.submit(task, item, self.workers.device, pure=False)
                    running[future] = item
                    done.add(future)
                if not running:
                    return
                future = next(done)
                item = running.pop(future)
                yield item, _result(future)

    def on_all_workers(self, call: Callable[[], Result]) -> Result:
        """Calls a function that all workers answer; again, if one of them dies meanwhile and another replaces it."""
        for _ in range(STARTS - 1):
            with suppress(CommClosedError, OSError, KilledWorker):
                return call()
            wait_for_workers(self.client, self.workers)
        with _lost_connection_explained(self.workers):
            return call()

    def _capacity(self) -> int:
        threads: dict[str, int] = self.client.nthreads()
        return AHEAD * max(1, sum(threads.values()))


@contextmanager
def cluster_of(workers: Workers) -> Iterator[Cluster]:
    """Starts workers on this machine, or connects to an existing cluster.

    Raises:
        MmerError: if no scheduler answers, or no worker joins it in time.
    """
    with _client(workers) as client:
        wait_for_workers(client, workers)
        yield Cluster(client, workers)


def wait_for_workers(client: Client, workers: Workers) -> None:
    """Waits until all workers that are started here, or one of a cluster, have joined.

    Raises:
        MmerError: if they have not after a minute.
    """
    try:
        client.wait_for_workers(max(1, workers.count), timeout=JOIN_S)
    except TimeoutError:
        raise MmerError(f"no worker joined {_where(workers)} within {JOIN_S:g} s; start one or more") from None


@contextmanager
def _client(workers: Workers) -> Iterator[Client]:
    if workers.scheduler:
        _check_answers(workers.scheduler)
        try:
            client = Client(workers.scheduler, set_as_default=False, timeout=ANSWER_S)
        except TypeError as error:  # dask's own message for a missing certificate
            raise MmerError(
                f"the scheduler {workers.scheduler} is secured; name its certificates in dask's configuration "
                "(distributed.comm.tls)"
            ) from error
        with client:
            yield client
        return
    # new lists, since a scheduler with a dashboard adds to the list that is configured
    pages: dict[str, list[str]] = {} if workers.dashboard else {name: [] for name in PAGES}
    with dask.config.set({**NEVER_GIVE_UP, **pages, **threads_per_worker(workers.count)}):
        security = temporary_credentials()
        with (
            _started(workers, security) as cluster,
            Client(cluster, set_as_default=False, security=security) as client,
        ):
            yield client


def temporary_credentials() -> Security:
    """Makes the certificate by which the processes of a run know each other.

    Raises:
        MmerError: if the package cryptography is not installed.
    """
    try:
        return Security.temporary()
    except ImportError as error:
        raise MmerError(
            "--workers needs the package cryptography, by which its processes know each other; "
            "install it (pip install cryptography)"
        ) from error


def threads_per_worker(count: int) -> dict[str, dict[str, int]]:
    """Returns the configuration by which workers share the cores; variables that the user sets stay as they are."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = max(1, cores // count)
    # Set before a worker starts: dask sets all of them to 1, and libraries read them when they are loaded.
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    return {"distributed.nanny.pre-spawn-environ": dict.fromkeys(names, threads)}


def _started(workers: Workers, security: Security) -> LocalCluster:
    """Starts workers; again, if one of them dies before it has joined."""
    for attempt in range(STARTS):
        try:
            return LocalCluster(
                n_workers=workers.count,
                threads_per_worker=1,  # tasks at a time
                memory_limit=None,  # dask would kill a worker that loads a large encoder
                host=LOOPBACK,
                protocol="tls://",
                security=security,
                # pages of dask on a free port: another run may use the default port
                scheduler_kwargs={"dashboard": workers.dashboard, "dashboard_address": f"{LOOPBACK}:0"},
                silence_logs=logging.CRITICAL,
            )
        except (RuntimeError, OSError, TimeoutError) as error:
            if attempt == STARTS - 1:
                raise MmerError(
                    f"the workers did not start ({' '.join(str(error).split())}); try fewer --workers"
                ) from error
    raise AssertionError("unreachable")


def _check_answers(address: str) -> None:
    """Checks that a server listens at the address; a dask client needs half a minute to give up."""
    scheme, location = parse_address(address)
    try:
        host, port = parse_host_port(location, SCHEDULER_PORT)
        if scheme in {"tcp", "tls"}:
            socket.create_connection((host, port), timeout=ANSWER_S).close()
    except (OSError, ValueError) as error:
        raise MmerError(
            f"no dask scheduler answers at {address} ({error}); start one by `dask scheduler`, "
            f"and workers by `dask worker {address}`"
        ) from error


def _where(workers: Workers) -> str:
    return workers.scheduler or "the local cluster"


def _device_type(name: str) -> str:
    try:
        return choose_device(name).type
    except MmerError as error:
        return str(error)


def _result(future: Future) -> Any:
    try:
        return future.result()
    except KilledWorker as error:
        return Killed(str(error))
    except OSError as error:
        if future.status != "error":  # the connection failed, not the task
            raise
        raise MmerError(f"a worker failed ({error}); committed results are kept") from error


@contextmanager
def _cancelling(running: Mapping[Future, object]) -> Iterator[None]:
    """Cancels the submitted tasks when their results are no longer awaited."""
    try:
        yield
    finally:
        for future in running:
            future.cancel()


@contextmanager
def _lost_connection_explained(workers: Workers) -> Iterator[None]:
    """Converts errors of the connection to an MmerError."""
    try:
        yield
    except (CommClosedError, OSError) as error:
        raise MmerError(
            f"lost the connection to {_where(workers)} ({error}); committed results are kept, "
            "and the same command resumes from there"
        ) from error
