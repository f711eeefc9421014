"""Clusters of dask on this machine whose workers are forked with everything imported."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dask
from distributed import LocalCluster

from featurize.runtime.cluster import Cluster, Workers, cluster_of
from tests.support.processes import fork_server

FORKED = {"distributed.worker.multiprocessing-method": "forkserver"}


@contextmanager
def small_cluster(**configuration: Any) -> Iterator[Cluster]:
    """Starts two workers, by some further configuration of dask."""
    fork_server()
    with dask.config.set({**FORKED, **configuration}), cluster_of(Workers(count=2, device="cpu")) as made:
        yield made


@contextmanager
def joined_cluster(*, workers: int = 1, threads: int = 1) -> Iterator[Cluster]:
    """Joins a cluster that others may join too, of some workers with some threads each."""
    fork_server()
    with (
        dask.config.set(FORKED),
        LocalCluster(n_workers=workers, threads_per_worker=threads, dashboard_address=":0", silence_logs=50) as running,
        cluster_of(Workers(scheduler=running.scheduler_address, device="cpu")) as made,
    ):
        yield made
