"""Contrastive losses: vectors of one class or one pair move together, all others in the batch move apart."""

import torch
from torch import Tensor
from torch.nn import functional

from fusion.losses.precision import in_float32


@in_float32
def supervised_contrastive_loss(features: Tensor, labels: Tensor, *, temperature: float) -> Tensor:
    """Computes the contrast between classes over the utterances of a batch.

    Source: Khosla et al., 2020, arXiv:2004.11362, eq. 2. Deviations: the mean is over the utterances that have another
    utterance of their class in the batch (J-13; the loss is 0 without such an utterance), and the loss is not scaled by
    the temperature.

    Args:
        features: one vector per utterance, with a norm above 0, ``(batch, dim)``.
        labels: classes, int64 ``(batch,)``.
        temperature: temperature above 0.

    Returns:
        A scalar.

    Example:
        >>> features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> round(supervised_contrastive_loss(features, torch.tensor([0, 0, 1, 1]), temperature=1).item(), 4)
        0.5514
    """
    directions = functional.normalize(features, dim=1)
    scores = directions @ directions.T / temperature  # (batch, batch)
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    others = scores.masked_fill(itself, torch.finfo(scores.dtype).min)  # a row of -inf has no gradient
    likelihoods = scores - others.logsumexp(dim=1, keepdim=True)
    positive = (labels[:, None] == labels) & ~itself
    counts = positive.sum(dim=1)
    losses = -likelihoods.masked_fill(~positive, 0).sum(dim=1) / counts.clamp(min=1)  # (batch,), 0 without a positive
    return losses.sum() / (counts > 0).sum().clamp(min=1)


@in_float32
def n_pair_loss(anchors: Tensor, positives: Tensor, others: Tensor, negative: Tensor, *, tau: float = 1.0) -> Tensor:
    """Computes the mean N-pair loss over anchors.

    The term of an anchor a with its positive p is log(1 + sum of exp((a . n - a . p) / tau) over its negatives n).
    Source: Sohn, 2016, https://papers.nips.cc/paper/6200; equation 3 of bi-modal bi-task (2024,
    doi:10.1080/08839514.2024.2356992), see docs/decisions.md#b-8.

    Args:
        anchors: ``(batch, dim)``.
        positives: positive of each anchor, ``(batch, dim)``.
        others: candidates for negatives, ``(others, dim)``.
        negative: True where a candidate is a negative of an anchor, bool ``(batch, others)``; the term of an anchor
            without negatives is 0.
        tau: temperature; the paper has none.

    Returns:
        A scalar.

    Example:
        >>> x = torch.eye(2)
        >>> n_pair_loss(x, x, x, ~torch.eye(2, dtype=torch.bool))  # log(1 + 1 / e)
        tensor(0.3133)
    """
    margins = (anchors @ others.T - (anchors * positives).sum(dim=1, keepdim=True)) / tau  # (batch, others)
    margins = margins.masked_fill(~negative, float("-inf"))
    return torch.cat([torch.zeros_like(margins[:, :1]), margins], dim=1).logsumexp(dim=1).mean()


def next_of_class(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the next utterance of the same class in the batch.

    The first utterance of the batch follows the last.

    Args:
        labels: classes, int64 ``(batch,)``.

    Returns:
        Index of that utterance in the batch, int64 ``(batch,)``, and a mask that is True if there is another utterance
        of the class, bool ``(batch,)``.

    Example:
        >>> next_of_class(torch.tensor([0, 1, 0, 0]))
        (tensor([2, 1, 3, 0]), tensor([ True, False,  True,  True]))
    """
    indices = torch.arange(len(labels), device=labels.device)
    steps = (indices - indices[:, None] - 1) % len(labels)  # 0 for the next, greatest for the utterance itself
    nearest = steps.masked_fill(labels != labels[:, None], len(labels)).argmin(dim=1)
    return nearest, nearest != indices
