"""Opens caches with changed bytes and checks that each ends in one line or in a cache that can be read.

    python -m benchmarks.fuzz_cache --files 20000

Bytes of a small valid cache are overwritten, repeated, cut out or set to extreme numbers, mostly in its HDF5 metadata.
Each file is opened and read whole, in a process of its own kind that may crash or hang without harm: both are findings,
as is every error that is not a `cache.errors.MmerError`. A finding is printed with its seed, which makes it again.
"""

import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np

from cache.audit import noted, summarize, verify
from cache.doctor import examine
from cache.errors import MmerError
from cache.layout import StreamPlan, read_layout
from cache.rebuild import build_file
from cache.rows import to_stored
from cache.store import FeatureCache
from cache.stream import StreamSpec
from cache.utterance import Utterance
from cache.writer import CacheWriter, Row

HANG_S = 20
NUMBERS = (0, 1, 2, 3, 7, 8, 0x7F, 0xFF, 0xFFFF, 2**31 - 1, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)


def write_seed(path: Path) -> bytes:
    """Writes a small cache with two streams and weights; returns its bytes."""
    utterances = [Utterance(id=name, audio=f"{name}.wav", text=f"text {name}", label="sad") for name in "abc"]
    lengths = np.array([2, 0, 3], dtype=np.int64)
    plans = [
        StreamPlan(
            spec=StreamSpec(name=name, role="audio", source="s", shape=(4,), dtype=dtype),
            lengths=lengths,
            failures={1: "missing"},
        )
        for name, dtype in (("first", "float16"), ("second", "int8"))
    ]
    header = {"mmer_version": "0", "created": "2026", "corpus": {"name": "toy", "root": "."}}
    build_file(path, header=header, utterances=utterances, plans=plans, weights={"first": {"w": np.arange(3.0)}})
    with CacheWriter(read_layout(path)) as writer:
        for plan in plans:
            for index in (0, 2):
                rows = np.ones((int(lengths[index]), 4), np.float32)
                stored = to_stored(rows, plan.spec.dtype)
                writer.commit([Row(stream=plan.spec.name, index=index, stored=stored, digest=b"d" * 16)])
    return path.read_bytes()


def mutate(whole: bytes, seed: int) -> bytes:
    """Returns the bytes with one to four changes, which the seed decides."""
    chance, changed = random.Random(seed), bytearray(whole)
    used = [start for start in range(0, len(whole), 16) if any(whole[start : start + 16])]
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        start = chance.choice(used) + chance.randrange(16)
        kind = chance.randrange(5)
        if kind == 0:
            changed[start : start + 1] = bytes([chance.randrange(256)])
        elif kind == 1:
            size = chance.choice((1, 2, 4, 8))
            number = chance.choice(NUMBERS) % 2 ** (8 * size)
            changed[start : start + size] = number.to_bytes(size, "little")
        elif kind == 2:
            changed[start : start + 1] = bytes([changed[min(start, len(changed) - 1)] ^ 1 << chance.randrange(8)])
        elif kind == 3:
            source = chance.choice(used)
            size = chance.choice((8, 16, 64))
            changed[start : start + size] = changed[source : source + size]
        else:
            del changed[start : start + chance.choice((1, 8, 512))]
    return bytes(changed)


def read_whole(path: Path) -> None:
    """Reads all that commands read of a cache."""
    cache = FeatureCache(path)
    summarize(cache)
    noted(cache)
    verify(cache)
    examine(cache)
    cache.all_weights()


def attempt(path: Path, whole: bytes, seed: int) -> str:
    """Reads one changed file; returns the traceback of an error that is not one line, or nothing."""
    path.write_bytes(mutate(whole, seed))
    try:
        read_whole(path)
    except MmerError:
        return ""
    except BaseException:
        return traceback.format_exc()
    return ""


def fuzz(folder: Path, *, files: int, seed: int) -> Counter[str]:
    """Reads that many changed files; counts findings by kind."""
    whole, findings = write_seed(folder / "seed.h5"), Counter[str]()
    number = seed
    while number < seed + files:
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            _work(folder / "changed.h5", whole, range(number, seed + files), writing)
        os.close(writing)
        number = _watch(reading, child, number, findings)
    return findings


def _work(path: Path, whole: bytes, seeds: range, writing: int) -> None:
    """Reads files until one of them crashes or hangs; names each seed before it begins."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    for seed in seeds:
        signal.alarm(HANG_S)
        os.write(writing, f"{seed}\n".encode())
        if text := attempt(path, whole, seed):
            os.write(writing, f"! {text.strip().splitlines()[-1]} {text.strip().splitlines()[-3].strip()}\n".encode())
    os._exit(0)


def _watch(reading: int, child: int, number: int, findings: Counter[str]) -> int:
    """Follows a child to its end; returns the first seed that is left."""
    with os.fdopen(reading) as lines:
        for line in lines:
            if line.startswith("!"):
                findings[line[2:].strip()] += 1
                print(f"seed {number}: {line[2:].strip()}", flush=True)
            else:
                number = int(line)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        kind = "hang" if os.WTERMSIG(status) == signal.SIGALRM else signal.Signals(os.WTERMSIG(status)).name
        findings[kind] += 1
        print(f"seed {number}: {kind}", flush=True)
    return number + 1


@click.command()
@click.option("--files", default=20_000, show_default=True, help="Number of changed files to read.")
@click.option("--seed", default=0, show_default=True, help="Seed of the first file; file n has this seed plus n.")
def main(files: int, seed: int) -> None:
    """Prints the findings and their number; exit code 1 if there is any."""
    started = time.monotonic()
    with TemporaryDirectory() as folder:
        findings = fuzz(Path(folder), files=files, seed=seed)
    print(f"{files} files in {time.monotonic() - started:.0f} s: {findings.total()} findings of {len(findings)} kinds")
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
