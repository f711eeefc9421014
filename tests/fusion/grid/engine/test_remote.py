"""A grid on the workers of a real cluster gives what one process gives."""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from featurize.runtime.cluster import Cluster, Killed, own_device
from fusion.data.memory import memory_budget
from fusion.grid.engine import remote
from fusion.grid.engine.remote import WorkerTask, run_on_workers, train_task
from fusion.grid.journal import Journal
from tests.support.clusters import small_cluster
from tests.support.grids import CPU, GridTold, models, planned, trained, weights_of

AXES = [{"lr": 0.1}, {"lr": 1e30, "clip": 0.0}, {"dropout": 0.4, "epochs": 1}]
on_cpu = partial(train_task, lambda name: CPU, 0.5)


def alone(task: Any, items: Iterable[WorkerTask]) -> Iterator[tuple[WorkerTask, Any]]:
    """Runs tasks in this process, in place of a cluster."""
    for item in items:
        yield item, task(item, "cpu")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with small_cluster() as made:
        yield made


def test_workers_train_what_one_process_does(cluster: Cluster, trainable: Path, tmp_path: Path) -> None:
    every = planned(trainable, "audio", *AXES)
    trained(tmp_path / "here", every)
    told = GridTold()
    lost = run_on_workers(
        cluster.results,
        partial(train_task, own_device, 0.5),
        models(every),
        cache=trainable,
        journal=Journal(tmp_path / "there"),
        progress=told,
    )
    assert not lost
    assert len(told.outcomes) == 9
    assert weights_of(tmp_path / "there") == weights_of(tmp_path / "here")
    assert len(list(tmp_path.glob("there/models/*/entry.json"))) == 9  # those that diverged too


def test_what_the_journal_holds_or_another_grid_has_is_not_sent(trainable: Path, tmp_path: Path) -> None:
    every = planned(trainable, "audio", *AXES)
    journal, told = trained(tmp_path, every[:1])
    busy = models(every)[-1]
    sent: list[WorkerTask] = []

    def noting(task: Any, items: Iterable[WorkerTask]) -> Iterator[tuple[WorkerTask, Any]]:
        for item, came in alone(task, items):
            sent.append(item)
            yield item, came

    with Journal(tmp_path).claim(busy):
        run_on_workers(noting, on_cpu, models(every), cache=trainable, journal=journal, progress=told)
    assert [one.models for one in sent] == [(("1", 0), ("2", 0), ("3", 0)), (("1", 0), ("2", 0))]
    assert not journal.holds(busy)
    with journal.claim(models(every)[4]) as free:  # nothing is held once it is over
        assert free


def test_a_combination_that_kills_its_worker_fails_and_is_tried_again_another_time(
    trainable: Path, tmp_path: Path
) -> None:
    every, journal = planned(trainable, "audio", *AXES), Journal(tmp_path)

    def killing(task: Any, items: Iterable[WorkerTask]) -> Iterator[tuple[WorkerTask, Any]]:
        for place, item in enumerate(items):
            yield item, Killed("four workers died") if place == 1 else task(item, "cpu")

    lost = run_on_workers(killing, on_cpu, models(every), cache=trainable, journal=journal, progress=GridTold())
    assert {one.failure for one in lost.values()} == {"killed its worker: four workers died"}
    assert [journal.holds(model) for model in models(every)] == [True] * 3 + [False] * 3 + [True] * 3


def test_a_worker_holds_no_more_features_than_it_may(trainable: Path, tmp_path: Path) -> None:
    every = planned(trainable, "audio", AXES[2])
    for name, share in (("held", 0.5), ("read", 0.0)):
        remote._loaded.clear()
        task = partial(train_task, lambda name: CPU, share)
        run_on_workers(
            alone, task, models(every), cache=trainable, journal=Journal(tmp_path / name), progress=GridTold()
        )
        (source,) = remote._loaded.values()
        assert bool(source._held) == (share > 0)
        assert source.budget == memory_budget(CPU, share / remote.LOADED)
    assert weights_of(tmp_path / "held") == weights_of(tmp_path / "read")
