"""Workers of a real cluster: what becomes of tasks and workers that die."""

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import dask
import pytest

from cache.errors import MmerError
from featurize.runtime.cluster import Cluster, Killed, Workers, cluster_of


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    at_once = {"distributed.deploy.lost-worker-timeout": "10ms"}  # dask's own patience with a worker that died
    with dask.config.set(at_once), cluster_of(Workers(count=2, device="cpu")) as made:
        yield made


def die(place: int, device: str) -> int:
    if place == 3:
        os._exit(1)
    time.sleep(0.05)
    return place


def find_no_file(place: int, device: str) -> int:
    raise FileNotFoundError(f"no file {place}")


def test_every_worker_that_dies_is_started_anew(cluster: Cluster) -> None:
    before = cluster.client.run(os.getpid)  # by address, which a new worker does not share
    os.kill(next(iter(before.values())), signal.SIGKILL)
    deadline = time.monotonic() + 60
    while len(now := set(cluster.client.scheduler_info()["workers"])) < 2 or now == set(before):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_what_a_task_lacks_is_not_taken_for_a_lost_scheduler(cluster: Cluster) -> None:
    with pytest.raises(MmerError, match=r"a worker failed \(no file 1\); what is committed stays"):
        list(cluster.results(find_no_file, [1]))


def test_no_scheduler_at_an_address_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featurize.runtime.cluster.ANSWER_S", 0.5)
    told = r"no dask scheduler answers at tcp://127.0.0.1:9 \(.*\); start one by `dask scheduler`"
    with pytest.raises(MmerError, match=told), cluster_of(Workers(scheduler="tcp://127.0.0.1:9")):
        pass


@pytest.mark.parametrize("how", [{}, {"count": 2, "scheduler": "tcp://a:1"}])
def test_workers_are_started_or_joined_and_not_both(how: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="either start workers or name a scheduler"):
        Workers(**how)


def test_a_task_that_only_waited_beside_a_killer_is_told_apart(cluster: Cluster) -> None:
    found = dict(cluster.results(die, [1, 2, 3, 4, 5]))
    suspected = [item for item, result in found.items() if isinstance(result, Killed)]
    assert 3 in suspected
    again = dict(cluster.results(die, suspected, alone=True))
    assert [item for item, result in again.items() if isinstance(result, Killed)] == [3]
