"""Calibration: trains a few real batches in each placement on the device and selects the fastest.

The fastest placement cannot be predicted: it depends on the device, the width of the heads and the load of the machine.
The measured rate also gives the estimate of memory, disk space and time of a grid before it starts.
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
from fusion.data.pooled import pooled_once
from fusion.grid.combinations import Model
from fusion.grid.engine.placement import ALONE, Placement, StackGroups, footprint_of, threads_of
from fusion.grid.engine.sources import Sources
from fusion.grid.engine.train import build_model
from fusion.grid.journal import Journal
from fusion.grid.stacking.training import train_stack
from fusion.head import Head
from fusion.training.config import TrainConfig
from fusion.training.loop import train_fold

BATCHES = 3  # timed steps of each model, after one step that is not timed
ROUNDS = 2
WORTH = 25  # ratio of the steps of a grid to those of a calibration; below it, models train in threads uncalibrated
BETTER = 1.15  # speed over single models that a placement must reach: these need the least memory, and timings vary
HOPELESS = 0.75  # share of the best rate below which a placement is not measured again
SMALL_STACK = 4  # models of a stack where each thread trains a stack


@dataclass(frozen=True, kw_only=True)
class CostEstimate:
    """Estimated memory, disk space and time of a grid.

    Attributes:
        models: number of models of all combinations, folds and seeds.
        known: number of models that the journal holds already.
        features_bytes: size of all features.
        model_bytes: memory of the training of the largest model.
        disk_bytes: size of the weights of the remaining models.
        seconds: training time without early stopping; 0 without remaining models.
        placement: how the models share the device, as text; empty without remaining models.
    """

    models: int
    known: int
    features_bytes: int
    model_bytes: int
    disk_bytes: int
    seconds: float
    placement: str


def estimate_cost(models: Sequence[Model], sources: Sources, journal: Journal) -> CostEstimate:
    """Estimates what a grid takes on the device by a short calibration; stores nothing.

    Args:
        models: all models of the grid.
        sources: features of the models.
        journal: may hold some of the models already.
    """
    by_key = {model.key: model for model in models}
    missing = [model for model in by_key.values() if not journal.holds(model)]
    by_plan = {id(model.combination.plan): model for model in missing}
    footprints = {plan: footprint_of(model, sources.of(model.combination.plan)) for plan, model in by_plan.items()}
    rate, placement = math.inf, ""
    if missing:
        calibration = calibrate(StackGroups(missing, sources, stacking=True), sources)
        rate, placement = calibration.rates.get(calibration.placement, math.inf), str(calibration)
    return CostEstimate(
        models=len(by_key),
        known=len(by_key) - len(missing),
        features_bytes=sources.size_bytes,
        model_bytes=max((footprint.size_bytes for footprint in footprints.values()), default=0),
        disk_bytes=sum(footprints[id(model.combination.plan)].parameters for model in missing),
        seconds=sum(model.training.epochs * steps_of(model) for model in missing) / rate,
        placement=placement,
    )


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The measured rates of several placements.

    Attributes:
        placement: the placement to use.
        rates: steps of single models per second, by placement; 0 where the memory did not suffice.
    """

    placement: Placement
    rates: dict[Placement, float]

    def __str__(self) -> str:
        rates = ", ".join(f"{placement} {rate:.1f}" for placement, rate in self.rates.items())
        return f"{self.placement} by a trial (steps per second: {rates})"


def calibrate(groups: StackGroups, sources: Sources) -> Calibration:
    """Measures each placement that suits the largest group of models.

    Args:
        groups: the models to train.
        sources: features of the models.
    """
    source = sources.of(groups.largest[0].combination.plan)
    run = _CalibrationRun(groups.largest, source)
    rates: dict[Placement, float] = {}
    for _ in range(ROUNDS):  # in turn, and the best rate of each: other processes can only slow a placement down
        for placement in candidates(groups, source.device):
            if rates.get(placement, math.inf) < HOPELESS * max(rates.values(), default=0.0):
                continue
            try:
                rates[placement] = max(rates.get(placement, 0.0), run.rate(placement))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                rates[placement] = 0.0
    best = max(rates, key=lambda placement: rates[placement], default=ALONE)
    if ALONE in rates and rates[best] < BETTER * rates[ALONE]:
        best = ALONE
    return Calibration(placement=best, rates=rates)


def candidates(groups: StackGroups, device: torch.device) -> list[Placement]:
    """Lists the placements to measure: single models, threads, one stack, small stacks in threads."""
    models, threads = groups.largest, threads_of(device)
    largest = min(len(models), groups.capacity(models[0])) if len(models) > 1 else 1
    possible = [ALONE, Placement(1, threads), Placement(largest, 1), Placement(SMALL_STACK, threads)]
    return list(
        dict.fromkeys(
            placement
            for placement in possible
            if placement.stack * placement.threads <= max(len(models), placement.threads) and placement.stack <= largest
        )
    )


def worth_calibrating(models: Sequence[Model], device: torch.device) -> bool:
    """Checks whether a calibration takes only a small share of the training."""
    steps = sum(model.training.epochs * steps_of(model) for model in models)
    threads = threads_of(device)
    calibration_steps = ROUNDS * (BATCHES + 1) * (1 + threads + len(models) + SMALL_STACK * threads)
    return steps > WORTH * calibration_steps


def steps_of(model: Model) -> int:
    """Returns the number of batches in an epoch of a model."""
    return max(1, round(len(model.fold.train) / model.training.batch_size))


@contextmanager
def shared_cores(threads: int) -> Iterator[None]:
    """Divides the cores of torch among threads that train in parallel."""
    cores = torch.get_num_threads()
    torch.set_num_threads(max(1, cores // threads))
    try:
        yield
    finally:
        torch.set_num_threads(cores)


class _CalibrationRun:
    """Models of one group on a few training utterances, drawn at random so that their lengths are typical."""

    def __init__(self, models: Sequence[Model], source: CachedFeatures) -> None:
        self.models = models
        first, size = models[0], models[0].training.batch_size
        drawn = np.random.default_rng(first.training.data_seed).permutation(first.fold.train)
        self.train = drawn[: BATCHES * size]
        self.warmup = drawn[:size]
        self.dev = first.fold.dev[:1]
        plan, fold = models[0].combination.plan, models[0].fold
        self.source = plan.with_targets(source, fold.train, fold.name)
        self.task = plan.task_of(fold.train, fold.name)
        self.heads: dict[int, Head] = {}
        used, precision = np.concatenate([self.train, self.dev]), first.training.precision
        pooled_once([self._head(0).to(source.device)], self.source, used, precision=precision)  # once, as a grid does

    def rate(self, placement: Placement) -> float:
        """Measures the steps of single models per second."""
        size = placement.stack
        stacks = [range(thread * size, (thread + 1) * size) for thread in range(placement.threads)]
        with shared_cores(placement.threads), ThreadPoolExecutor(placement.threads) as pool:
            self._run(pool, stacks, self.warmup)
            started = time.perf_counter()
            self._run(pool, stacks, self.train)
            seconds = time.perf_counter() - started
        steps = max(1, round(len(self.train) / self.models[0].training.batch_size))
        return size * placement.threads * steps / seconds

    def _run(self, pool: ThreadPoolExecutor, stacks: Sequence[Sequence[int]], train: Indices) -> None:
        """Trains each stack, given by indices of models, in a thread of its own."""
        built = [([self._head(index) for index in stack], [self._config(index) for index in stack]) for stack in stacks]
        for future in [pool.submit(self._train, heads, configs, train) for heads, configs in built]:
            future.result()
        if self.source.device.type == "cuda":
            torch.cuda.synchronize(self.source.device)

    def _train(self, heads: Sequence[Head], configs: Sequence[TrainConfig], train: Indices) -> None:
        task = self.task
        if len(heads) == 1:
            train_fold(heads[0], self.source, train, self.dev, configs[0], task=task)
        else:
            train_stack(heads, self.source, train, self.dev, configs, task=task)

    def _head(self, index: int) -> Head:
        index %= len(self.models)  # threads may be more than models
        if index not in self.heads:
            self.heads[index], _ = build_model(self.models[index], self.source)
        return deepcopy(self.heads[index])

    def _config(self, index: int) -> TrainConfig:
        return replace(self.models[index % len(self.models)].training, epochs=1, warmup=0.0, warmup_steps=0)
