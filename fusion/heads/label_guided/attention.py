"""Attention of LE-MER from tokens to frames, learned and derived from label embeddings, and its training losses.

Source: LE-MER (Wang et al., 2023, arXiv:2309.02106), equations 3 to 10. Deviations (docs/decisions.md#le-mer):

- L-6: the label loss has no temperature; over four classes it is at least ``ln(1 + 3 e^-2)``.
- L-8, L-10: the learned attention is ``softmax(H_t W^T H_s^T)`` over frames; used as weights, the label attention
  passes a softmax over frames.
- L-9: the constraint is a mean over pairs as printed, or, after a softmax over frames, a sum over frames and a mean
  over tokens.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from fusion.losses.precision import in_float32
from fusion.nn.layers import masked_mean

CONSTRAINTS = ("C1", "C2", "C3", "C4")


class Alignment(NamedTuple):
    """Attention of tokens to frames, each ``(batch, tokens, frames)``.

    Attributes:
        weights: weights of the frames; rows sum to 1, or to 0 for an utterance without frames.
        learned: A_r, whose rows have the same sums; None in C3, which does not use it.
        guided: A_l, the similarity of token and frame through the labels; None without labels.
    """

    weights: Tensor
    learned: Tensor | None
    guided: Tensor | None


class LabelAttention(nn.Module):
    """The alignment of frames to tokens by learned attention, label attention or both.

    Args:
        speech_dim: width of a frame.
        text_dim: width of a token.
        constraint: variant of the paper: ``C1`` and ``C4`` weigh frames by A_r, ``C3`` by A_l, ``C2`` by the mean of
            both.
    """

    def __init__(self, *, speech_dim: int, text_dim: int, constraint: str) -> None:
        super().__init__()
        self.constraint = constraint
        if constraint != "C3":
            self.bilinear = nn.Parameter(torch.randn(speech_dim, text_dim) * 0.02)  # W, in its printed shape (L-8)

    def forward(
        self, text: Tensor, audio: Tensor, audio_mask: Tensor, guides: tuple[Tensor, Tensor] | None
    ) -> Alignment:
        """Computes the attention of tokens to frames.

        Args:
            text: tokens, ``(batch, tokens, text_dim)``.
            audio: frames, ``(batch, frames, speech_dim)``.
            audio_mask: True where a frame is valid, bool ``(batch, frames)``.
            guides: cosines of tokens and of frames with the labels, ``(batch, rows, classes)`` each; None without
                labels.
        """
        guided = guides[0] @ guides[1].transpose(-1, -2) if guides else None
        learned = None
        if self.constraint != "C3":
            learned = frame_weights(text @ self.bilinear.T @ audio.transpose(-1, -2), audio_mask)
        return Alignment(self._weights(learned, guided, audio_mask), learned, guided)

    def _weights(self, learned: Tensor | None, guided: Tensor | None, audio_mask: Tensor) -> Tensor:
        by_label = frame_weights(guided, audio_mask) if guided is not None and self.constraint in {"C2", "C3"} else None
        if by_label is None or learned is None:
            weights = learned if by_label is None else by_label
            assert weights is not None
            return weights
        return (learned + by_label) / 2


def frame_weights(scores: Tensor, audio_mask: Tensor) -> Tensor:
    """Computes the softmax over valid frames, ``(batch, tokens, frames)``; 0 for an utterance without frames."""
    present = audio_mask.any(dim=1)
    seen = (audio_mask | ~present[:, None])[:, None]  # (batch, 1, frames); a softmax over nothing would be NaN
    return scores.masked_fill(~seen, float("-inf")).softmax(dim=-1) * present[:, None, None]


def without_ends(mask: Tensor) -> Tensor:
    """Returns a mask without the first and the last valid row of each utterance, bool ``(batch, rows)``.

    Example:
        >>> without_ends(torch.tensor([[True, True, True, False], [True, True, False, False]])).int().tolist()
        [[0, 1, 0, 0], [0, 0, 0, 0]]
    """
    rank = mask.cumsum(dim=1)
    return mask & (rank > 1) & (rank < mask.sum(dim=1, keepdim=True))


@in_float32
def label_loss(guide: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
    """Computes the cross entropy of the classes under the mean similarity of an utterance's rows to each label.

    Args:
        guide: cosine of each row with each label, ``(batch, rows, classes)``.
        mask: True where a row counts, bool ``(batch, rows)``; utterances without such a row do not count.
        labels: classes, int64 ``(batch,)``.

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
        guided: attention derived from the labels, ``(batch, tokens, frames)``.
        learned: attention by learned weights, of the same shape.
        pairs: True where token and frame are both valid, bool of the same shape.

    Returns:
        A scalar.
    """
    return _squares(guided, learned, pairs).sum() / pairs.sum().clamp(min=1)


@in_float32
def attention_row_gap(guided: Tensor, learned: Tensor, pairs: Tensor) -> Tensor:
    """Sums the squared difference of two attentions over frames and averages it over valid tokens.

    Args:
        guided: attention derived from the labels, after a softmax over frames, ``(batch, tokens, frames)``.
        learned: attention by learned weights, of the same shape.
        pairs: True where token and frame are both valid, bool of the same shape.

    Returns:
        A scalar.
    """
    return _squares(guided, learned, pairs).sum() / pairs.any(dim=-1).sum().clamp(min=1)


def _squares(guided: Tensor, learned: Tensor, pairs: Tensor) -> Tensor:
    return (guided - learned).square().masked_fill(~pairs, 0)
