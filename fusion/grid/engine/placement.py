"""Placement of models on a device: how many train at a time, in threads or as stacks that fit in memory.

The memory of one model is measured on its longest batch before models are stacked.
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
from fusion.grid.engine.train import BUILD_LOCK, build_model
from fusion.grid.stacking.stack import stack_key, unstackable_reason
from fusion.head import Batch, Head
from fusion.training.steps import TOTAL, total_loss

COPIES = 7  # of the parameters: values, gradients twice, two moments, the best epoch, one in reserve
ACTIVATION_COPIES = 2  # of what the backward pass keeps: values, and their gradients with temporaries
MEMORY_SHARE = 0.5  # of the memory that the features leave free
AUTO, FUSED, SHARED = "auto", "fused", "shared"
MAX_STACK = 64  # models: a GPU gains little beyond that, and a failure costs more
GPU_THREADS = 4


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Memory that the training of one model needs.

    Attributes:
        parameters: size of the trained parameters in bytes.
        activations: bytes that the longest batch keeps for the backward pass.
    """

    parameters: int
    activations: int

    @property
    def size_bytes(self) -> int:
        """Upper estimate of the whole memory in bytes."""
        return COPIES * self.parameters + ACTIVATION_COPIES * self.activations


def footprint_of(model: Model, source: CachedFeatures) -> Footprint:
    """Measures the memory that the training of a model needs, without training it."""
    head, _ = build_model(model, source)
    head.to(source.device)
    head.train()
    roles, fold, plan = head.training_reads, model.fold, model.combination.plan
    source = plan.with_targets(source, fold.train, fold.name)
    lengths = source.lengths(model.fold.train, roles)
    longest = scoring_batches(lengths, batch_size=model.training.batch_size)[0]
    batch = source.batch(model.fold.train[longest], roles)
    return Footprint(
        parameters=sum(parameter.nbytes for parameter in head.parameters() if parameter.requires_grad),
        activations=_kept_bytes(head, batch, plan.task),
    )


def models_in_memory(footprint: Footprint, source: CachedFeatures) -> int:
    """Computes how many models fit in memory together with the features; at least 1."""
    budget = memory_budget(source.device, MEMORY_SHARE)
    if source.device.type != "cuda" and source.resident:
        budget -= int(MEMORY_SHARE * source.size_bytes)  # this budget counts all memory, free or not
    return max(1, budget // max(1, footprint.size_bytes))


@dataclass(frozen=True)
class Placement:
    """The number of models that train at a time.

    Attributes:
        stack: largest number of models in a stack; 1 for single models.
        threads: number of threads that train in parallel.
    """

    stack: int
    threads: int

    def __str__(self) -> str:
        models = f"stacks of {self.stack}" if self.stack > 1 else "single models"
        return models if self.threads == 1 else f"{models} in {self.threads} threads"


ALONE = Placement(1, 1)


def threads_of(device: torch.device) -> int:
    """Returns the number of threads that may train models: one for each core, at most four on a GPU."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores if device.type == "cpu" else min(GPU_THREADS, cores)


LEARNING = "encoders learn: one model at a time"


class StackGroups:
    """Groups of models that may share a stack.

    Attributes:
        groups: models by features, fold and structure; a model that cannot be stacked is a group of its own.
        reasons: why models cannot be stacked, each once.
        sources: features of the models.

    Args:
        models: the models to train.
        sources: features of the models.
        stacking: allow stacks; without them no head is built to find its group.
    """

    def __init__(self, models: Sequence[Model], sources: Sources, *, stacking: bool) -> None:
        self.sources = sources
        self._keys: dict[int, tuple[Hashable, str]] = {}
        self.reasons: set[str] = set()
        groups: dict[Hashable, list[Model]] = defaultdict(list)
        for model in models:
            groups[self._group_key(model) if stacking else model.key].append(model)
        self.groups: Mapping[Hashable, list[Model]] = groups

    @property
    def largest(self) -> list[Model]:
        """Models of the largest group: no stack can be larger."""
        return max(self.groups.values(), key=len)

    def units(self, placement: Placement) -> list[list[Model]]:
        """Splits every group into stacks of even size, as large as the placement and the memory allow."""
        return [
            unit for group in self.groups.values() for unit in _split_evenly(group, self._max_stack(group, placement))
        ]

    def capacity(self, model: Model) -> int:
        """Returns the largest stack of such models that fits in memory."""
        source = self.sources.of(model.combination.plan)
        return min(MAX_STACK, models_in_memory(footprint_of(model, source), source))

    def _max_stack(self, group: Sequence[Model], placement: Placement) -> int:
        size = min(placement.stack, len(group))
        return size if size == 1 else min(size, max(1, self.capacity(group[0]) // placement.threads))

    def _group_key(self, model: Model) -> Hashable:
        """Returns the key of the group of a model: features, fold and structure."""
        plan = model.combination.plan
        if plan.starts:
            self.reasons.add(LEARNING)
            return model.key
        index = self.sources.index(plan)
        if id(plan) not in self._keys:
            with BUILD_LOCK:
                head = build(plan, seed=model.seed)
            self._keys[id(plan)] = stack_key(head, model.training), unstackable_reason(head, model.training)
        key, reason = self._keys[id(plan)]
        if reason:
            self.reasons.add(reason)
            return model.key
        return index, plan.identity["folds"][model.fold.name], key


def _kept_bytes(head: Head, batch: Batch, task: Task) -> int:
    """Counts the bytes that a forward pass keeps for the backward pass, without parameters and features."""
    tensors = [*head.state_dict().values(), *batch.features.values()]
    excluded = {tensor.untyped_storage().data_ptr() for tensor in tensors}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in excluded:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = head(batch)
        losses = total_loss(output, batch.labels, head.config.loss_weights, task=task)
    total = sum(kept.values())
    del losses[TOTAL]  # alive until here, so that no address of a storage was used twice
    return total


def _split_evenly(models: Sequence[Model], largest: int) -> list[list[Model]]:
    """Splits models into as few units as possible, with sizes that differ by at most one."""
    units = -(-len(models) // largest)
    firsts = [round(unit * len(models) / units) for unit in range(units + 1)]
    return [list(models[first:end]) for first, end in pairwise(firsts)]
