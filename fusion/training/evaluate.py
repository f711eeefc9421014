"""Evaluation of a head: logits and probabilities of utterances, and scores on the development subset."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fusion.arrays import Indices
from fusion.data.batches import scoring_batches
from fusion.data.features import BatchSource
from fusion.data.memory import is_out_of_memory
from fusion.evaluation.classes import CLASSIFICATION
from fusion.evaluation.task import LOSS, Task
from fusion.head import Batch, Head

LOSS_DECIMALS = 6  # losses of equal scores are compared with: engines differ by rounding (docs/decisions.md#ties)
SCORING_BATCH = 64  # utterances; twice the batch of training fits into memory without gradients


def predict_probabilities(
    head: Head,
    source: BatchSource,
    indices: Indices,
    *,
    batch_size: int = SCORING_BATCH,
    task: Task = CLASSIFICATION,
) -> npt.NDArray[np.float32]:
    """Computes the probability of each class for utterances, always in float32.

    Args:
        head: trained head; its mode (training or evaluation) is restored.
        source: source of the features; roles that only training reads are not read.
        indices: the utterances, int64 ``(n,)``.
        batch_size: number of utterances in a batch.
        task: task that turns logits into predictions.

    Returns:
        Probabilities ``(n, classes)``, in the order of `indices`.
    """
    probabilities: npt.NDArray[np.float32] = task.predict(predict_logits(head, source, indices, batch_size)).numpy()
    return probabilities


def predict_logits(head: Head, source: BatchSource, indices: Indices, batch_size: int = SCORING_BATCH) -> Tensor:
    """Computes the logits of utterances.

    Returns:
        Logits on the CPU, float32 ``(n, classes)``, in the order of `indices`.
    """

    def batch_logits(batch: Batch) -> Tensor:
        logits: Tensor = head(batch).logits
        return logits

    was_training = head.training
    head.eval()
    logits = map_batches(batch_logits, source, indices, head.config.roles, batch_size)
    head.train(was_training)
    return logits


def map_batches(
    logits: Callable[[Batch], Tensor],
    source: BatchSource,
    indices: Indices,
    roles: Collection[str],
    batch_size: int = SCORING_BATCH,
) -> Tensor:
    """Computes logits batch by batch, without gradients.

    Args:
        logits: function that returns the logits of a batch, ``(..., batch, classes)``.
        source: source of the features.
        indices: the utterances, int64 ``(n,)``.
        roles: roles to read.
        batch_size: number of utterances in a batch; halved as often as needed if memory runs out.

    Returns:
        Logits on the CPU, float32 ``(..., n, classes)``, in the order of `indices`.

    Raises:
        RuntimeError: if memory runs out for a single utterance.
    """
    try:
        return _map_batches(logits, source, indices, roles, batch_size)
    except (RuntimeError, MemoryError) as error:
        if batch_size == 1 or not is_out_of_memory(error):
            raise
    return map_batches(logits, source, indices, roles, batch_size // 2)


def dev_scores(logits: Tensor, labels: npt.NDArray[Any], task: Task = CLASSIFICATION) -> dict[str, float]:
    """Computes the scores of logits of a development subset; a class may be missing in it.

    Args:
        logits: float32 ``(n, classes)``.
        labels: class of each utterance, int64 ``(n,)``; or its scaled values, float32 ``(n, dimensions)``.
        task: task that defines loss and scores.

    Returns:
        Scores by name, such as ``wa``, ``ua``, ``wf1``, ``mf1``, and the main loss as ``loss``.
    """
    truth, guess = labels, task.decide((task.predict(logits) if task.scores_predictions else logits).numpy())
    if task.scale is not None:
        truth, guess = task.scale.to_corpus(truth), task.scale.to_corpus(guess)
    scores = task.evaluate(truth, guess, logits.shape[1], complete=False)
    return {**scores, LOSS: float(task.loss(logits, torch.from_numpy(labels)))}


def is_better(dev: Mapping[str, float], best: Mapping[str, float], monitor: str, task: Task = CLASSIFICATION) -> bool:
    """Checks whether development scores are better than the best so far; equal scores are not."""
    return task.is_better(dev[monitor], best[monitor], monitor)


def is_selected(dev: Mapping[str, float], best: Mapping[str, float], monitor: str, task: Task = CLASSIFICATION) -> bool:
    """Checks whether an epoch replaces the best so far: a better score, or an equal score and no higher loss.

    Small development subsets tie often. Of equal scores the lower loss is kept, and of equal losses the later epoch.

    Args:
        dev: development scores of the later epoch, with ``loss``.
        best: those of the best epoch so far.
        monitor: name of the score that selects.
        task: task that compares scores.

    Example:
        >>> tied = {"wf1": 1.0, "loss": 0.3}
        >>> [is_selected({"wf1": 1.0, "loss": loss}, tied, "wf1") for loss in (0.2, 0.3, 0.4)]
        [True, True, False]
    """
    if dev[monitor] != best[monitor]:
        return is_better(dev, best, monitor, task)
    return round(dev[LOSS], LOSS_DECIMALS) <= round(best[LOSS], LOSS_DECIMALS)


def _map_batches(
    logits: Callable[[Batch], Tensor],
    source: BatchSource,
    indices: Indices,
    roles: Collection[str],
    batch_size: int,
) -> Tensor:
    groups = scoring_batches(source.lengths(indices, roles), batch_size=batch_size)
    with torch.no_grad():
        results = [logits(batch).float() for batch in source.batches([indices[group] for group in groups], roles)]
    order = torch.from_numpy(np.argsort(np.concatenate(groups)))
    return torch.cat(results, dim=-2).cpu().index_select(-2, order)
