"""Workers of dask: processes of this machine, or a cluster that runs already.

A worker that dies is dask's to replace: what it had in hand goes to another one. Whatever runs there is a plain
function of this package; mmer must be installed on every machine, in the same version, and see the recordings at the
same paths.
"""

import logging
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import dask
import torch
from distributed import Client, Future, LocalCluster, WorkerPlugin, as_completed, get_worker
from distributed.comm import CommClosedError, parse_address, parse_host_port
from distributed.scheduler import KilledWorker

from cache.errors import MmerError
from featurize.runtime.device import choose_device

ANSWER_S = 10.0
SCHEDULER_PORT = 8786  # of dask, where an address names none
JOIN_S = 60.0  # a worker has to import torch and transformers first
# A nanny starts a worker anew when it dies. Dask looks after it once, 15 s later, and closes it for good if it is not
# there just then, be it for a second death.
NEVER_GIVE_UP = {"distributed.deploy.lost-worker-timeout": "1000 days"}
AHEAD = 2  # tasks per worker thread that wait for a result: one at work, one to follow it

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Where the work is done.

    Attributes:
        count: processes to start on this machine; 0 where a scheduler is named.
        scheduler: address of a cluster that runs already, such as ``tcp://10.0.0.1:8786``.
        device: of each worker, as on the command line; ``cuda`` deals the GPUs of this machine out by turns.
    """

    count: int = 0
    scheduler: str = ""
    device: str = "auto"

    def __post_init__(self) -> None:
        if bool(self.count) == bool(self.scheduler):
            raise ValueError(f"either start workers or name a scheduler, got {self.count} and {self.scheduler!r}")


class Killed(Exception):
    """A task that killed every worker which tried it."""


def own_device(name: str) -> torch.device:
    """Chooses the device of the worker that asks: of several GPUs of a machine, the one of its number."""
    device = choose_device(name)
    number = str(get_worker().name)
    if device.type == "cuda" and device.index is None and number.isdigit():
        return torch.device("cuda", int(number) % torch.cuda.device_count())
    return device


class Cluster:
    """A cluster at work; made by `cluster_of`."""

    def __init__(self, client: Client, workers: Workers) -> None:
        self.client = client
        self.workers = workers

    @property
    def own_device(self) -> Callable[[str], torch.device]:
        """Function that returns the device of the worker that calls it, from its name on the command line."""
        return own_device

    @property
    def device(self) -> torch.device:
        """The kind of device that all workers have.

        Raises:
            MmerError: if they differ, or one of them lacks the device asked for.
        """
        found = self.client.run(_device_type, self.workers.device)
        odd = {address: told for address, told in found.items() if told not in {"cpu", "cuda", "mps"}}
        if odd:
            address, why = next(iter(odd.items()))
            raise MmerError(f"worker {address}: {why}")
        if len(set(found.values())) > 1:
            told = ", ".join(f"{address} {kind}" for address, kind in sorted(found.items())[:4])
            raise MmerError(f"the workers differ ({told}), and so would their batches; name one by --device")
        return torch.device(next(iter(found.values())))

    @contextmanager
    def sharing(self, plugin: WorkerPlugin) -> Iterator[None]:
        """Gives every worker, those to come included, a plugin, and takes it back in the end."""
        self.client.register_plugin(plugin)
        try:
            yield
        finally:
            with suppress(CommClosedError, OSError):  # of a cluster that is gone
                self.client.unregister_worker_plugin(plugin.name)

    def results(
        self, task: Callable[..., Result], items: Iterable[Item], *, alone: bool = False
    ) -> Iterator[tuple[Item, Result | Killed]]:
        """Runs a task for every item and yields each result as it comes.

        Only a few tasks per worker are under way at a time, so that results never pile up in memory; only one if
        `alone`, so that whatever kills a worker is known.

        Raises:
            MmerError: if a task raises one, or the scheduler is gone.
        """
        waiting = iter(items)
        running: dict[Future, Item] = {}
        done = as_completed(loop=self.client.loop)
        with _gone_told(self.workers), _cancelled(running):
            while True:
                for item in _take(waiting, (1 if alone else self._room()) - len(running)):
                    future = self.client.submit(task, item, self.workers.device, pure=False)
                    running[future] = item
                    done.add(future)
                if not running:
                    return
                future = next(done)
                item = running.pop(future)
                yield item, _result(future)

    def _room(self) -> int:
        threads: dict[str, int] = self.client.nthreads()
        return AHEAD * max(1, sum(threads.values()))


@contextmanager
def cluster_of(workers: Workers) -> Iterator[Cluster]:
    """Starts workers on this machine, or joins a cluster that runs already.

    Raises:
        MmerError: if no scheduler answers, or it has no worker.
    """
    with _client(workers) as client:
        try:
            client.wait_for_workers(max(1, workers.count), timeout=JOIN_S)
        except TimeoutError:
            raise MmerError(f"no worker has joined {_where(workers)} within {JOIN_S:g} s; start some") from None
        yield Cluster(client, workers)


@contextmanager
def _client(workers: Workers) -> Iterator[Client]:
    if workers.scheduler:
        _check_answers(workers.scheduler)
        with Client(workers.scheduler, set_as_default=False, timeout=ANSWER_S) as client:
            yield client
        return
    threads = str(max(1, (os.cpu_count() or 1) // workers.count))
    with (
        dask.config.set(NEVER_GIVE_UP),
        LocalCluster(
            n_workers=workers.count,
            threads_per_worker=1,
            memory_limit=None,  # dask would kill a worker that loads a large encoder
            dashboard_address=":0",  # any free port: another run may stand beside this one
            silence_logs=logging.CRITICAL,
            env={"OMP_NUM_THREADS": threads},
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def _check_answers(address: str) -> None:
    """Knocks at the door first: a client of dask that cannot connect takes half a minute to give up."""
    scheme, place = parse_address(address)
    try:
        host, port = parse_host_port(place, SCHEDULER_PORT)
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


def _take(items: Iterator[Item], count: int) -> Iterator[Item]:
    for _, item in zip(range(count), items, strict=False):
        yield item


def _result(future: Future) -> Any:
    try:
        return future.result()
    except KilledWorker as error:
        return Killed(str(error))
    except OSError as error:
        if future.status != "error":  # the connection's, not the task's
            raise
        raise MmerError(f"a worker failed ({error}); what is committed stays") from error


@contextmanager
def _cancelled(running: dict[Future, Any]) -> Iterator[None]:
    """Takes back what is under way when nobody waits for it any more."""
    try:
        yield
    finally:
        for future in running:
            future.cancel()


@contextmanager
def _gone_told(workers: Workers) -> Iterator[None]:
    try:
        yield
    except (CommClosedError, OSError) as error:
        raise MmerError(
            f"{_where(workers)} is gone ({error}); what is committed stays, and the same command goes on from there"
        ) from error
