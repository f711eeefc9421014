"""Random batches from a cache shaped like IEMOCAP, against a memcpy and against other ways to keep ragged features.

Claim: a warm random batch of 32 utterances costs at most 1/0.7 of a memcpy of the same bytes, and becomes a float32
batch at least 10 times as fast packed (5 times padded) as by the usual loop over one HDF5 dataset per utterance.

Every other layout is written and measured beside the cache, then removed; all arms leave their rows one after another
in the same reused array. Run it by ``python -m benchmarks.bench_store``.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from benchmarks.support.layouts import LAYOUTS, Read, written
from benchmarks.support.measure import Arms, Spread, alternate, iemocap_like, machine_line, speedup, verdict
from benchmarks.support.noise import fill_cache
from cache.layout import StreamPlan
from cache.store import FeatureCache, Stream
from cache.stream import StreamSpec
from cache.utterance import Utterance
from cli.output import print_table

DIM, MEAN_FRAMES, BATCH = 768, 222, 32
MEMCPY, CACHE = "memcpy", "cache, packed"
LOOP, CACHE_FLOAT, CACHE_PADDED = "h5py + pad_sequence", "cache to float32, packed", "cache to float32, padded"


def build_cache(path: Path, utterances: int) -> Stream:
    """Fills a cache with float16 rows of IEMOCAP-like lengths."""
    lengths = iemocap_like(utterances, mean=MEAN_FRAMES).round().astype(np.int64)
    spec = StreamSpec(name="frames", role="audio", source="noise", shape=(DIM,), dtype="float16", rate_hz=50.0)
    plan = StreamPlan(spec=spec, lengths=lengths, failures={})
    fill_cache(path, [Utterance(id=f"u{index:05d}") for index in range(utterances)], [plan])
    return FeatureCache(path).stream(spec.name)


def draw_batches(stream: Stream) -> list[list[int]]:
    """Shuffles all utterances into batches."""
    order = np.random.default_rng(2).permutation(len(stream)).tolist()
    return [order[first : first + BATCH] for first in range(0, len(order), BATCH)]


class Bench:
    """The cache, its batches, and the arrays that every arm reuses."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.ids = [f"u{index:05d}" for index in range(len(stream))]
        self.batches = draw_batches(stream)
        lengths = stream.lengths
        self.totals = [int(lengths[batch].sum()) for batch in self.batches]
        self.packed = np.zeros((max(self.totals), DIM), dtype=np.float16)
        self.floats = torch.zeros(max(self.totals), DIM)
        self.padded = torch.zeros(max(len(batch) * int(lengths[batch].max()) for batch in self.batches), DIM)
        self.contiguous = np.array(stream.values)  # as large as the file, so that it fits a processor cache no better

    @property
    def size_bytes(self) -> int:
        """Stored bytes of one epoch."""
        return self.contiguous.nbytes

    def memcpy(self) -> None:
        """Copies blocks of the same sizes out of one contiguous array, from random places."""
        random = np.random.default_rng(3)
        for total in self.totals:
            start = int(random.integers(len(self.contiguous) - total + 1))
            np.copyto(self.packed[:total], self.contiguous[start : start + total])

    def pack(self) -> None:
        """Packs every batch out of the cache."""
        for batch in self.batches:
            self.stream.pack(batch, out=self.packed)

    def pack_floats(self) -> None:
        """Packs every batch and converts it into a reused tensor."""
        for batch in self.batches:
            rows = torch.from_numpy(self.stream.pack(batch, out=self.packed).rows)
            self.floats[: len(rows)].copy_(rows)

    def pack_new_floats(self) -> None:
        """Packs every batch and converts it into a new tensor."""
        for batch in self.batches:
            torch.from_numpy(self.stream.pack(batch, out=self.packed).rows).to(torch.float32)

    def pad_floats(self) -> None:
        """Packs every batch, then converts it into a reused padded tensor."""
        for batch in self.batches:
            packed = self.stream.pack(batch, out=self.packed)
            _pad(torch.from_numpy(packed.rows), packed.lengths.tolist(), self.padded)

    def copy(self, read: Read) -> None:
        """Packs every batch from utterances read one by one."""
        for batch in self.batches:
            end = 0
            for index in batch:
                rows = read(self.ids[index])
                self.packed[end : end + len(rows)] = rows
                end += len(rows)

    def pad_sequences(self, read: Read) -> None:
        """Makes float32 batches the usual way."""
        for batch in self.batches:
            pad_sequence([torch.from_numpy(read(self.ids[index])).float() for index in batch], batch_first=True)


def _pad(rows: Tensor, lengths: Sequence[int], out: Tensor) -> Tensor:
    padded = out[: len(lengths) * max(lengths)].view(len(lengths), max(lengths), DIM)
    start = 0
    for place, length in enumerate(lengths):
        padded[place, :length].copy_(rows[start : start + length])
        padded[place, length:].zero_()
        start += length
    return padded


def compare_layouts(folder: Path, bench: Bench, rounds: int) -> float:
    """Measures packed batches of every layout beside the cache; gives the cache's share of a memcpy."""
    rows, shares = [], []
    for name in LAYOUTS:
        if name.startswith("lhotse") and find_spec("lhotse") is None:
            print(f"{name}: skipped, lhotse is not installed")
            continue
        with written(name, folder, bench.stream, bench.ids) as read:
            arms: Arms = {MEMCPY: bench.memcpy, CACHE: bench.pack, name: partial(bench.copy, read)}
            seconds = alternate(arms, rounds=rounds)
        shares += [there / here for here, there in zip(seconds[CACHE], seconds[MEMCPY], strict=True)]
        rates = [Spread.of([bench.size_bytes / 1e6 / one for one in seconds[arm]]).text(0) for arm in arms]
        rows.append((name, *rates, speedup(seconds, name, MEMCPY).text(3), speedup(seconds, CACHE, name).text(1)))
    print_table(("layout, MB/s packed", MEMCPY, CACHE, "layout", "of a memcpy", "cache is faster by"), rows)
    print(f"{CACHE}: {Spread.of(shares).text()} of a memcpy")
    return Spread.of(shares).median


def compare_floats(folder: Path, bench: Bench, rounds: int) -> tuple[float, float]:
    """Measures float32 batches; gives how many times as fast as the loop the cache is, packed and padded."""
    with written("one HDF5 dataset per utterance", folder, bench.stream, bench.ids) as read:
        arms: Arms = {
            LOOP: partial(bench.pad_sequences, read),
            CACHE_FLOAT: bench.pack_floats,
            f"{CACHE_FLOAT}, new tensor": bench.pack_new_floats,
            CACHE_PADDED: bench.pad_floats,
        }
        seconds = alternate(arms, rounds=rounds)
    print_table(
        ("float32 batches", "MB/s of stored rows", "times the loop"),
        [
            (name, Spread.of([bench.size_bytes / 1e6 / s for s in found]).text(0), speedup(seconds, name, LOOP).text(1))
            for name, found in seconds.items()
        ],
    )
    return speedup(seconds, CACHE_FLOAT, LOOP).median, speedup(seconds, CACHE_PADDED, LOOP).median


def main() -> None:
    """Measures and prints everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--folder", type=Path, help="where the files go, some 1.2 GB [default: a temporary one]")
    parser.add_argument("--utterances", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    with TemporaryDirectory(dir=asked.folder) as name:
        bench = Bench(build_cache(Path(name) / "cache.h5", asked.utterances))
        print(machine_line())
        print(f"{asked.utterances} utterances, {bench.size_bytes / 1e6:.0f} MB, {asked.rounds} rounds")
        share = compare_layouts(Path(name), bench, asked.rounds)
        packed, padded = compare_floats(Path(name), bench, asked.rounds)
    print(verdict("cache as a share of a memcpy", share, at_least=0.7))
    print(verdict("cache to float32, packed, times the loop", packed, at_least=10))
    print(verdict("cache to float32, padded, times the loop", padded, at_least=5))


if __name__ == "__main__":
    main()
