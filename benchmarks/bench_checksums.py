"""Checksums of the rows that a training reads, against its first epoch.

Claim: comparing every row with its checksum takes less than 5% of the first epoch of ``rescmfa``. The lightest head of
the catalog, ``concat``, is measured as well, without a target: its epoch is hardly more than the reading of the rows.

The cache is shaped like IEMOCAP at full width (768). An epoch is a sample of its batches, trained from rows that are
read as needed. Arms run in turn in one process: an epoch without checks, an epoch with them, and the checks alone.
Run it by ``python -m benchmarks.bench_checksums``.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from benchmarks.support.iemocap import CLASSES, OURS, STREAMS, build_cache, draw_groups
from benchmarks.support.measure import Spread, alternate, machine_line, verdict
from benchmarks.support.usual import train_epoch
from cache.store import FeatureCache
from cache.utterance import Utterance
from cli.output import print_table
from fusion.arrays import Indices
from fusion.data.features import CachedFeatures
from fusion.head import Head
from fusion.head_config import HeadInputs
from fusion.heads.build import build_head
from fusion.heads.catalog import config_for
from fusion.training.steps import build_optimizer

HEADS = ("rescmfa", "concat")
WITHOUT, WITH, ALONE = "epoch without checks", "epoch with checks", "checks alone"
TARGET = 0.05  # share of the first epoch


def open_features(path: Path) -> CachedFeatures:
    """Opens the cache as a new run does: no row is checked yet."""
    cache = FeatureCache(path)
    return CachedFeatures(cache, STREAMS, np.zeros(len(cache), np.int64), resident_bytes=0)


def check_all(path: Path) -> CachedFeatures:
    """Checks all rows of the cache."""
    source = open_features(path)
    for role in STREAMS:
        source.check_rows(role, source.chosen)
    return source


def train(head: Head, source: CachedFeatures, groups: Sequence[Indices]) -> None:
    """Trains for one epoch on rows that are read as needed."""
    train_epoch(head, source.batches(groups), build_optimizer(head, name="adamw", lr=1e-4, weight_decay=0.01))


def measure(path: Path, name: str, groups: Sequence[Indices], rounds: int) -> dict[str, list[float]]:
    """Returns the seconds of each arm with one head."""
    shapes = {role: FeatureCache(path).stream(stream).spec.shape for role, stream in STREAMS.items()}
    head: Any = build_head(name, config_for(name, {}), HeadInputs(classes=tuple(CLASSES), shapes=shapes), seed=0)
    checked = check_all(path)  # its rows are not checked again
    arms: dict[str, Callable[[], object]] = {
        WITHOUT: lambda: train(head, checked, groups),
        WITH: lambda: train(head, open_features(path), groups),
        ALONE: partial(check_all, path),
    }
    return alternate(arms, rounds=rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=6, help="batches of 32 utterances in an epoch")
    options = parser.parse_args()
    print(machine_line())
    print(f"torch threads {torch.get_num_threads()}, {options.rounds} rounds")
    sampled = draw_groups(options.batches)[OURS]
    indices = sorted({index for group in sampled for index in group})
    position = {index: number for number, index in enumerate(indices)}
    groups = [np.array([position[index] for index in group]) for group in sampled]
    shares: dict[str, float] = {}
    table: list[list[object]] = []
    with TemporaryDirectory() as folder:
        path = Path(folder) / "cache.h5"
        build_cache(path, [Utterance(id=str(index)) for index in indices], 768)
        size_mb = path.stat().st_size / 1e6
        for name in HEADS:
            seconds = measure(path, name, groups, options.rounds)
            pairs = zip(seconds[ALONE], seconds[WITHOUT], strict=True)
            share = Spread.of([checks / epoch for checks, epoch in pairs])
            shares[name] = share.median
            table.append([name, *(Spread.of(seconds[arm]).text(3) for arm in (WITHOUT, WITH, ALONE)), share.text(3)])
    print(f"{len(indices)} utterances, {size_mb:.0f} MB")
    print_table(("head", f"{WITHOUT}, s", f"{WITH}, s", f"{ALONE}, s", "checks as a share"), table)
    print(verdict("checks as a share of the first epoch of rescmfa", shares["rescmfa"], at_most=TARGET))


if __name__ == "__main__":
    main()
