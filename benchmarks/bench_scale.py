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
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import soundfile
import torch

from benchmarks.support.measure import machine_line, verdict
from cache.store import FeatureCache
from cli.output import print_table
from featurize.corpora.manifest import USUAL
from featurize.encoders.acoustic import logmel80
from featurize.encoders.options import EncodingOptions
from featurize.extraction.job import ExtractionJob
from featurize.extraction.planned_job import plan_job, read_job
from featurize.extraction.run import run_job
from featurize.extraction.shard import Shard
from featurize.inputs.audio import RATE_HZ

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
    """Progress that keeps when it was told of how many utterances, and the CPU time used by then."""

    started: float = 0.0
    moments: list[tuple[int, float, float]] = field(default_factory=list)

    def note(self, notes: Sequence[str]) -> None:
        """Says nothing."""

    def start(self, name: str, utterances: int, seconds: float) -> None:
        """Begins to count."""
        self.started, self.moments = time.perf_counter(), []

    def advance(self, utterances: int, seconds: float) -> None:
        """Keeps the moment."""
        done = self.moments[-1][0] if self.moments else 0
        self.moments.append((done + utterances, time.perf_counter(), time.process_time()))

    def rates(self) -> list[float]:
        """Gives the utterances per second of each part of the run."""
        ends = [self.moments[len(self.moments) * part // PARTS - 1] for part in range(1, PARTS + 1)]
        starts = [(0, self.started, 0.0), *ends[:-1]]
        return [(stop[0] - start[0]) / (stop[1] - start[1]) for start, stop in zip(starts, ends, strict=True)]


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
            csv.writer(file).writerows([USUAL, *rows[:size]])
    return manifests


def run_all(job: ExtractionJob) -> Found:
    """Featurizes a manifest into a new cache."""
    logmel80(np.zeros(RATE_HZ, dtype=np.float32))  # librosa imports what it needs at the first call
    watch, began, busy = Watch(), time.perf_counter(), time.process_time()
    run_job(job, watch)
    first, last = watch.moments[0], watch.moments[-1]
    return {
        "planning": first[1] - began,
        "planning_cpu": first[2] - busy,
        "encoding": last[1] - watch.started,
        "encoding_cpu": last[2] - first[2],
        "rates": watch.rates(),
        "size": job.cache.stat().st_size,
    }


def run_again(job: ExtractionJob) -> Found:
    """Runs over a cache where nothing is left to do."""
    began = time.perf_counter()
    run_job(job, Watch())
    return {"seconds": time.perf_counter() - began}


def plan_share(job: ExtractionJob) -> Found:
    """Plans one share of the corpus, as every process of a job array does."""
    began = time.perf_counter()
    job = replace(job, shard=Shard(1, SHARDS))
    ready = plan_job(job, *read_job(job))
    return {"seconds": time.perf_counter() - began, "utterances": len(ready.inputs.utterances)}


def open_it(job: ExtractionJob) -> Found:
    """Opens the finished cache."""
    before, began = _peak_bytes(), time.perf_counter()
    cache = FeatureCache(job.cache)
    return {"seconds": time.perf_counter() - began, "utterances": len(cache), "held": _peak_bytes() - before}


ARMS: Mapping[str, Callable[[ExtractionJob], Found]] = {
    "run": run_all,
    "again": run_again,
    "share": plan_share,
    "open": open_it,
}

FIGURES: Mapping[str, tuple[str, str, float]] = {  # what is printed -> the arm, what it found, the unit
    "planning, s": ("run", "planning", 1),
    "planning, CPU s": ("run", "planning_cpu", 1),
    "encoding, s": ("run", "encoding", 1),
    "encoding, CPU s": ("run", "encoding_cpu", 1),
    "peak resident, MB": ("run", "peak", 1e6),
    "file, MB": ("run", "size", 1e6),
    "again, nothing to do: s": ("again", "seconds", 1),
    "again, nothing to do: peak, MB": ("again", "peak", 1e6),
    f"one of {SHARDS} shares planned: s": ("share", "seconds", 1),
    f"one of {SHARDS} shares planned: peak, MB": ("share", "peak", 1e6),
    "cache opened: s": ("open", "seconds", 1),
    "cache opened: takes MB": ("open", "held", 1e6),
}
JUDGED = ("planning, CPU s", "encoding, CPU s", "peak resident, MB")


def measure_here(arm: str, manifest: Path, threads: int) -> None:
    """Runs one arm in this process and prints what was found, with its peak of resident memory, as JSON."""
    torch.set_num_threads(threads)
    job = ExtractionJob(
        corpus="manifest",
        root=manifest,
        cache=manifest.with_suffix(".h5"),
        encoders=("logmel80",),
        options=EncodingOptions(device=torch.device("cpu")),
        audio_only=True,
    )
    found = ARMS[arm](job)
    print(json.dumps({**found, "peak": _peak_bytes()}))


def measure_apart(arm: str, manifest: Path, threads: int) -> Found:
    """Runs `measure_here` in a process of its own, with the settings of ``mmer-featurize``."""
    command = [sys.executable, "-m", "benchmarks.bench_scale", "--arm", arm, str(manifest), "--threads", str(threads)]
    settings = {"OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=Path(__file__).parents[1], env=os.environ | settings, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{arm} over {manifest.name} failed:\n{done.stderr}")
    found: Found = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(manifests: Mapping[int, Path], threads: int) -> None:
    """Measures every size and prints all of it, with what each 1,000 utterances more took."""
    found = {size: {arm: measure_apart(arm, path, threads) for arm in ARMS} for size, path in manifests.items()}
    steps = list(pairwise(found))
    rows, growth = [], {}
    for what, (arm, key, unit) in FIGURES.items():
        values = {size: one[arm][key] / unit for size, one in found.items()}
        growth[what] = [1000 * (values[large] - values[small]) / (large - small) for small, large in steps]
        rows.append((what, *(f"{value:,.2f}" for value in values.values()), *(f"{more:.3f}" for more in growth[what])))
    sizes = tuple(f"{size:,}" for size in found)
    print_table(("utterances", *sizes, *(f"each 1,000 over {small:,}" for small, _ in steps)), rows)
    rates = [[f"{rate:.0f}" for rate in one["run"]["rates"]] for one in found.values()]
    parts = [f"part {part} of {PARTS}" for part in range(1, PARTS + 1)]
    print_table(("utterances/s", *parts), [(size, *row) for size, row in zip(sizes, rates, strict=True)])
    for what in JUDGED:
        early, late = growth[what]
        print(verdict(f"{what}: each 1,000 late over each 1,000 early", late / early, at_most=1.25))
    few, *_, many = (one["run"]["rates"] for one in found.values())
    print(verdict("utterances/s of the last part: largest run over smallest", many[-1] / few[-1], at_least=0.8))


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_BYTES


def main() -> None:
    """Measures and prints everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sizes", type=int, nargs=3, default=SIZES, help="of the runs, in utterances")
    parser.add_argument("--threads", type=int, default=2, help="of torch [default: 2]")
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    parser.add_argument("manifest", type=Path, nargs="?", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.arm:
        measure_here(asked.arm, asked.manifest, asked.threads)
        return
    print(machine_line())
    with TemporaryDirectory() as folder:
        compare(write_corpus(Path(folder), asked.sizes), asked.threads)


if __name__ == "__main__":
    main()
