"""Applies a head to utterances, and scores it on the dev part of a fold."""

from collections.abc import Callable, Collection, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fusion.arrays import Indices
from fusion.data.batches import scoring_batches
from fusion.data.features import BatchSource
from fusion.data.memory import is_out_of_memory
from fusion.evaluation.task import CLASSIFICATION, LOSS, Task
from fusion.head import Batch, Head

SCORING_BATCH = 64  # utterances; without gradients twice as many fit as in training


def predict_probabilities(
    head: Head,
    source: BatchSource,
    indices: Indices,
    *,
    batch_size: int = SCORING_BATCH,
    task: Task = CLASSIFICATION,
) -> npt.NDArray[np.float32]:
    """Gives the probability of each class for some utterances, always computed in float32.

    Args:
        head: a trained head; its mode is left as it was.
        source: of the features; roles that only training reads are not read.
        indices: the utterances.
        batch_size: how many at a time.
        task: task that turns logits into predictions.

    Returns:
        ``(n, classes)``, in the order of `indices`.
    """
    probabilities: npt.NDArray[np.float32] = task.predict(predict_logits(head, source, indices, batch_size)).numpy()
    return probabilities


def predict_logits(head: Head, source: BatchSource, indices: Indices, batch_size: int = SCORING_BATCH) -> Tensor:
    """Gives the logits of some utterances on the CPU, float32 ``(n, classes)``, in the order of `indices`."""
    was_training = head.training
    head.eval()

    def logits(batch: Batch) -> Tensor:
        made: Tensor = head(batch).logits
        return made

    made = map_batches(logits, source, indices, head.config.roles, batch_size)
    head.train(was_training)
    return made


def map_batches(
    logits: Callable[[Batch], Tensor],
    source: BatchSource,
    indices: Indices,
    roles: Collection[str],
    batch_size: int = SCORING_BATCH,
) -> Tensor:
    """Computes something of utterances batch by batch, without gradients.

    Args:
        logits: gives ``(..., batch, classes)`` of a batch.
        source: of the features.
        indices: the utterances.
        roles: to read.
        batch_size: how many at a time; half of it, and half again, where memory does not suffice.

    Returns:
        On the CPU, float32 ``(..., n, classes)``, in the order of `indices`.
    """
    try:
        return _in_batches(logits, source, indices, roles, batch_size)
    except (RuntimeError, MemoryError) as error:
        if batch_size == 1 or not is_out_of_memory(error):
            raise
    return map_batches(logits, source, indices, roles, batch_size // 2)


def dev_scores(logits: Tensor, labels: npt.NDArray[np.int64], task: Task = CLASSIFICATION) -> dict[str, float]:
    """Scores the logits of a dev part, which may lack a class.

    Returns:
        ``wa``, ``ua``, ``wf1``, ``mf1`` and the cross entropy as ``loss``.
    """
    scores = task.evaluate(labels, task.decide(logits.numpy()), logits.shape[1], complete=False)
    return {**scores, LOSS: float(task.loss(logits, torch.from_numpy(labels)))}


def is_better(dev: Mapping[str, float], best: Mapping[str, float], monitor: str, task: Task = CLASSIFICATION) -> bool:
    """Tells whether dev scores are better than the best so far; equal ones are not."""
    return task.is_better(dev[monitor], best[monitor], monitor)


def _in_batches(
    logits: Callable[[Batch], Tensor],
    source: BatchSource,
    indices: Indices,
    roles: Collection[str],
    batch_size: int,
) -> Tensor:
    groups = scoring_batches(source.lengths(indices, roles), batch_size=batch_size)
    with torch.no_grad():
        made = [logits(batch).float() for batch in source.batches([indices[group] for group in groups], roles)]
    order = torch.from_numpy(np.argsort(np.concatenate(groups)))
    return torch.cat(made, dim=-2).cpu().index_select(-2, order)
