"""Attention of tokens to frames, learned and by way of labels.

Source: LE-MER (Wang et al., 2023, arXiv:2309.02106), equations 7 to 9, as L-8 and L-10 read them.

What labels teach the attention of LE-MER (Wang et al., 2023, arXiv:2309.02106), equations 3 to 6 and 10.

L-6: the label loss has no temperature; over four classes it is at least ``ln(1 + 3 e^-2)``. L-9: the constraint is a
mean over pairs as printed, or, after a softmax over frames, a sum over frames and a mean over tokens.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from fusion.losses.precision import in_float32
from fusion.nn.layers import masked_mean

CONSTRAINTS = ("C1", "C2", "C3", "C4")


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


class Alignment(NamedTuple):
    """How tokens attend to frames, each ``(batch, tokens, frames)``.

    Attributes:
        weights: what the frames are weighed by; rows sum to 1, or to 0 where there are no frames.
        learned: A_r, of which the same holds; None in C3, which does without.
        guided: A_l, the likeness of token and frame by way of the labels; None without labels.
    """

    weights: Tensor
    learned: Tensor | None
    guided: Tensor | None


class LabelAttention(nn.Module):
    """Aligns frames to tokens.

    Args:
        speech_dim: width of a frame.
        text_dim: width of a token.
        constraint: ``C1`` and ``C4`` weigh frames by A_r, ``C3`` by A_l, ``C2`` by the mean of both.
    """

    def __init__(self, *, speech_dim: int, text_dim: int, constraint: str) -> None:
        super().__init__()
        self.constraint = constraint
        if constraint != "C3":
            self.bilinear = nn.Parameter(torch.randn(speech_dim, text_dim) * 0.02)  # W, as printed

    def forward(
        self, text: Tensor, audio: Tensor, audio_mask: Tensor, guides: tuple[Tensor, Tensor] | None
    ) -> Alignment:
        """Aligns frames ``(batch, frames, speech dim)`` to tokens ``(batch, tokens, text dim)``.

        Args:
            text: tokens.
            audio: frames.
            audio_mask: True where a frame is valid, bool ``(batch, frames)``.
            guides: cosines of tokens and of frames with the labels, ``(batch, rows, classes)`` each.
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
    """Takes the softmax over valid frames of ``(batch, tokens, frames)``; 0 where there are none."""
    present = audio_mask.any(dim=1)
    seen = (audio_mask | ~present[:, None])[:, None]  # (batch, 1, frames); no softmax over nothing
    return scores.masked_fill(~seen, float("-inf")).softmax(dim=-1) * present[:, None, None]


def without_ends(mask: Tensor) -> Tensor:
    """Leaves out the first and the last valid row of each utterance, bool ``(batch, rows)`` of the same.

    Example:
        >>> without_ends(torch.tensor([[True, True, True, False], [True, True, False, False]])).int().tolist()
        [[0, 1, 0, 0], [0, 0, 0, 0]]
    """
    place = mask.cumsum(dim=1)
    return mask & (place > 1) & (place < mask.sum(dim=1, keepdim=True))


def _squares(guided: Tensor, learned: Tensor, pairs: Tensor) -> Tensor:
    return (guided - learned).square().masked_fill(~pairs, 0)
