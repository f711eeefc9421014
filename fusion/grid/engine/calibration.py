"""A short trial on the device at hand: a few real batches in each layout, and the fastest is taken.

Which is fastest cannot be guessed: it turns on the device, the width, and what else the machine does.

What a grid will take, before it is started.
"""

import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch

from fusion.arrays import Indices
from fusion.data.features import CachedFeatures
from fusion.data.memory import is_out_of_memory
from fusion.grid.combinations import Model
from fusion.grid.engine.placement import ALONE, Placement, StackGroups, footprint_of, threads_of
from fusion.grid.engine.sources import Sources
from fusion.grid.engine.train import prepared
from fusion.grid.journal import Journal
from fusion.grid.stacking.training import train_stack
from fusion.head import Head
from fusion.training.config import TrainConfig
from fusion.training.loop import train_fold

BATCHES = 3  # each model takes so many steps, after one that nobody times
ROUNDS = 2
WORTH = 25  # times the trial's own steps: with less to train, threads are taken unseen
BETTER = 1.15  # times as fast as one model after another, or that stays: it needs the least memory, and trials err
HOPELESS = 0.75  # of the best rate: what is slower is not tried again
FEW = 4  # models of a small stack, of which threads train one each


@dataclass(frozen=True, kw_only=True)
class CostEstimate:
    """What a grid will take.

    Attributes:
        models: of all combinations, folds and seeds.
        known: of them, those that the journal holds.
        features_bytes: of all features that are read.
        model_bytes: that the training of the largest model takes.
        disk_bytes: that the weights of the models left to train take.
        seconds: of training, if no model stops early; 0 where nothing is left.
        layout: how they will be trained, in words.
    """

    models: int
    known: int
    features_bytes: int
    model_bytes: int
    disk_bytes: int
    seconds: float
    layout: str


def estimate_cost(models: Sequence[Model], sources: Sources, journal: Journal) -> CostEstimate:
    """Measures what a grid will take on the device at hand, by a short trial; nothing is kept.

    Args:
        models: of the grid.
        sources: of their features.
        journal: that may hold some of them.
    """
    every = {model.key: model for model in models}
    left = [model for model in every.values() if not journal.holds(model)]
    by_plan = {id(model.combination.plan): model for model in left}
    footprints = {plan: footprint_of(model, sources.of(model.combination.plan)) for plan, model in by_plan.items()}
    rate, layout = math.inf, ""
    if left:
        trial = calibrate(StackGroups(left, sources, stacking=True), sources)
        rate, layout = trial.rates.get(trial.layout, math.inf), str(trial)
    return CostEstimate(
        models=len(every),
        known=len(every) - len(left),
        features_bytes=sources.size_bytes,
        model_bytes=max((one.size_bytes for one in footprints.values()), default=0),
        disk_bytes=sum(footprints[id(model.combination.plan)].parameters for model in left),
        seconds=sum(model.training.epochs * steps_of(model) for model in left) / rate,
        layout=layout,
    )


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What a trial found.

    Attributes:
        layout: the one to take.
        rates: steps of one model in a second, by layout.
    """

    layout: Placement
    rates: dict[Placement, float]

    def __str__(self) -> str:
        told = ", ".join(f"{layout} {rate:.1f}" for layout, rate in self.rates.items())
        return f"{self.layout} by a trial (steps per second: {told})"


def calibrate(grouping: StackGroups, sources: Sources) -> Calibration:
    """Measures each layout that suits the largest group of models.

    Args:
        grouping: of the models that are left to train.
        sources: of their features.
    """
    group, source = grouping.largest, sources.of(grouping.largest[0].combination.plan)
    trial = _Trial(group, source)
    rates: dict[Placement, float] = {}
    for _ in range(ROUNDS):  # by turns, and the best of each: what else the machine does only slows one down
        for layout in candidates(grouping, source.device):
            if rates.get(layout, math.inf) < HOPELESS * max(rates.values(), default=0.0):
                continue
            try:
                rates[layout] = max(rates.get(layout, 0.0), trial.rate(layout))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                rates[layout] = 0.0
    best = max(rates, key=lambda layout: rates[layout], default=ALONE)
    if ALONE in rates and rates[best] < BETTER * rates[ALONE]:
        best = ALONE
    return Calibration(layout=best, rates=rates)


def candidates(grouping: StackGroups, device: torch.device) -> list[Placement]:
    """Names the layouts worth a trial: one after another, threads, one stack, small stacks in threads."""
    group, threads = grouping.largest, threads_of(device)
    most = min(len(group), grouping.room(group[0])) if len(group) > 1 else 1
    asked = [ALONE, Placement(1, threads), Placement(most, 1), Placement(FEW, threads)]
    fitting = [one for one in asked if one.stack * one.threads <= max(len(group), one.threads) and one.stack <= most]
    return list(dict.fromkeys(fitting))


def worth_a_trial(models: Sequence[Model], device: torch.device) -> bool:
    """Tells whether there is so much to train that a trial costs little of it."""
    steps = sum(model.training.epochs * steps_of(model) for model in models)
    threads = threads_of(device)
    own = ROUNDS * (BATCHES + 1) * (1 + threads + len(models) + FEW * threads)
    return steps > WORTH * own


def steps_of(model: Model) -> int:
    """Gives the batches of one epoch of a model."""
    return max(1, round(len(model.fold.train) / model.training.batch_size))


@contextmanager
def shared_cores(threads: int) -> Iterator[None]:
    """Divides the cores that torch computes with among threads that train side by side."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before // threads))
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Trial:
    """Models of one group, on a few utterances drawn at random, so that their lengths are those of all."""

    def __init__(self, models: Sequence[Model], source: CachedFeatures) -> None:
        self.models, self.source = models, source
        first, size = models[0], models[0].training.batch_size
        drawn = np.random.default_rng(first.training.data_seed).permutation(first.fold.train)
        self.train = drawn[: BATCHES * size]
        self.warm = drawn[:size]
        self.dev = first.fold.dev[:1]
        self.heads: dict[int, Head] = {}

    def rate(self, layout: Placement) -> float:
        """Gives the steps of one model in a second."""
        places = [[thread * layout.stack + place for place in range(layout.stack)] for thread in range(layout.threads)]
        with shared_cores(layout.threads), ThreadPoolExecutor(layout.threads) as pool:
            self._run(pool, places, self.warm)
            began = time.perf_counter()
            self._run(pool, places, self.train)
            seconds = time.perf_counter() - began
        steps = max(1, round(len(self.train) / self.models[0].training.batch_size))
        return layout.stack * layout.threads * steps / seconds

    def _run(self, pool: ThreadPoolExecutor, places: Sequence[Sequence[int]], train: Indices) -> None:
        built = [([self._head(place) for place in one], [self._config(place) for place in one]) for one in places]
        for waited in [pool.submit(self._train, heads, configs, train) for heads, configs in built]:
            waited.result()
        if self.source.device.type == "cuda":
            torch.cuda.synchronize(self.source.device)

    def _train(self, heads: Sequence[Head], configs: Sequence[TrainConfig], train: Indices) -> None:
        task = self.models[0].combination.plan.task
        if len(heads) == 1:
            train_fold(heads[0], self.source, train, self.dev, configs[0], task=task)
        else:
            train_stack(heads, self.source, train, self.dev, configs, task=task)

    def _head(self, place: int) -> Head:
        place %= len(self.models)
        if place not in self.heads:
            self.heads[place], _ = prepared(self.models[place], self.source)
        return deepcopy(self.heads[place])

    def _config(self, place: int) -> TrainConfig:
        return replace(self.models[place % len(self.models)].training, epochs=1, warmup=0.0)
