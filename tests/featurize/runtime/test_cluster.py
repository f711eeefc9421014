"""Workers of a real cluster: tasks that fail, and workers that die."""

import os
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

import dask
import pytest
from distributed.comm import CommClosedError

from cache.errors import MmerError
from featurize.runtime.cluster import Cluster, Killed, Workers, cluster_of, threads_per_worker
from tests.support.clusters import small_cluster
from tests.support.processes import wait_until


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    at_once = {"distributed.deploy.lost-worker-timeout": "10ms"}  # dask's own patience with a worker that died
    with small_cluster(**at_once) as made:
        yield made


def die(number: int, device: str) -> int:
    if number == 3:
        os._exit(1)
    time.sleep(0.05)
    return number


def find_no_file(number: int, device: str) -> int:
    raise FileNotFoundError(f"no file {number}")


def test_every_worker_that_dies_is_started_again(cluster: Cluster) -> None:
    before: dict[str, int] = {}  # by address, which a new worker does not share

    def two_answer() -> bool:  # another test may have killed one just before
        before.clear()
        before.update(cluster.client.run(os.getpid, on_error="ignore"))
        return len(before) == 2

    wait_until(two_answer)
    os.kill(next(iter(before.values())), signal.SIGKILL)

    def two_again() -> bool:
        now = set(cluster.client.scheduler_info()["workers"])
        return len(now) == 2 and now != set(before)

    wait_until(two_again)


def listening() -> list[str]:
    """Addresses on which this process and its children listen, from the kernel's table of sockets."""
    import psutil

    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    found = [held for process in processes for held in process.net_connections(kind="inet")]
    return [held.laddr.ip for held in found if held.status == psutil.CONN_LISTEN]


def test_workers_listen_on_the_loopback_interface_only(cluster: Cluster) -> None:
    addresses = listening()
    assert len(addresses) >= 3  # the scheduler and two workers
    assert set(addresses) == {"127.0.0.1"}


def test_a_client_without_the_certificate_is_refused(cluster: Cluster) -> None:
    address = urlsplit(cluster.client.scheduler_info()["address"])
    assert (address.scheme, address.hostname) == ("tls", "127.0.0.1")
    stranger = ssl.create_default_context()
    stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((address.hostname, address.port), timeout=20) as plain,
        pytest.raises(ssl.SSLError, match=r"(?i)certificate|handshake"),
        stranger.wrap_socket(plain) as encrypted,
    ):
        encrypted.recv(1)


def test_no_page_is_served_unless_a_dashboard_is_requested(cluster: Cluster) -> None:
    assert cluster.notes == []
    check_no_page(cluster)


def check_no_page(cluster: Cluster) -> None:
    port = urlsplit(cluster.client.dashboard_link).port
    for page in ("", "status", "info/main/workers.html", "health", "metrics"):
        with pytest.raises(HTTPError, match="404"):
            urlopen(f"http://127.0.0.1:{port}/{page}", timeout=5)


def test_pages_that_dask_adds_to_the_configured_list_are_not_served_by_later_workers(cluster: Cluster) -> None:
    """As a scheduler with a dashboard adds one while our workers run."""
    dask.config.get("distributed.scheduler.http.routes").append("distributed.http.scheduler.missing_bokeh")
    with small_cluster() as later:
        check_no_page(later)


@pytest.mark.parametrize(("count", "threads"), [(1, "6"), (2, "3"), (4, "1"), (9, "1")])
def test_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch, count: int, threads: str) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)))
    environment = threads_per_worker(count)["distributed.nanny.pre-spawn-environ"]
    assert {str(value) for value in environment.values()} == {threads}


def test_a_worker_that_dies_while_all_are_asked_is_replaced(cluster: Cluster) -> None:
    wait_until(lambda: len(cluster.client.run(os.getpid, on_error="ignore")) == 2)
    victims = list(cluster.client.run(os.getpid).values())
    asked: list[int] = []

    def ask() -> dict[str, str]:
        asked.append(1)
        if len(asked) == 1:
            os.kill(victims[0], signal.SIGKILL)
            raise CommClosedError("the worker is gone")
        found: dict[str, str] = cluster.client.run(os.getpid)
        return found

    assert len(cluster.on_all_workers(ask)) == 2


def test_what_a_task_lacks_is_not_taken_for_a_lost_scheduler(cluster: Cluster) -> None:
    with pytest.raises(MmerError, match=r"a worker failed \(no file 1\); committed results are kept"):
        list(cluster.results(find_no_file, [1]))


def test_no_scheduler_at_an_address_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featurize.runtime.cluster.ANSWER_S", 0.5)
    message = r"no dask scheduler answers at tcp://127.0.0.1:9 \(.*\); start one by `dask scheduler`"
    with pytest.raises(MmerError, match=message), cluster_of(Workers(scheduler="tcp://127.0.0.1:9")):
        pass


@pytest.mark.parametrize("how", [{}, {"count": 2, "scheduler": "tcp://a:1"}])
def test_workers_are_started_or_joined_and_not_both(how: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected either a count of workers or a scheduler"):
        Workers(**how)


def test_a_task_that_only_waited_next_to_a_killer_is_distinguished(cluster: Cluster) -> None:
    found = dict(cluster.results(die, [1, 2, 3, 4, 5]))
    suspected = [item for item, result in found.items() if isinstance(result, Killed)]
    assert 3 in suspected
    again = dict(cluster.results(die, suspected, alone=True))
    assert [item for item, result in again.items() if isinstance(result, Killed)] == [3]
