"""Trains models of a grid: one as `mmer-train` does, or several of equal structure as one stack."""

from collections.abc import Callable, Sequence
from threading import Lock
from typing import TypeAlias

import torch

from cache.errors import MmerError
from fusion.data.features import CachedFeatures
from fusion.data.memory import is_out_of_memory
from fusion.grid.combinations import Model, ModelOutcome
from fusion.grid.stacking.training import train_stack
from fusion.head import Head
from fusion.run.cross_validation import build_and_prepare_head
from fusion.training.checkpoint import EpochScores
from fusion.training.loop import TrainedModel, train_fold

OnEpoch: TypeAlias = Callable[[Model, EpochScores], None]

OUT_OF_MEMORY = "out of memory"
BUILDING = Lock()  # weights are drawn from torch's one generator


def train_models(models: Sequence[Model], source: CachedFeatures, on_epoch: OnEpoch) -> list[ModelOutcome]:
    """Trains models of one fold; several as one stack, which is split in half if memory does not suffice.

    Args:
        models: of one fold; several must have equal stack keys.
        source: of their features.
        on_epoch: told of every epoch of every model.

    Returns:
        One for each, in their order; a model that diverged or needs more memory than there is has failed.
    """
    try:
        return _one(models[0], source, on_epoch) if len(models) == 1 else _stack(models, source, on_epoch)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    if source.device.type == "cuda":
        torch.cuda.empty_cache()
    if len(models) == 1:
        return [ModelOutcome(model=models[0], failure=f"{OUT_OF_MEMORY} on {source.device}")]
    half = len(models) // 2
    return [outcome for part in (models[:half], models[half:]) for outcome in train_models(part, source, on_epoch)]


def prepared(model: Model, source: CachedFeatures) -> tuple[Head, tuple[str, ...]]:
    """Builds the head of a model and lets it learn from its training part; one thread at a time."""
    with BUILDING:
        head, notes = build_and_prepare_head(model.combination.plan, source, model.fold.train, seed=model.seed)
    return head, tuple(notes)


def _one(model: Model, source: CachedFeatures, on_epoch: OnEpoch) -> list[ModelOutcome]:
    head, notes = prepared(model, source)
    try:
        trained = train_fold(
            head,
            source,
            model.fold.train,
            model.fold.dev,
            model.training,
            task=model.combination.plan.task,
            on_epoch=lambda scores: on_epoch(model, scores),
        )
    except MmerError as error:  # without a checkpoint there is no other
        return [_outcome(model, error, notes)]
    return [_outcome(model, trained, notes)]


def _stack(models: Sequence[Model], source: CachedFeatures, on_epoch: OnEpoch) -> list[ModelOutcome]:
    built = [prepared(model, source) for model in models]
    fold = models[0].fold
    trained = train_stack(
        [head for head, _ in built],
        source,
        fold.train,
        fold.dev,
        [model.training for model in models],
        task=models[0].combination.plan.task,
        on_epoch=lambda place, scores: on_epoch(models[place], scores),
    )
    return [_outcome(model, one, notes) for model, one, (_, notes) in zip(models, trained, built, strict=True)]


def _outcome(model: Model, came: TrainedModel | MmerError, notes: tuple[str, ...]) -> ModelOutcome:
    if isinstance(came, TrainedModel):
        return ModelOutcome(model=model, trained=came, notes=notes)
    return ModelOutcome(model=model, failure=f"diverged: {came}", notes=notes)
