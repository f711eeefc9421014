"""Training of grid models: a single model as in `mmer-train`, or several of equal structure as one stack."""

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
from fusion.training.interrupt import StopRequested, never_stop
from fusion.training.loop import train_fold
from fusion.training.loss_monitor import TrainingDiverged
from fusion.training.model import TrainedModel

OnEpoch: TypeAlias = Callable[[Model, EpochScores], None]

OUT_OF_MEMORY = "out of memory"
BUILD_LOCK = Lock()  # initial weights are drawn from the global generator of torch


def train_models(
    models: Sequence[Model], source: CachedFeatures, on_epoch: OnEpoch, stopping: StopRequested = never_stop
) -> list[ModelOutcome]:
    """Trains models of one fold; several as one stack, which is split in half if it exceeds the memory.

    Args:
        models: models of one fold; several must have equal stack keys.
        source: features of the models.
        on_epoch: called after every epoch of every model.
        stopping: called after every batch of a single model; when it returns True, the training ends.

    Returns:
        The outcomes in the order of the models; a model fails if it diverges or exceeds the memory.

    Raises:
        KeyboardInterrupt: if `stopping` returned True.
        MmerError: if the features cannot be read.
    """
    fold, plan = models[0].fold, models[0].combination.plan
    source = plan.with_targets(plan.of_fold(source, fold.name), fold.train, fold.name)
    try:
        if len(models) == 1:
            return [_train_single(models[0], source, on_epoch, stopping)]
        return _train_stacked(models, source, on_epoch)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    if source.device.type == "cuda":
        torch.cuda.empty_cache()
    if len(models) == 1:
        return [ModelOutcome(failure=f"{OUT_OF_MEMORY} on {source.device}")]
    half = len(models) // 2
    halves = models[:half], models[half:]
    return [outcome for unit in halves for outcome in train_models(unit, source, on_epoch, stopping)]


def build_model(model: Model, source: CachedFeatures) -> tuple[Head, tuple[str, ...]]:
    """Builds the head of a model and prepares it on the training subset, one thread at a time.

    Returns:
        The head and its notes.
    """
    with BUILD_LOCK:
        head, notes = build_and_prepare_head(model.combination.plan, source, model.fold.train, seed=model.seed)
    return head, tuple(notes)


def _train_single(model: Model, source: CachedFeatures, on_epoch: OnEpoch, stopping: StopRequested) -> ModelOutcome:
    head, notes = build_model(model, source)
    try:
        trained = train_fold(
            head,
            source,
            model.fold.train,
            model.fold.dev,
            model.training,
            task=model.combination.plan.task_of(model.fold.train, model.fold.name),
            on_epoch=lambda scores: on_epoch(model, scores),
            stopping=stopping,
        )
    except TrainingDiverged as error:
        return _outcome(error, notes)
    return _outcome(trained, notes)


def _train_stacked(models: Sequence[Model], source: CachedFeatures, on_epoch: OnEpoch) -> list[ModelOutcome]:
    built = [build_model(model, source) for model in models]
    fold = models[0].fold
    results = train_stack(
        [head for head, _ in built],
        source,
        fold.train,
        fold.dev,
        [model.training for model in models],
        task=models[0].combination.plan.task_of(fold.train, fold.name),
        on_epoch=lambda index, scores: on_epoch(models[index], scores),
    )
    return [_outcome(result, notes) for result, (_, notes) in zip(results, built, strict=True)]


def _outcome(result: TrainedModel | MmerError, notes: tuple[str, ...]) -> ModelOutcome:
    if isinstance(result, TrainedModel):
        return ModelOutcome(trained=result, notes=notes)
    return ModelOutcome(failure=f"diverged: {result}", notes=notes)
