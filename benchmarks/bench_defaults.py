"""Development scores of settings of a head on a cache: the measurement behind the defaults of each kind of stream.

Every setting is trained on every fold of the protocol with every seed. Test subsets are never read. The table has the
mean over folds and seeds of the development scores at the selected epoch, and of the last three epochs, which no
selection raises. A setting is a list of fields as for ``--set``, separated by commas.

    python -m benchmarks.bench_defaults --cache cache/ravdess.h5 --fusion audio --audio mfcc39 --seed 0 --seed 1
      standardize=true,pooling=meanstd,lr=0.003 standardize=true,pooling=max,lr=0.003
"""

import argparse
from collections import defaultdict
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch
from torch.nn import functional

from cache.joined import AnyCache, open_cache
from cli.output import print_table
from fusion.arrays import Indices
from fusion.data.features import BatchSource, CachedFeatures
from fusion.data.pooled import PooledSource
from fusion.data.views import ViewDraw
from fusion.experiment.fields import parse_fields
from fusion.experiment.plan import RunPlan, plan_run
from fusion.experiment.request import ExperimentRequest
from fusion.grid.stacking.stack import stack_key
from fusion.grid.stacking.training import train_stack
from fusion.head import Batch, FittedHead, Head
from fusion.protocols.folds import Fold
from fusion.run.cross_validation import build_and_prepare_head
from fusion.training.checkpoint import EpochScores
from fusion.training.config import TrainConfig
from fusion.training.loop import train_fold
from fusion.training.model import TrainedModel

LAST = 3  # epochs


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The development scores of one model."""

    setting: str
    chosen: EpochScores
    last_ua: float
    epochs: int
    seconds: float


class AveragedRows(PooledSource):
    """Batches in which groups of neighboring rows are averaged, for a faster look at heads that learn over rows.

    Args:
        source: source of the rows.
        rows: number of rows of a group.
    """

    def __init__(self, source: BatchSource, rows: int) -> None:
        super().__init__(source, {}, np.arange(len(source.labels)))
        self.rows = rows

    def batches(
        self, groups: Iterable[Indices], roles: Collection[str], draw: ViewDraw | None = None
    ) -> Generator[Batch]:
        """Yields a batch of averaged rows for each group of indices."""
        for batch in self._source.batches(groups, roles, draw):
            features, masks = {}, {}
            for role, values in batch.features.items():
                short = -values.shape[1] % self.rows
                mask = functional.pad(batch.masks[role], (0, short)).view(len(values), -1, self.rows)
                padded = functional.pad(values, (0, 0, 0, short)).view(len(values), -1, self.rows, values.shape[-1])
                total = padded.masked_fill(~mask[..., None], 0).sum(dim=2)
                features[role] = total / mask.sum(dim=2).clamp(min=1)[..., None]
                masks[role] = mask.any(dim=2)
            yield replace(batch, features=features, masks=masks)


def main() -> None:
    """Trains the settings and prints a table."""
    options = _options()
    cache = open_cache(options.cache)
    results: dict[str, list[Trained]] = defaultdict(list)
    plans = {setting: _plan(options, cache, setting) for setting in options.settings}
    first = next(iter(plans.values()))
    used = [indices for fold in first.split.folds for indices in (fold.train, fold.dev)]
    chosen = np.unique(np.concatenate(used))
    streams = {role: name for plan in plans.values() for role, name in plan.every_stream.items()}
    source = first.features(streams, device=torch.device("cpu"), chosen=chosen, resident_share=0.25)
    folds = [fold for fold in first.split.folds if fold.name in (options.fold or [fold.name])]
    for fold in folds:
        for trained in _train_fold(plans, fold, source, options.seed, options.average):
            results[trained.setting].append(trained)
    header = ["setting", "dev UA", "std", "dev W-F1", f"UA of the last {LAST}", "epochs", "s"]
    print_table(header, [_row(setting, results[setting]) for setting in plans])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="Cache to read.")
    parser.add_argument("--fusion", required=True, help="Name of the head.")
    parser.add_argument("--protocol", help="Protocol; by default that of the corpus.")
    parser.add_argument("--audio", help="Audio stream.")
    parser.add_argument("--text", help="Text stream.")
    parser.add_argument("--average", type=int, default=1, help="Rows that are averaged to one, for speed; 1 for none.")
    parser.add_argument("--fold", action="append", default=[], help="Name of a fold; repeatable; all by default.")
    parser.add_argument("--seed", type=int, action="append", default=[], help="Seed of the models; repeatable.")
    parser.add_argument("settings", nargs="*", default=[""], help="Fields of each setting, FIELD=VALUE[,FIELD=VALUE].")
    options = parser.parse_args()
    options.seed = options.seed or [0]
    return options


def _plan(options: argparse.Namespace, cache: AnyCache, setting: str) -> RunPlan:
    streams = {role: name for role in ("audio", "text") if (name := getattr(options, role))}
    fields = parse_fields(tuple(filter(None, setting.split(","))))
    request = ExperimentRequest(fusion=options.fusion, streams=streams, fields=fields, protocol=options.protocol)
    return plan_run(request.experiment(cache), cache)


def _train_fold(
    plans: dict[str, RunPlan], fold: Fold, source: CachedFeatures, seeds: Sequence[int], average: int
) -> Iterator[Trained]:
    """Trains all settings and seeds on one fold; models that pool first train as stacks."""
    groups: dict[object, list[tuple[str, Head, TrainConfig]]] = defaultdict(list)
    for setting, plan in plans.items():
        for seed in seeds:
            head, _ = build_and_prepare_head(plan, source, fold.train, seed=seed)
            config = replace(plan.experiment.training, seed=seed)
            stacks = head.early_pooling and average == 1 and not isinstance(head, FittedHead)
            groups[stack_key(head, config) if stacks else (setting, seed)].append((setting, head, config))
    read = source if average == 1 else AveragedRows(source, average)
    for members in groups.values():
        heads, configs = [head for _, head, _ in members], [config for *_, config in members]
        if len(members) == 1:
            trained: Sequence[object] = [train_fold(heads[0], read, fold.train, fold.dev, configs[0])]
        else:
            trained = train_stack(heads, source, fold.train, fold.dev, configs)
        for (setting, *_), model in zip(members, trained, strict=True):
            if not isinstance(model, TrainedModel):
                raise SystemExit(f"{setting}: {model}")
            last = mean(scores.dev["ua"] for scores in model.curves[-LAST:])
            best = model.curves[model.best_epoch - 1]
            yield Trained(setting=setting, chosen=best, last_ua=last, epochs=len(model.curves), seconds=model.seconds)


def _row(setting: str, models: Sequence[Trained]) -> list[object]:
    ua = [100 * model.chosen.dev["ua"] for model in models]
    return [
        setting or "(defaults)",
        f"{mean(ua):.1f}",
        f"{stdev(ua):.1f}" if len(ua) > 1 else "-",
        f"{mean(100 * model.chosen.dev['wf1'] for model in models):.1f}",
        f"{mean(100 * model.last_ua for model in models):.1f}",
        f"{mean(model.epochs for model in models):.0f}",
        f"{mean(model.seconds for model in models):.1f}",
    ]


if __name__ == "__main__":
    main()
