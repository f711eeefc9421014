"""The learned sum of all layers against each single layer, by development scores of head ``audio``.

The cache has a stream of all layers (``@all``) and one of the last layer. The mean over frames and the sum over layers
commute, so every arm trains on the mean of each layer over the frames of an utterance, read once. All arms have the
same folds, seeds and settings; test subsets are never read. Claim: the learned sum is not below the best single layer
by more than the spread over seeds.

    python -m benchmarks.bench_layers --cache cache/ravdess.h5 --stream whisper-tiny.en --seed 0 --seed 1 --seed 2
"""

import argparse
from collections.abc import Collection, Generator, Iterable
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks.support.measure import machine_line, verdict
from cache.joined import AnyCache, open_cache
from cli.output import print_table
from fusion.arrays import Indices
from fusion.data.batches import scoring_batches
from fusion.data.features import BatchSource
from fusion.data.pooled import PooledSource
from fusion.data.views import ViewDraw
from fusion.experiment.plan import RunPlan, build_model, plan_run
from fusion.experiment.request import ExperimentRequest
from fusion.head import Batch
from fusion.head_config import AUDIO
from fusion.nn.layers import learn_scales
from fusion.training.loop import train_fold

SUM = "learned sum"
FIELDS = {"pooling": "mean", "standardize": True}


class MeanRows(PooledSource):
    """Batches with one row for each utterance.

    Args:
        source: source of the labels.
        rows: float32 ``(utterances, ...)``.
    """

    def __init__(self, source: BatchSource, rows: Tensor) -> None:
        super().__init__(source, {}, np.arange(len(source.labels)))
        self.rows = rows

    def lengths(self, indices: Indices, roles: Collection[str]) -> Indices:
        """Returns 1 for each utterance."""
        return np.ones(len(indices), dtype=np.int64)

    def batches(
        self, groups: Iterable[Indices], roles: Collection[str], draw: ViewDraw | None = None
    ) -> Generator[Batch]:
        """Yields a batch for each group of indices."""
        for indices in groups:
            on_device = torch.from_numpy(indices)
            present = torch.ones(len(indices), 1, dtype=torch.bool)
            yield Batch(
                features={AUDIO: self.rows[on_device][:, None]},
                masks={AUDIO: present},
                labels=self._targets[on_device],
                indices=on_device,
            )


class MeanSubset:
    """The training subset of a fold, a `fusion.head_config.TrainingRows`.

    Args:
        source: rows of all utterances.
        indices: indices of the training utterances, int64 ``(n,)``.
    """

    def __init__(self, source: MeanRows, indices: Indices) -> None:
        self._rows, self.labels = source.rows[torch.from_numpy(indices)].numpy(), source.labels[indices]

    def __len__(self) -> int:
        return len(self.labels)

    def text(self, index: int) -> str:
        """Returns an empty transcript."""
        return ""

    def length(self, role: str, index: int) -> int:
        """Returns 1."""
        return 1

    def rows(self, role: str, index: int) -> npt.NDArray[Any]:
        """Returns the row of one utterance of the subset, ``(1, ...)``."""
        row: npt.NDArray[Any] = self._rows[index][None]
        return row


def main() -> None:
    """Trains all arms and prints a table."""
    options = _options()
    print(machine_line())
    cache = open_cache(options.cache)
    whole, single = (_plan(cache, options, name) for name in (f"{options.stream}@all", options.stream))
    used = np.unique(np.concatenate([part for fold in whole.split.folds for part in (fold.train, fold.dev)]))
    source = whole.features(
        {AUDIO: f"{options.stream}@all"}, device=torch.device("cpu"), chosen=used, resident_share=0.25
    )
    rows = _means(source, used, len(cache))
    sources = {SUM: (whole, MeanRows(source, rows))}
    sources |= {f"layer {layer}": (single, MeanRows(source, rows[:, layer])) for layer in range(rows.shape[1])}
    scores = {arm: _dev_scores(plan, read, options.seed) for arm, (plan, read) in sources.items()}
    table = [
        [arm, f"{mean(ua):.1f}", f"{stdev(ua):.1f}", " ".join(f"{one:.1f}" for one in ua)] for arm, ua in scores.items()
    ]
    print_table(["arm", "dev UA", "std over seeds", "seeds"], table)
    best = max((arm for arm in scores if arm != SUM), key=lambda arm: mean(scores[arm]))
    difference = mean(scores[SUM]) - mean(scores[best])
    name = f"learned sum over the best single layer ({best}), points of dev UA"
    print(verdict(name, difference, at_least=-stdev(scores[best])))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="Cache to read.")
    parser.add_argument("--stream", required=True, help="Stream of the last layer; NAME@all must be there too.")
    parser.add_argument("--seed", type=int, action="append", default=[], help="Seed of the models, two or more.")
    return parser.parse_args()


def _plan(cache: AnyCache, options: argparse.Namespace, stream: str) -> RunPlan:
    request = ExperimentRequest(fusion="audio", streams={AUDIO: stream}, fields=FIELDS)
    return plan_run(request.experiment(cache), cache)


def _means(source: BatchSource, used: Indices, utterances: int) -> Tensor:
    """Returns the mean of each layer over the frames, float32 ``(utterances, layers, dim)``."""
    groups = [used[group] for group in scoring_batches(source.lengths(used, [AUDIO]), batch_size=16)]
    means: Tensor | None = None
    for batch in source.batches(groups, [AUDIO]):
        mask = batch.masks[AUDIO][..., None, None]
        found = (batch.features[AUDIO] * mask).sum(dim=1) / mask.sum(dim=1)
        means = torch.zeros(utterances, *found.shape[1:]) if means is None else means
        means[batch.indices] = found
    assert means is not None
    return means


def _dev_scores(plan: RunPlan, source: MeanRows, seeds: Iterable[int]) -> list[float]:
    """Returns the mean over folds of the dev UA in percent, for each seed."""
    scores = []
    for seed in seeds:
        of_folds = []
        for fold in plan.split.folds:
            head = build_model(plan, seed=seed)
            learn_scales(head, MeanSubset(source, fold.train))
            config = replace(plan.experiment.training, seed=seed)
            of_folds.append(100 * train_fold(head, source, fold.train, fold.dev, config).dev["ua"])
        scores.append(mean(of_folds))
    return scores


if __name__ == "__main__":
    main()
