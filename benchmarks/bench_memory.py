"""Peak resident memory of a run over N and over 10 N utterances.

Claim: it grows by less than 10%, so memory depends on the encoder and the longest batch, not on the corpus.

Every run is a process of its own over a manifest of synthetic recordings of 1 to 3 s with transcripts, by
wav2vec2-tiny, roberta-tiny and logmel80. Run it by ``python -m benchmarks.bench_memory``.
"""

import argparse
import csv
import json
import resource
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import soundfile
import torch

from benchmarks.support.measure import Silent, Spread, machine_line, verdict
from cache.audit import summarize
from cache.store import FeatureCache
from cli.output import print_table
from featurize.corpora.manifest import USUAL
from featurize.encoders.options import EncodingOptions
from featurize.extraction.job import ExtractionJob
from featurize.extraction.run import run_job
from featurize.inputs.audio import RATE_HZ

ENCODERS = ("wav2vec2-tiny", "roberta-tiny")
LENGTHS_S = (3.0, 1.0, 2.0, 1.5, 2.5)  # in turn, so that both sizes have the same longest batch
WORDS = ("so", "you", "see", "we", "could", "not", "find", "the", "house", "again", "and", "it", "was", "late")
WORDS_EACH = 40  # batches of transcripts are full with some fifty of these, also in the smaller run
MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024


def write_corpus(folder: Path, utterances: int) -> Path:
    """Writes noise and a manifest of it, or of its first utterances."""
    random = np.random.default_rng(0)
    manifest = folder / f"first-{utterances}.csv"
    with manifest.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(USUAL)
        for index in range(utterances):
            name = f"{index:06d}"
            text = " ".join(random.choice(WORDS, WORDS_EACH))
            table.writerow((name, f"{name}.wav", text, "neutral", f"s{index % 10}", f"{index % 5}"))
            sound = 0.1 * random.standard_normal(int(LENGTHS_S[index % len(LENGTHS_S)] * RATE_HZ))
            if not (folder / f"{name}.wav").exists():
                soundfile.write(folder / f"{name}.wav", sound, RATE_HZ)
    return manifest


def run_once(manifest: Path, threads: int) -> None:
    """Featurizes a manifest and prints this process' peak resident memory and the run's seconds as JSON."""
    torch.set_num_threads(threads)
    options = EncodingOptions(device=torch.device("cpu"))
    with TemporaryDirectory(dir=manifest.parent) as folder:
        job = ExtractionJob(
            corpus="manifest", root=manifest, cache=Path(folder) / "cache.h5", encoders=ENCODERS, options=options
        )
        report = run_job(job, Silent())
        peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_BYTES
        committed = sum(one["committed"] for one in summarize(FeatureCache(job.cache))["streams"].values())
        size_bytes = job.cache.stat().st_size
    print(json.dumps({"peak": peak_bytes, "seconds": report.seconds, "committed": committed, "size": size_bytes}))


def run_apart(manifest: Path, threads: int) -> dict[str, float]:
    """Runs `run_once` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.bench_memory", "--once", str(manifest), "--threads", str(threads)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"a run over {manifest.name} failed:\n{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(folder: Path, utterances: int, rounds: int, threads: int) -> None:
    """Measures both sizes in turn and prints the growth."""
    sizes = (utterances, 10 * utterances)
    manifests = [write_corpus(folder, size) for size in sizes]
    peaks: dict[int, list[float]] = {size: [] for size in sizes}
    rows = []
    for _ in range(rounds):
        for size, manifest in zip(sizes, manifests, strict=True):
            found = run_apart(manifest, threads)
            peaks[size].append(found["peak"])
            row = (size, int(found["committed"]), f"{found['size'] / 1e6:.0f}", f"{found['peak'] / 1e6:.1f}")
            rows.append((*row, f"{found['seconds']:.1f}"))
    print_table(("utterances", "rows committed", "file, MB", "peak resident, MB", "seconds"), rows)
    small, large = (Spread.of(peaks[size]).median for size in sizes)
    each_bytes = (large - small) / (sizes[1] - sizes[0])
    print(f"{small / 1e6:.0f} MB grow to {large / 1e6:.0f} MB: {each_bytes / 1e3:.1f} kB for each utterance more")
    print(verdict("growth of peak resident memory", large / small - 1, at_most=0.1))


def main() -> None:
    """Measures and prints everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--utterances", type=int, default=150, help="of the smaller run [default: 150]")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="of torch [default: 2]")
    parser.add_argument("--once", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.once:
        run_once(asked.once, asked.threads)
        return
    print(machine_line())
    with TemporaryDirectory() as folder:
        compare(Path(folder), asked.utterances, asked.rounds, asked.threads)


if __name__ == "__main__":
    main()
