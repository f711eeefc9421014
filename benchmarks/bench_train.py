"""One epoch of a head from the cache, against the usual practice and against running the encoder in every epoch.

Claim: an epoch of ``rescmfa`` on a cache shaped like IEMOCAP is at least 2.5 times as fast at full width (768), and at
least 3 times at width 64, as the usual practice: shuffled batches padded to their longest, read from one HDF5 dataset
per utterance in every epoch, torch's default AdamW. The losses of all utterances under fixed weights are equal to 1e-5.

Both arms train the same head with the same losses and batch size, in turn, each in a process of its own: ours is set up
as ``mmer-train`` sets itself up (freed memory is kept). An epoch of 4,425 utterances, four sessions of IEMOCAP, is
divided into batches as each arm does; some of them are trained on, evenly spread from the shortest to the longest:
a whole epoch at full width takes half an hour on two cores. Run it by ``python -m benchmarks.bench_train``.
"""

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import Wav2Vec2Config, Wav2Vec2Model

from benchmarks.support.arm import Arm, resident_peak_mb
from benchmarks.support.iemocap import (
    BATCH,
    CLASSES,
    MEAN_FRAMES,
    OURS,
    STREAMS,
    USUAL,
    UTTERANCES,
    build_cache,
    draw_groups,
    frames_and_tokens,
)
from benchmarks.support.measure import Spread, alternate, machine_line, speedup, verdict
from benchmarks.support.usual import padded, read_rows, train_epoch, write_datasets
from cache.joined import open_cache
from cache.utterance import Utterance
from cli.output import print_table
from featurize.runtime.memory import keep_freed_memory
from fusion.data.features import CachedFeatures
from fusion.head import Batch
from fusion.head_config import HeadInputs
from fusion.heads.build import build_head
from fusion.heads.catalog import config_for
from fusion.training.steps import build_optimizer


class Bench:
    """A cache of noise, the same rows in the usual layout, and a head."""

    def __init__(self, folder: Path, groups: Sequence[Sequence[int]]) -> None:
        self.cache = open_cache(folder / "cache.h5")
        self.usual = h5py.File(folder / "usual.h5", "r")
        self.labels = np.random.default_rng(3).integers(0, len(CLASSES), len(self.cache))
        self.source = CachedFeatures(self.cache, STREAMS, self.labels)
        self.shapes = {role: self.cache.stream(name).spec.shape for role, name in STREAMS.items()}
        where = {name: place for place, name in enumerate(self.cache.ids)}
        self.groups = [[where[str(index)] for index in group] for group in groups]

    def every(self, by_length: bool) -> list[list[int]]:
        """Divides all utterances into batches, sorted by length or as they come."""
        places = np.arange(len(self.cache))
        order = np.argsort(self.source.lengths(places), kind="stable") if by_length else places
        return [order[first : first + BATCH].tolist() for first in range(0, len(order), BATCH)]

    def head(self) -> Any:
        """Builds the head, the same in every arm."""
        inputs = HeadInputs(classes=tuple(CLASSES), shapes=self.shapes)
        return build_head("rescmfa", config_for("rescmfa", {}), inputs, seed=0)

    def ours(self, groups: Sequence[Sequence[int]]) -> Iterator[Batch]:
        """Gives batches as the trainer does."""
        yield from self.source.batches([np.array(group) for group in groups])

    def padded(self, groups: Sequence[Sequence[int]]) -> Iterator[Batch]:
        """Gives batches of which each utterance is read from its datasets and padded to the longest."""
        labels = torch.from_numpy(self.labels)
        for indices in groups:
            yield padded([read_rows(self.usual, index) for index in indices], labels, indices)


def losses_of(head: Any, batches: Iterator[Batch]) -> Tensor:
    """Gives the cross entropy of every utterance under fixed weights, in the order of the cache."""
    head.eval()
    with torch.no_grad():
        pairs = [
            (one.indices, functional.cross_entropy(head(one).logits, one.labels, reduction="none")) for one in batches
        ]
    order = torch.cat([indices for indices, _ in pairs]).argsort()
    return torch.cat([loss for _, loss in pairs])[order]


def serve(name: str, folder: Path, groups: Sequence[Sequence[int]], answers: Any) -> None:
    """Does what it is asked until it is asked to end."""
    if name == OURS:
        keep_freed_memory()
    bench = Bench(folder, groups)
    head, batches = bench.head(), bench.ours if name == OURS else bench.padded
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-4, weight_decay=0.01)
    if name == OURS:
        optimizer = build_optimizer(head, name="adamw", lr=1e-4, weight_decay=0.01)  # type: ignore[assignment]
    while (what := answers.recv()) != "end":
        if what == "epoch":
            train_epoch(head, batches(bench.groups), optimizer)
        if what == "losses":
            answers.send(losses_of(head, batches(bench.every(name == OURS))).numpy())
        else:
            answers.send(resident_peak_mb())


def measure(folder: Path, *, dim: int, batches: int, rounds: int) -> tuple[Spread, float, list[list[object]]]:
    """Trains both arms in turn at one width; gives the ratio, the largest difference of losses, and table rows."""
    groups = draw_groups(batches)
    indices = sorted({index for arm in groups.values() for group in arm for index in group})
    cache = build_cache(folder / "cache.h5", [Utterance(id=str(index)) for index in indices], dim)
    write_datasets(folder / "usual.h5", cache)
    arms = {name: Arm(serve, name, folder, groups[name]) for name in (OURS, USUAL)}
    gap = float(np.abs(arms[OURS]("losses") - arms[USUAL]("losses")).max())
    rows = {name: frames_and_tokens(UTTERANCES)[:, np.concatenate(groups[name])].sum() for name in arms}
    taken = alternate({name: partial(arm, "epoch") for name, arm in arms.items()}, rounds=rounds)
    seconds = {name: [1000 * one / rows[name] for one in taken[name]] for name in arms}  # the samples differ a little
    table: list[list[object]] = []
    for name, arm in arms.items():
        ratio = speedup(seconds, name, USUAL).text()
        taken_text = Spread.of(seconds[name]).text(3)
        table.append([dim, f"{batches} of {UTTERANCES // BATCH}", name, taken_text, ratio, f"{arm('peak'):,.0f}"])
        arm.end()
    return speedup(seconds, OURS, USUAL), gap, table


def encoder_seconds(audio_s: float) -> float:
    """Times a base-size encoder over so much speech, as it would run in every epoch without gradients."""
    encoder: Any = Wav2Vec2Model(Wav2Vec2Config())
    encoder.eval()
    waveform = torch.randn(1, int(16_000 * min(audio_s, 20.0)))
    with torch.inference_mode():
        encoder(waveform[:, :16_000])
        started = time.perf_counter()
        encoder(waveform)
    return (time.perf_counter() - started) * audio_s / min(audio_s, 20.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--narrow", type=int, default=14, help="batches at width 64")
    parser.add_argument("--wide", type=int, default=3, help="batches at width 768")
    asked = parser.parse_args()
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # in both arms: the machine may be shared
    print(machine_line())
    table: list[list[object]] = []
    verdicts = []
    for dim, batches, target in ((64, asked.narrow, 3.0), (768, asked.wide, 2.5)):
        with TemporaryDirectory() as folder:
            ratio, gap, rows = measure(Path(folder), dim=dim, batches=batches, rounds=asked.rounds)
        table += rows
        verdicts.append(verdict(f"epoch at width {dim}, times the usual practice", ratio.median, at_least=target))
        verdicts.append(verdict(f"largest difference of a loss at width {dim}", gap, at_most=1e-5))
    print_table(("width", "batches", "epoch", "s for 1,000 rows", "times as fast", "peak, MB"), table)
    audio_s = asked.wide * BATCH * MEAN_FRAMES / 50
    added = encoder_seconds(audio_s)
    print(f"running wav2vec2-base in every epoch over the {audio_s:.0f} s of the last rows adds {added:.1f} s to it")
    print(*verdicts, sep="\n")


if __name__ == "__main__":
    main()
