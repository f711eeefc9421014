"""Extraction on a real cluster: the values of one process, even if workers or the client are killed."""

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from threadpoolctl import threadpool_limits

from cache.audit import verify
from cache.errors import CacheUnreadable, MmerError
from cache.joined import open_cache
from cache.layout import COMMITTED
from cache.store import FeatureCache
from featurize.extraction.distributed import EncoderCache, extract_on, run_shards_on
from featurize.extraction.report import ExtractionReport
from featurize.extraction.run import run_job, run_shards
from featurize.runtime.cluster import Cluster
from tests.support.clusters import joined_cluster, small_cluster
from tests.support.processes import PATIENCE_S, Child, command, forked, wait_until
from tests.support.voices import RATE_HZ, Silent, contents, featurized, job_over, tone, write_corpus

LONG = 24
SOME = 9  # the broken one is among them
SPEECH: Mapping[str, Any] = {"encoders": ("wav2vec2-tiny",), "mel": False, "audio_only": True}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with small_cluster() as made:
        yield made


@pytest.fixture(scope="module")
def shared_cluster() -> Iterator[Cluster]:
    """A cluster that other processes may join: it asks for no certificate."""
    with joined_cluster(workers=2) as running:
        yield running


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings long enough that a run over them can be interrupted; one of them is broken."""
    folder = tmp_path_factory.mktemp("voices")
    for index in range(LONG):
        soundfile.write(folder / f"u{index}.wav", tone(0.2 + 0.03 * index, seed=index), RATE_HZ)
    (folder / "u7.wav").write_bytes(b"RIFF and no sound")
    return write_corpus(folder, [{"id": f"u{index}", "dialogue": "d", "turn": index} for index in range(LONG)])


@pytest.fixture(scope="module")
def expected(voices: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], tuple[Any, ...]]:
    """The cache of one process that computes on one thread, as each worker does."""
    path = tmp_path_factory.mktemp("expected") / "a.h5"
    with one_thread():
        featurized(voices, path, **SPEECH)
    return contents(path)


@contextmanager
def one_thread() -> Iterator[None]:
    """Restricts torch to one thread, as each worker does: with more threads the last bits differ."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):  # of the BLAS that log-mel is multiplied with
            yield
    finally:
        torch.set_num_threads(before)


class Disturbing(Silent):
    """Progress that calls a function once, after the first rows are returned."""

    def __init__(self, disturb: Any) -> None:
        super().__init__()
        self._disturb = disturb

    def advance(self, utterances: int, seconds: float) -> None:
        super().advance(utterances, seconds)
        if self._disturb and self.advanced > 2:
            disturb, self._disturb = self._disturb, None
            disturb()


def run_on(cluster: Cluster, manifest: Path, path: Path, progress: Silent, **changes: Any) -> ExtractionReport:
    return run_job(job_over(manifest, path, **changes), progress, partial(extract_on, cluster))


def shard_contents(cache: Path) -> dict[tuple[str, str], tuple[Any, ...]]:
    shards = [contents(path) for path in cache.parent.glob(f"{cache.stem}-*.h5")]
    return {key: value for shard in shards for key, value in shard.items()}


def test_workers_give_the_values_of_one_process(cluster: Cluster, voices: Path, tmp_path: Path) -> None:
    everything: Mapping[str, Any] = {"history": 2, "limit": SOME}
    report = run_on(cluster, voices, tmp_path / "a.h5", Silent(), **everything)
    with one_thread():
        featurized(voices, tmp_path / "b.h5", **everything)
    assert contents(tmp_path / "a.h5") == contents(tmp_path / "b.h5")
    assert {failure["id"] for failure in report.summary["failures"]} == {"u7"}


def test_batches_of_several_utterances_are_the_same_too(cluster: Cluster, voices: Path, tmp_path: Path) -> None:
    run_on(cluster, voices, tmp_path / "a.h5", Silent(), batch_seconds=20.0, limit=SOME, **SPEECH)
    with one_thread():
        featurized(voices, tmp_path / "b.h5", batch_seconds=20.0, limit=SOME, **SPEECH)
    assert contents(tmp_path / "a.h5") == contents(tmp_path / "b.h5")


def test_a_worker_that_dies_has_its_batches_taken_over(
    cluster: Cluster, voices: Path, tmp_path: Path, expected: Mapping[Any, Any]
) -> None:
    workers = cluster.client.run(os.getpid)
    progress = Disturbing(lambda: os.kill(next(iter(workers.values())), signal.SIGKILL))
    run_on(cluster, voices, tmp_path / "a.h5", progress, **SPEECH)
    assert contents(tmp_path / "a.h5") == expected
    assert progress.advanced == LONG - 1  # the broken one was found out while planning
    cluster.client.wait_for_workers(2, timeout=PATIENCE_S)  # dask has started another one
    assert set(cluster.client.run(os.getpid).values()) != set(workers.values())


def test_what_is_committed_is_not_sent_again(cluster: Cluster, voices: Path, tmp_path: Path) -> None:
    run_on(cluster, voices, tmp_path / "a.h5", Silent(), limit=5, **SPEECH)
    progress = Silent()
    run_on(cluster, voices, tmp_path / "a.h5", progress, limit=9, **SPEECH)
    assert progress.started["wav2vec2-tiny"] == 8 - 5  # u7 is the broken one


def test_shards_on_workers_are_one_corpus(
    cluster: Cluster, voices: Path, tmp_path: Path, expected: Mapping[Any, Any]
) -> None:
    report = run_shards_on(cluster, job_over(voices, tmp_path / "a.h5", **SPEECH), 3, Silent())
    assert shard_contents(tmp_path / "a.h5") == expected
    assert report.cache == tmp_path / "a-[0-9]-of-3.h5"
    assert report.summary["utterances"] == len(open_cache(report.cache).ids) == LONG
    assert not list(tmp_path.glob("*.part"))


def test_shards_in_one_process_are_the_same(voices: Path, tmp_path: Path, expected: Mapping[Any, Any]) -> None:
    with one_thread():
        run_shards(job_over(voices, tmp_path / "a.h5", **SPEECH), 3, Silent())
    assert shard_contents(tmp_path / "a.h5") == expected


def test_history_reaches_across_shards(voices: Path, tmp_path: Path) -> None:
    text: Mapping[str, Any] = {"encoders": ("roberta-tiny",), "mel": False, "history": 2}
    featurized(voices, tmp_path / "a.h5", **text)
    run_shards(job_over(voices, tmp_path / "b.h5", **text), 3, Silent())
    whole, joined = FeatureCache(tmp_path / "a.h5"), open_cache(tmp_path / "b-*.h5")
    for index, name in enumerate(joined.ids):
        found = joined.streams["roberta-tiny+history2"].read(index)
        np.testing.assert_allclose(found, whole.stream("roberta-tiny+history2").read(whole.ids.index(name)), atol=2e-3)


def client(manifest: Path, cache: Path, address: str, *options: str) -> AbstractContextManager[Child]:
    """Runs the command in a process of its own."""
    arguments = ["manifest", "--root", str(manifest), "--cache", str(cache), "--encoder", "wav2vec2-tiny", "--no-mel"]
    arguments += ["--audio-only", "--device", "cpu", "--scheduler", address, *options]
    return forked(command, "cli.extract", "featurize", *arguments)


def killed_while_writing(process: Child, folder: Path) -> int:
    """Kills a client once something is committed; gives how many rows that were."""

    def rows() -> int:
        return sum(map(committed, folder.glob("*.h5")))

    wait_until(rows, process)
    count = rows()
    process.kill()
    return count


def committed(path: Path) -> int:
    try:
        stream = FeatureCache(path).stream("wav2vec2-tiny")
    except CacheUnreadable:  # not until it is renamed
        return 0
    return int(np.count_nonzero(stream.state == COMMITTED))


@pytest.mark.parametrize("options", [(), ("--shards", "2")], ids=["one file", "shards"])
def test_a_client_killed_while_workers_are_at_work_loses_nothing(
    shared_cluster: Cluster, voices: Path, tmp_path: Path, expected: Mapping[Any, Any], options: Sequence[str]
) -> None:
    cluster = shared_cluster
    address = cluster.client.scheduler.address
    with client(voices, tmp_path / "a.h5", address, *options) as process:
        assert killed_while_writing(process, tmp_path) < LONG - 1
    job = job_over(voices, tmp_path / "a.h5", **SPEECH)
    if options:  # the tasks of the killed client still hold the locks of their files
        run_shards_on(cluster, job, 2, Silent())
    else:
        run_job(job, Silent(), partial(extract_on, cluster))
    found = shard_contents(tmp_path / "a.h5") if options else contents(tmp_path / "a.h5")
    assert found == expected
    assert [problem for path in tmp_path.glob("*.h5") for problem in verify(FeatureCache(path))] == []


def test_a_worker_with_other_weights_stops_the_run(
    cluster: Cluster, voices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sharing = cluster.sharing

    def other_precision(encoders: EncoderCache) -> Any:
        encoder_set = encoders._encoder_set
        return sharing(
            EncoderCache(
                encoders.name, replace(encoder_set, options=replace(encoder_set.options, precision="bfloat16"))
            )
        )

    monkeypatch.setattr(cluster, "sharing", other_precision)
    with pytest.raises(MmerError, match=r"worker \S+ has a different wav2vec2-tiny \(precision float32 -> bfloat16\)"):
        run_on(cluster, voices, tmp_path / "a.h5", Silent(), **SPEECH)


def test_threads_of_a_worker_do_not_meet_in_an_encoder(voices: Path, tmp_path: Path) -> None:
    layers: Mapping[str, Any] = {"encoders": ("wav2vec2-tiny@2", "roberta-tiny@2"), "mel": False, "batch_seconds": 20.0}
    with joined_cluster(threads=4) as threaded:
        run_on(threaded, voices, tmp_path / "a.h5", Silent(), **layers)
    with one_thread():
        featurized(voices, tmp_path / "b.h5", **layers)
    assert contents(tmp_path / "a.h5") == contents(tmp_path / "b.h5")
