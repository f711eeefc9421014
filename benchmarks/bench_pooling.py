"""Epochs from vectors that were pooled once, against epochs that pool all rows again.

Claim: a step of ``audio`` over mean and deviation of frozen features, which the two arms run on the same batches, is at
least 10 times as fast from vectors; weights agree to rounding. The cost of pooling once is printed as a number of
epochs from rows. Run it by ``python -m benchmarks.bench_pooling``; the cache has the shape of IEMOCAP.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import torch

from benchmarks.support.iemocap import build_cache
from benchmarks.support.measure import Spread, alternate, machine_line, speedup, verdict
from cache.joined import open_cache
from cache.utterance import Utterance
from cli.output import print_table
from fusion.arrays import Indices
from fusion.data.features import BatchSource, CachedFeatures, TrainingSubset
from fusion.data.pooled import pooled_once
from fusion.head import Head
from fusion.head_config import AUDIO, HeadInputs
from fusion.heads.build import build_head
from fusion.heads.catalog import config_for
from fusion.nn.layers import learn_scales
from fusion.training import loop
from fusion.training.config import TrainConfig
from fusion.training.model import TrainedModel

CLASSES = ("ang", "hap", "neu", "sad")
DIM = 768
LEAST, MOST_DIFFERENCE = 10.0, 1e-3
FIELDS = {"standardize": True, "pooling": "meanstd"}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="Rounds of each arm.")
    parser.add_argument("--utterances", type=int, default=600, help="Utterances of the cache.")
    parser.add_argument("--epochs", type=int, default=3, help="Epochs of a training.")
    options = parser.parse_args()
    print(machine_line())
    with TemporaryDirectory() as folder:
        bench = Bench(Path(folder), options.utterances, options.epochs)
        bench.run(options.rounds)


class Bench:
    """A cache of noise, and trainings of one head on it."""

    def __init__(self, folder: Path, utterances: int, epochs: int) -> None:
        build_cache(folder / "cache.h5", [Utterance(id=str(index)) for index in range(utterances)], DIM)
        cache = open_cache(folder / "cache.h5")
        name = next(name for name, stream in cache.streams.items() if stream.spec.role == AUDIO)
        labels = np.random.default_rng(0).integers(0, len(CLASSES), len(cache))
        self.source = CachedFeatures(cache, {AUDIO: name}, labels)
        self.inputs = HeadInputs(classes=CLASSES, shapes={AUDIO: cache.stream(name).spec.shape})
        self.train, self.dev = np.arange(0, utterances - 32), np.arange(utterances - 32, utterances)
        self.config = TrainConfig(epochs=epochs, patience=epochs, lr=3e-3)

    def run(self, rounds: int) -> None:
        """Runs both arms in turn and prints their seconds, the ratio and the difference of weights."""
        pooled_after = self.fit(once=True)
        rows_after = self.fit(once=False)
        difference = max(
            float((pooled_after.weights[name] - tensor).abs().max()) for name, tensor in rows_after.weights.items()
        )
        self.source.memo.clear()
        started = time.perf_counter()
        self.pool()
        pooling_s = time.perf_counter() - started
        arms: dict[str, Callable[[], object]] = {
            "vectors": lambda: self.fit(once=True),
            "rows": lambda: self.fit(once=False),
        }
        seconds = alternate(arms, rounds=rounds)
        epochs = self.config.epochs
        rows = [[name, Spread.of([value / epochs for value in taken]).text(3)] for name, taken in seconds.items()]
        print_table(["epochs from", "seconds of an epoch, dev included"], rows)
        ratio = speedup(seconds, "vectors", "rows")
        of_rows = pooling_s / (Spread.of(seconds["rows"]).median / epochs)
        print(f"times as fast from vectors: {ratio.text(1)}")
        print(f"pooling all utterances once: {pooling_s:.2f} s, {of_rows:.1f} epochs from rows")
        print(verdict("times as fast from vectors", ratio.median, at_least=LEAST))
        print(verdict("largest difference of a weight", difference, at_most=MOST_DIFFERENCE))

    def pool(self) -> BatchSource:
        """Pools every utterance."""
        used = np.concatenate([self.train, self.dev])
        return pooled_once([self.head()], self.source, used, precision="float32")

    def head(self) -> Head:
        """Builds the head with the scales of the training subset."""
        head = build_head("audio", config_for("audio", FIELDS), self.inputs, seed=0)
        subset = TrainingSubset(self.source, self.train)
        learn_scales(head, subset, subset.scales)
        return head

    def fit(self, *, once: bool) -> TrainedModel:
        """Trains the head from vectors, or from rows."""
        with patch.object(loop, "pooled_once", pooled_once if once else _rows):
            return loop.train_fold(self.head(), self.source, self.train, self.dev, replace(self.config, seed=0))


def _rows(heads: list[Head], source: BatchSource, indices: Indices, *, precision: str) -> BatchSource:
    """Returns the source itself: every epoch pools its rows."""
    return source


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
