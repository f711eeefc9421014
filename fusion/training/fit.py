"""Training of fitted heads: pooled once, then one solution for each candidate, the best on the development subset."""

import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fusion.arrays import Indices
from fusion.data.features import BatchSource
from fusion.data.memory import peak_memory
from fusion.data.pooled import pooled_once
from fusion.evaluation.task import Task
from fusion.head import Batch, FittedHead
from fusion.training.checkpoint import EpochScores
from fusion.training.config import TrainConfig
from fusion.training.evaluate import dev_scores, is_selected, map_batches, predict_logits
from fusion.training.interrupt import StopRequested
from fusion.training.model import TrainedModel
from fusion.training.steps import TOTAL


def fit_fold(
    head: FittedHead,
    source: BatchSource,
    train: Indices,
    dev: Indices,
    config: TrainConfig,
    *,
    task: Task,
    on_epoch: Callable[[EpochScores], None] | None,
    stopping: StopRequested,
) -> TrainedModel:
    """Fits a head for each candidate and selects the best on the development subset; the head ends with it.

    Args:
        head: built head; it moves to the device of the source.
        source: source of the features.
        train: utterances of the training subset, int64 ``(n,)``.
        dev: utterances of the development subset, int64 ``(n,)``.
        config: training configuration; its monitor and class weights matter.
        task: task that defines loss and scores.
        on_epoch: called after every candidate.
        stopping: called after every candidate.

    Raises:
        KeyboardInterrupt: if `stopping` returned True.
    """
    started = time.monotonic()
    source = pooled_once([head.to(source.device)], source, np.concatenate([train, dev]), precision="float32")
    vectors = _vectors(head, source, train)
    curves: list[EpochScores] = []
    best: dict[str, Tensor] = {}
    chosen = 0
    for epoch in range(1, len(head.candidates) + 1):
        losses = _fit(head, source, train, vectors, config, epoch=epoch, task=task)
        dev_of_epoch = dev_scores(predict_logits(head, source, dev), source.labels[dev], task)
        curves.append(EpochScores(epoch=epoch, losses=losses, dev=dev_of_epoch))
        if not chosen or is_selected(dev_of_epoch, curves[chosen - 1].dev, config.monitor, task):
            chosen, best = epoch, _copied(head)
        if on_epoch is not None:
            on_epoch(curves[-1])
        if stopping():
            raise KeyboardInterrupt
    head.load_state_dict(best)
    return _trained(head, source, chosen, curves, started)


def fit_candidate(
    head: FittedHead,
    source: BatchSource,
    train: Indices,
    config: TrainConfig,
    *,
    epochs: int,
    task: Task,
    on_epoch: Callable[[EpochScores], None] | None,
) -> TrainedModel:
    """Fits a head for one candidate, without a development subset.

    Args:
        head: built head; it moves to the device of the source.
        source: source of the features.
        train: utterances to train on, int64 ``(n,)``.
        config: training configuration; its class weights matter.
        epochs: number of the candidate, counted from 1.
        task: task that defines the loss.
        on_epoch: called at the end.
    """
    started = time.monotonic()
    source = pooled_once([head.to(source.device)], source, train, precision="float32")
    losses = _fit(head, source, train, _vectors(head, source, train), config, epoch=epochs, task=task)
    curves = [EpochScores(epoch=number, losses=losses, dev={}) for number in range(1, epochs + 1)]
    if on_epoch is not None:
        on_epoch(curves[-1])
    return _trained(head, source, epochs, curves, started)


def _vectors(head: FittedHead, source: BatchSource, train: Indices) -> npt.NDArray[np.float64]:
    def pooled(batch: Batch) -> Tensor:
        return head.vectors(batch)

    head.to(source.device).eval()
    return map_batches(pooled, source, train, head.config.roles).numpy().astype(np.float64)


def _fit(
    head: FittedHead,
    source: BatchSource,
    train: Indices,
    vectors: npt.NDArray[np.float64],
    config: TrainConfig,
    *,
    epoch: int,
    task: Task,
) -> dict[str, float]:
    candidate = head.candidates[epoch - 1]
    head.fit(vectors, source.labels[train], candidate, balanced=config.class_weights)
    loss = task.loss(predict_logits(head, source, train), torch.from_numpy(source.labels[train]))
    return {TOTAL: float(loss), head.candidate_name: candidate}


def _copied(head: FittedHead) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in head.state_dict().items()}


def _trained(
    head: FittedHead, source: BatchSource, epoch: int, curves: list[EpochScores], started: float
) -> TrainedModel:
    return TrainedModel(
        best_epoch=epoch,
        curves=tuple(curves),
        weights={name: tensor.cpu() for name, tensor in _copied(head).items()},
        seconds=time.monotonic() - started,
        peak_bytes=peak_memory(source.device),
    )
