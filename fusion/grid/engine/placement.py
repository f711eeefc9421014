"""How models share a device: side by side in threads, or as stacks; chosen by a short trial where it is not told.

How much memory the training of one model takes, measured on its longest batch before anything is stacked.
"""

import os
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from fusion.data.batches import scoring_batches
from fusion.data.features import CachedFeatures
from fusion.data.memory import memory_budget
from fusion.evaluation.task import Task
from fusion.experiment.plan import build
from fusion.grid.combinations import Model
from fusion.grid.engine.sources import Sources
from fusion.grid.engine.train import BUILDING, prepared
from fusion.grid.stacking.stack import stack_key, unstackable
from fusion.head import Batch, Head
from fusion.training.steps import TOTAL, total_loss

COPIES = 7  # of the parameters: themselves, gradients twice, two moments, the best epoch, room for one more
WORKING = 2  # times what the backward pass keeps: gradients of activations, temporaries
SHARE = 0.5  # of the memory that is left beside the features
AUTO, FUSED, SHARED = "auto", "fused", "shared"
MOST_STACKED = 64  # models: beyond that a GPU gains little, and a failure costs much
GPU_THREADS = 4


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What the training of one model takes.

    Attributes:
        parameters: bytes of those that are trained.
        activations: bytes that the longest batch keeps for the backward pass.
    """

    parameters: int
    activations: int

    @property
    def size_bytes(self) -> int:
        """All of it, an estimate from above."""
        return COPIES * self.parameters + WORKING * self.activations


def footprint_of(model: Model, source: CachedFeatures) -> Footprint:
    """Measures what the training of a model takes; nothing is trained."""
    head, _ = prepared(model, source)
    head.to(source.device)
    head.train()
    roles = head.training_reads
    costs = source.lengths(model.fold.train, roles)
    longest = scoring_batches(costs, batch_size=model.training.batch_size)[0]
    batch = source.batch(model.fold.train[longest], roles)
    return Footprint(
        parameters=sum(one.nbytes for one in head.parameters() if one.requires_grad),
        activations=_kept_bytes(head, batch, model.combination.plan.task),
    )


def room_for(footprint: Footprint, source: CachedFeatures) -> int:
    """Tells how many models fit in memory beside the features at a time; at least one is tried."""
    budget = memory_budget(source.device, SHARE)
    if source.device.type != "cuda" and source.resident:
        budget -= int(SHARE * source.size_bytes)  # there all memory counts, free or not
    return max(1, budget // max(1, footprint.size_bytes))


@dataclass(frozen=True)
class Placement:
    """How many models are trained at a time.

    Attributes:
        stack: models of a stack, at most; 1 for none.
        threads: that train side by side.
    """

    stack: int
    threads: int

    def __str__(self) -> str:
        models = f"stacks of {self.stack}" if self.stack > 1 else "single models"
        return models if self.threads == 1 else f"{models} in {self.threads} threads"


ALONE = Placement(1, 1)


def threads_of(device: torch.device) -> int:
    """Gives the threads that models may be trained in: one for each core, a few on a GPU."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores if device.type == "cpu" else min(GPU_THREADS, cores)


class StackGroups:
    """Which models may share a stack.

    Args:
        models: to be trained.
        sources: of their features.
        stacking: whether any may; if not, none is built to find out.
    """

    def __init__(self, models: Sequence[Model], sources: Sources, *, stacking: bool) -> None:
        self.sources = sources
        self._keys: dict[int, tuple[Hashable, str]] = {}
        self.reasons: set[str] = set()
        groups: dict[Hashable, list[Model]] = defaultdict(list)
        for model in models:
            groups[self._group(model) if stacking else model.key].append(model)
        self.groups: Mapping[Hashable, list[Model]] = groups

    @property
    def largest(self) -> list[Model]:
        """The models of the largest group, the most that one stack could have."""
        return max(self.groups.values(), key=len)

    def units(self, layout: Placement) -> list[list[Model]]:
        """Cuts every group into stacks of even size, no larger than asked for and than memory allows."""
        return [unit for group in self.groups.values() for unit in _even(group, self._most(group, layout))]

    def _most(self, group: Sequence[Model], layout: Placement) -> int:
        most = min(layout.stack, len(group))
        return most if most == 1 else min(most, max(1, self.room(group[0]) // layout.threads))

    def room(self, model: Model) -> int:
        """Tells how many such models fit in memory at a time."""
        source = self.sources.of(model.combination.plan)
        return min(MOST_STACKED, room_for(footprint_of(model, source), source))

    def _group(self, model: Model) -> Hashable:
        """Names the group of a model: its features, its fold and its structure."""
        plan = model.combination.plan
        place = self.sources.place(plan)
        if id(plan) not in self._keys:
            with BUILDING:
                head = build(plan, seed=model.seed)
            self._keys[id(plan)] = stack_key(head, model.training), unstackable(head, model.training)
        key, reason = self._keys[id(plan)]
        if reason:
            self.reasons.add(reason)
            return model.key
        return place, plan.identity["folds"][model.fold.name], key


def _kept_bytes(head: Head, batch: Batch, task: Task) -> int:
    """Counts what a forward pass keeps, parameters and features apart."""
    held = {one.untyped_storage().data_ptr() for one in [*head.state_dict().values(), *batch.features.values()]}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in held:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = head(batch)
        losses = total_loss(output, batch.labels, head.config.loss_weights, task=task)
    total = sum(kept.values())
    del losses[TOTAL]
    return total


def _even(models: Sequence[Model], most: int) -> list[list[Model]]:
    """Cuts models into as few parts as may be, of sizes that differ by one at most."""
    parts = -(-len(models) // most)
    firsts = [round(part * len(models) / parts) for part in range(parts + 1)]
    return [list(models[first:end]) for first, end in pairwise(firsts)]
