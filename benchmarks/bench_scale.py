"""Planning time, memory and rate of runs over 5,000, 15,000 and 50,000 utterances of one corpus.

Claim: each utterance more costs the same time to plan, the same time to encode and the same few kilobytes, so that what
a run over a corpus of any size takes can be told from a small one.

The utterances are noise of 0.3 to 0.6 s, so that what a run does beside encoding weighs as much as it can; the encoder
is logmel80, the cheapest of the catalog. Every figure is from a process of its own. Run it by
``python -m benchmarks.bench_scale``.
"""

import argparse
import csv
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import soundfile
import torch

from benchmarks.measure import machine_line, verdict
from cache.store import FeatureCache
from cli.options import print_table
from featurize.audio import RATE_HZ
from featurize.corpora.manifest import NEEDED
from featurize.encoders.acoustic import logmel80
from featurize.encoders.options import EncodingOptions
from featurize.job import Job, plan_job, read_job
from featurize.run import run_job
from featurize.shard import Shard

SIZES = (5_000, 15_000, 50_000)
SHORTEST_S, LONGEST_S = 0.3, 0.6
IN_FOLDER = 1_000
NOISE_S = 60
PARTS = 5  # of a run, whose rates are compared
SHARDS = 10
MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024

Found = dict[str, Any]


@dataclass
class Watch:
    """Progress that keeps when the encoder started and how many utterances were done when."""

    started: float = 0.0
    done: int = 0
    moments: list[tuple[int, float]] | None = None

    def note(self, notes: Sequence[str]) -> None:
        """Says nothing."""

    def start(self, name: str, utterances: int, seconds: float) -> None:
        """Starts to count."""
        self.started, self.done, self.moments = time.perf_counter(), 0, []

    def advance(self, utterances: int, seconds: float) -> None:
        """Keeps the moment."""
        assert self.moments is not None  # a part of a run starts before it advances
        self.done += utterances
        self.moments.append((self.done, time.perf_counter()))

    def rates(self) -> list[float]:
        """Gives the utterances per second of each part of the run."""
        assert self.moments
        ends = [self.moments[len(self.moments) * part // PARTS - 1] for part in range(1, PARTS + 1)]
        starts = [(0, self.started), *ends[:-1]]
        return [(done - before) / (at - since) for (before, since), (done, at) in zip(starts, ends, strict=True)]


def write_corpus(folder: Path, sizes: Sequence[int]) -> dict[int, Path]:
    """Writes noise, and a manifest of the first so many utterances for each size."""
    random = np.random.default_rng(0)
    noise = (0.1 * random.standard_normal(NOISE_S * RATE_HZ)).astype(np.float32)
    rows = []
    for index in range(max(sizes)):
        name = f"{index // IN_FOLDER:03d}/utterance-{index:06d}"
        length = int(random.uniform(SHORTEST_S, LONGEST_S) * RATE_HZ)
        start = int(random.integers(len(noise) - length))
        if index % IN_FOLDER == 0:
            (folder / name).parent.mkdir()
        soundfile.write(folder / f"{name}.wav", noise[start : start + length], RATE_HZ, "PCM_16")
        text = f"this is what was said in utterance {index}"
        rows.append((name, f"{name}.wav", text, "neutral", f"speaker-{index % 100:03d}", f"{index % 5}"))
    manifests = {size: folder / f"first-{size}.csv" for size in sizes}
    for size, manifest in manifests.items():
        with manifest.open("w", newline="") as file:
            csv.writer(file).writerows([NEEDED, *rows[:size]])
    return manifests


def run_all(job: Job) -> Found:
    """Featurizes a manifest into a new cache."""
    logmel80(np.zeros(RATE_HZ, dtype=np.float32))  # librosa imports what it needs at the first call
    watch, began = Watch(), time.perf_counter()
    report = run_job(job, watch)
    assert watch.moments
    counts = report.summary["streams"]["logmel80"]
    return {
        "planning": watch.moments[0][1] - began,
        "encoding": watch.moments[-1][1] - watch.started,
        "rates": watch.rates(),
        "committed": counts["committed"],
        "size": job.cache.stat().st_size,
    }


def run_again(job: Job) -> Found:
    """Runs over a cache where nothing is left to do."""
    began = time.perf_counter()
    run_job(job, Watch())
    return {"seconds": time.perf_counter() - began}


def plan_share(job: Job) -> Found:
    """Plans one share of the corpus, as every process of a job array does."""
    began = time.perf_counter()
    job = replace(job, shard=Shard(1, SHARDS))
    ready = plan_job(job, *read_job(job))
    return {"seconds": time.perf_counter() - began, "utterances": len(ready.inputs.utterances)}


def open_cache(job: Job) -> Found:
    """Opens the finished cache."""
    before, began = _peak_bytes(), time.perf_counter()
    cache = FeatureCache(job.cache)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "utterances": len(cache), "bytes": _peak_bytes() - before}


ARMS: Mapping[str, Callable[[Job], Found]] = {
    "run": run_all,
    "again": run_again,
    "share": plan_share,
    "open": open_cache,
}


def measure_here(arm: str, manifest: Path, threads: int) -> None:
    """Runs one arm in this process and prints what was found, with its peak of resident memory, as JSON."""
    torch.set_num_threads(threads)
    options = EncodingOptions(device=torch.device("cpu"))
    cache = manifest.with_suffix(".h5")
    job = Job(
        corpus="manifest", root=manifest, cache=cache, encoders=("logmel80",), options=options, audio_only=True
    )
    cpu = time.process_time()
    found = ARMS[arm](job)
    print(json.dumps({**found, "cpu": time.process_time() - cpu, "peak": _peak_bytes()}))


def measure_apart(arm: str, manifest: Path, threads: int) -> Found:
    """Runs `measure_here` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.bench_scale", "--arm", arm, str(manifest), "--threads", str(threads)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{arm} over {manifest.name} failed:\n{done.stderr}")
    found: Found = json.loads(done.stdout.splitlines()[-1])
    return found


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_BYTES
