"""What labels teach the attention of LE-MER (Wang et al., 2023, arXiv:2309.02106), equations 3 to 6 and 10.

L-6: the label loss has no temperature; over four classes it is at least ``ln(1 + 3 e^-2)``. L-9: the constraint is a
mean over pairs as printed, or, after a softmax over frames, a sum over frames and a mean over tokens.
"""

from torch import Tensor
from torch.nn import functional

from fusion.layers import masked_mean
from fusion.losses.precision import in_float32


@in_float32
def label_loss(guide: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
    """Takes the cross entropy of the labels under the mean likeness of an utterance's rows to each of them.

    Args:
        guide: cosine of each row with each label, ``(batch, rows, classes)``.
        mask: True where a row counts, bool ``(batch, rows)``; utterances without any do not count.
        labels: ``(batch,)``.

    Returns:
        A scalar.

    Example:
        >>> import torch
        >>> guide = torch.tensor([[[1.0, -1.0, -1.0, -1.0]]])
        >>> round(label_loss(guide, torch.ones(1, 1).bool(), torch.tensor([0])).item(), 6)
        0.340753
    """
    losses = functional.cross_entropy(masked_mean(guide, mask), labels, reduction="none")
    present = mask.any(dim=1)
    return (losses * present).sum() / present.sum().clamp(min=1)


@in_float32
def attention_gap(guided: Tensor, learned: Tensor, pairs: Tensor) -> Tensor:
    """Averages the squared difference of two attentions over all valid pairs of the batch.

    Args:
        guided: attention by way of the labels, ``(batch, tokens, frames)``.
        learned: attention by weights, of the same shape.
        pairs: True where token and frame are both valid, bool of the same shape.

    Returns:
        A scalar.
    """
    return _squares(guided, learned, pairs).sum() / pairs.sum().clamp(min=1)


@in_float32
def attention_row_gap(guided: Tensor, learned: Tensor, pairs: Tensor) -> Tensor:
    """Sums the squared difference of two attentions over frames and averages it over valid tokens."""
    return _squares(guided, learned, pairs).sum() / pairs.any(dim=-1).sum().clamp(min=1)


def _squares(guided: Tensor, learned: Tensor, pairs: Tensor) -> Tensor:
    return (guided - learned).square().masked_fill(~pairs, 0)
