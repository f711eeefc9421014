"""Contrastive losses: what belongs together is pulled together, all else in the batch is pushed away."""

import torch
from torch import Tensor
from torch.nn import functional

from fusion.losses.precision import in_float32


@in_float32
def supervised_contrastive_loss(features: Tensor, labels: Tensor, *, temperature: float) -> Tensor:
    """Contrasts classes over the utterances of a batch (Khosla et al., 2020, arXiv:2004.11362, eq. 2).

    Deviations: the mean is over the utterances that have another of their class in the batch (J-13; 0 if none has),
    and the loss is not scaled by the temperature.

    Args:
        features: one vector per utterance, of any length but 0, ``(batch, dim)``.
        labels: classes, int64 ``(batch,)``.
        temperature: above 0.

    Returns:
        A scalar.

    Example:
        >>> features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> round(supervised_contrastive_loss(features, torch.tensor([0, 0, 1, 1]), temperature=1).item(), 4)
        0.5514
    """
    directions = functional.normalize(features, dim=1)
    scores = directions @ directions.T / temperature  # (batch, batch)
    oneself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    others = scores.masked_fill(oneself, torch.finfo(scores.dtype).min)  # -inf alone has no gradient
    likelihoods = scores - others.logsumexp(dim=1, keepdim=True)
    positive = (labels[:, None] == labels) & ~oneself
    counts = positive.sum(dim=1)
    losses = -likelihoods.masked_fill(~positive, 0).sum(dim=1) / counts.clamp(min=1)  # (batch,), 0 without a positive
    return losses.sum() / (counts > 0).sum().clamp(min=1)


@in_float32
def n_pair_loss(anchors: Tensor, positives: Tensor, others: Tensor, negative: Tensor, *, tau: float = 1.0) -> Tensor:
    """Averages log(1 + sum of exp((a . n - a . p) / tau) over the negatives n of an anchor a with its positive p).

    Sohn, 2016, https://papers.nips.cc/paper/6200; the bi-modal bi-task paper's equation 3 (systems.md 3.6).

    Args:
        anchors: ``(batch, dim)``.
        positives: the positive of each anchor, ``(batch, dim)``.
        others: what may be a negative, ``(others, dim)``.
        negative: which of them is one for which anchor, bool ``(batch, others)``; the term of an anchor with none is 0.
        tau: temperature; the paper has none.

    Returns:
        A scalar.

    Example:
        >>> apart = torch.eye(2)
        >>> n_pair_loss(apart, apart, apart, ~torch.eye(2, dtype=torch.bool))  # log(1 + 1 / e)
        tensor(0.3133)
    """
    nearer = (anchors @ others.T - (anchors * positives).sum(dim=1, keepdim=True)) / tau  # (batch, others)
    nearer = nearer.masked_fill(~negative, float("-inf"))
    return torch.cat([torch.zeros_like(nearer[:, :1]), nearer], dim=1).logsumexp(dim=1).mean()


def next_of_class(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Finds the next utterance of the same class, going round the batch.

    Args:
        labels: int64 ``(batch,)``.

    Returns:
        Its place in the batch, int64 ``(batch,)``, and whether there is one, bool ``(batch,)``.

    Example:
        >>> next_of_class(torch.tensor([0, 1, 0, 0]))
        (tensor([2, 1, 3, 0]), tensor([ True, False,  True,  True]))
    """
    places = torch.arange(len(labels), device=labels.device)
    away = (places - places[:, None] - 1) % len(labels)  # 0 for the next, most for the utterance itself
    nearest = away.masked_fill(labels != labels[:, None], len(labels)).argmin(dim=1)
    return nearest, nearest != places
