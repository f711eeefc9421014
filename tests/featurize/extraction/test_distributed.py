"""Workers of a real cluster: the same values as in one process, whoever is killed on the way."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from distributed import LocalCluster
from threadpoolctl import threadpool_limits

from cache.audit import verify
from cache.errors import CacheUnreadable, MmerError
from cache.joined import open_cache
from cache.layout import COMMITTED
from cache.store import FeatureCache
from featurize.extraction.distributed import EncoderCache, extract_on, run_shards_on
from featurize.extraction.run import ExtractionReport, run_job, run_shards
from featurize.runtime.cluster import Cluster, Workers, cluster_of
from tests.support.voices import RATE_HZ, Silent, contents, featurized, job_over, tone, write_corpus

LONG = 40
SPEECH: Mapping[str, Any] = {"encoders": ("wav2vec2-tiny",), "mel": False, "audio_only": True}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with cluster_of(Workers(count=2, device="cpu")) as made:
        yield made


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings long enough that a run over them can be disturbed, one of them broken."""
    folder = tmp_path_factory.mktemp("voices")
    for place in range(LONG):
        soundfile.write(folder / f"u{place}.wav", tone(3 + 0.1 * place, seed=place), RATE_HZ)
    (folder / "u7.wav").write_bytes(b"RIFF and no sound")
    return write_corpus(folder, [{"id": f"u{place}", "dialogue": "d", "turn": place} for place in range(LONG)])


@pytest.fixture(scope="module")
def expected(voices: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], tuple[Any, ...]]:
    """What one process gives, on one thread as each worker."""
    path = tmp_path_factory.mktemp("expected") / "a.h5"
    with one_thread():
        featurized(voices, path, **SPEECH)
    return contents(path)


@contextmanager
def one_thread() -> Iterator[None]:
    """Lets this process sum in one thread, as each worker does: with others the last bits differ."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):  # of the BLAS that log-mel is multiplied with
            yield
    finally:
        torch.set_num_threads(before)


class Disturbing(Silent):
    """Does something once, when the first rows have come back."""

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
    everything: Mapping[str, Any] = {"history": 2}
    report = run_on(cluster, voices, tmp_path / "a.h5", Silent(), **everything)
    with one_thread():
        featurized(voices, tmp_path / "b.h5", **everything)
    assert contents(tmp_path / "a.h5") == contents(tmp_path / "b.h5")
    assert {one["id"] for one in report.summary["failures"]} == {"u7"}


def test_batches_of_several_utterances_are_the_same_too(cluster: Cluster, voices: Path, tmp_path: Path) -> None:
    run_on(cluster, voices, tmp_path / "a.h5", Silent(), batch_seconds=20.0, **SPEECH)
    with one_thread():
        featurized(voices, tmp_path / "b.h5", batch_seconds=20.0, **SPEECH)
    assert contents(tmp_path / "a.h5") == contents(tmp_path / "b.h5")


def test_a_worker_that_dies_has_its_batches_taken_over(
    cluster: Cluster, voices: Path, tmp_path: Path, expected: Mapping[Any, Any]
) -> None:
    workers = cluster.client.run(os.getpid)
    progress = Disturbing(lambda: os.kill(next(iter(workers.values())), signal.SIGKILL))
    run_on(cluster, voices, tmp_path / "a.h5", progress, **SPEECH)
    assert contents(tmp_path / "a.h5") == expected
    assert progress.advanced == LONG - 1  # the broken one was found out while planning
    cluster.client.wait_for_workers(2, timeout=60)  # dask has started another one
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
    for place, name in enumerate(joined.ids):
        found = joined.streams["roberta-tiny+history2"].read(place)
        np.testing.assert_allclose(found, whole.stream("roberta-tiny+history2").read(whole.ids.index(name)), atol=2e-3)


def client(manifest: Path, cache: Path, address: str, *options: str) -> subprocess.Popen[bytes]:
    """Starts the command as a user does, in a process of its own."""
    command = [sys.executable, "-m", "cli.extract", "manifest", "--root", str(manifest), "--cache", str(cache)]
    encoders = ["--encoder", "wav2vec2-tiny", "--no-mel", "--audio-only", "--device", "cpu"]
    root = Path(__file__).parents[3]
    return subprocess.Popen(
        [*command, *encoders, "--scheduler", address, *options],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def killed_while_writing(process: subprocess.Popen[bytes], folder: Path) -> int:
    """Kills a client once something is committed; gives how many rows that were."""
    deadline = time.monotonic() + 120
    while not (count := sum(map(committed, folder.glob("*.h5")))):
        assert process.poll() is None, "the client ended before anything was committed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    return count


def committed(path: Path) -> int:
    try:
        stream = FeatureCache(path).stream("wav2vec2-tiny")
    except CacheUnreadable:  # not until it is renamed
        return 0
    return int(np.count_nonzero(stream.state == COMMITTED))


@pytest.mark.parametrize("options", [(), ("--shards", "2")], ids=["one file", "shards"])
def test_a_client_killed_while_workers_are_at_work_loses_nothing(
    cluster: Cluster, voices: Path, tmp_path: Path, expected: Mapping[Any, Any], options: Sequence[str]
) -> None:
    address = cluster.client.scheduler.address
    assert killed_while_writing(client(voices, tmp_path / "a.h5", address, *options), tmp_path) < LONG - 1
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

    def other_precision(shelf: EncoderCache) -> Any:
        encoder_set = shelf._encoder_set
        return sharing(
            EncoderCache(shelf.name, replace(encoder_set, options=replace(encoder_set.options, precision="bfloat16")))
        )

    monkeypatch.setattr(cluster, "sharing", other_precision)
    with pytest.raises(MmerError, match=r"worker \S+ has a different wav2vec2-tiny \(precision float32 -> bfloat16\)"):
        run_on(cluster, voices, tmp_path / "a.h5", Silent(), **SPEECH)


def test_threads_of_a_worker_do_not_meet_in_an_encoder(voices: Path, tmp_path: Path) -> None:
    layers: Mapping[str, Any] = {"encoders": ("wav2vec2-tiny@2", "roberta-tiny@2"), "mel": False, "batch_seconds": 20.0}
    with LocalCluster(n_workers=1, threads_per_worker=4, dashboard_address=":0", silence_logs=50) as started:
        workers = Workers(scheduler=started.scheduler_address, device="cpu")
        with cluster_of(workers) as threaded:
            run_on(threaded, voices, tmp_path / "a.h5", Silent(), **layers)
    with one_thread():
        featurized(voices, tmp_path / "b.h5", **layers)
    assert contents(tmp_path / "a.h5") == contents(tmp_path / "b.h5")
