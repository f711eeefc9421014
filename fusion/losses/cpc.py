"""Contrastive predictive coding: separates the next frames from other frames by the state before them.

Source: van den Oord et al., 2018, arXiv:1807.03748. Deviations (docs/decisions.md#b-5): half of the negatives come from
the same utterance and half from other utterances, and one draw of negatives serves all anchors and steps of an
utterance. If a drawn negative is the frame to be predicted, the next frame replaces it. The context is the forward half
of the states of a bidirectional GRU.
"""

import torch
from torch import Tensor, nn

from fusion.losses.precision import in_float32
from fusion.nn.dropout import Dropout


def info_nce(positive: Tensor, negatives: Tensor) -> Tensor:
    """Computes the cross entropy of selecting the positive among all candidates.

    Args:
        positive: scores of the positives, ``(...)``.
        negatives: scores of the negatives, ``(..., negatives)``.

    Returns:
        One loss per positive, ``(...)``.

    Example:
        >>> info_nce(torch.zeros(1), torch.zeros(1, 128))  # the logarithm of 129
        tensor([4.8598])
    """
    return torch.cat([positive[..., None], negatives], dim=-1).logsumexp(dim=-1) - positive


def draw_anchors(lengths: Tensor, uniform: Tensor, *, steps: int, anchors: int) -> tuple[Tensor, Tensor]:
    """Draws anchors without replacement: frames with `steps` frames after them.

    Args:
        lengths: number of frames of each utterance, int64 ``(batch,)``; with fewer than ``steps + 2`` it is skipped.
        uniform: random numbers in [0, 1), ``(batch, frames)``.
        steps: number of frames to predict after an anchor.
        anchors: number of anchors per utterance; all possible anchors if there are fewer.

    Returns:
        Positions of the anchors in their utterance, int64 ``(batch, anchors)``, and a mask that is True where an anchor
        was drawn, bool ``(batch, anchors)``.
    """
    last = lengths.where(lengths >= steps + 2, 0) - steps
    positions = torch.arange(uniform.shape[1], device=uniform.device)
    keys = uniform.masked_fill(positions >= last[:, None], -1).sort(dim=1, descending=True, stable=True)
    return keys.indices[:, :anchors], keys.values[:, :anchors] >= 0


def draw_negatives(lengths: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Draws negatives: half from the same utterance, half from all others.

    Frames have equal probability.

    One frame of the same utterance is left out. In a batch of one utterance all negatives come from it.

    Args:
        lengths: number of frames of each utterance, int64 ``(batch,)``.
        uniform: random numbers in [0, 1), ``(batch, negatives)``.

    Returns:
        Positions among the frames of all utterances, int64; a mask that is True for negatives from the same utterance,
        bool; and their positions in it, int64, where positions from the frame left out on stand for the frame after
        them. All ``(batch, negatives)``.
    """
    negatives = uniform.shape[1]
    starts = (lengths.cumsum(dim=0) - lengths)[:, None]
    inside, outside = lengths[:, None], (lengths.sum() - lengths)[:, None]
    same = (torch.arange(negatives, device=uniform.device) < negatives // 2) | (outside == 0)
    count = torch.where(same, inside - 1, outside).clamp(min=1)
    rank = (uniform * count).long().minimum(count - 1)  # a product may round up to the count
    elsewhere = rank + inside * (rank >= starts)
    return torch.where(same, starts + rank, elsewhere), same, rank


@in_float32
def cpc_loss(
    predicted: Tensor, encoded: Tensor, mask: Tensor, *, positions: Tensor, drawn: Tensor, uniform: Tensor
) -> Tensor:
    """Computes the mean of `info_nce` over all anchors and their steps.

    Args:
        predicted: frames 1, 2, ... after each anchor as predicted from its context, ``(batch, anchors, steps, dim)``.
        encoded: encoded frames, ``(batch, frames, dim)``.
        mask: True where a frame is valid, bool ``(batch, frames)``.
        positions: positions of the anchors, int64 ``(batch, anchors)``.
        drawn: True for anchors that count, bool ``(batch, anchors)``.
        uniform: random numbers in [0, 1) for the draw of negatives, ``(batch, negatives)``.

    Returns:
        A scalar, 0 if no anchor counts.
    """
    frames = encoded.flatten(0, 1)[(~mask).flatten().to(torch.uint8).argsort(stable=True)]  # valid frames first
    lengths = mask.sum(dim=1)
    ahead = torch.arange(1, predicted.shape[2] + 1, device=positions.device)
    targets = positions[..., None] + ahead  # (batch, anchors, steps), within the utterance
    starts = (lengths.cumsum(dim=0) - lengths)[:, None, None]
    positive = (predicted * frames[(starts + targets).clamp(max=len(frames) - 1)]).sum(dim=-1)
    losses = info_nce(positive, _negative_scores(predicted, frames, lengths, targets, uniform))
    counted = drawn[..., None].expand_as(losses)
    return losses.masked_fill(~counted, 0).sum() / counted.sum().clamp(min=1)


class PredictiveCoding(nn.Module):
    """Contrastive predictive coding of frames from the states before them, with its parameters and random draws.

    Args:
        dim: width of a frame.
        context: width of the forward half of a state.
        shared: width in which predicted and encoded frames are compared.
        steps: number of frames to predict after an anchor.
        anchors: number of anchors per utterance.
        negatives: number of negatives for each prediction.
    """

    def __init__(self, *, dim: int, context: int, shared: int, steps: int, anchors: int, negatives: int) -> None:
        super().__init__()
        self.steps, self.anchors, self.negatives = steps, anchors, negatives
        self.encode = nn.Linear(dim, shared)
        self.predict = nn.Linear(context, steps * shared)
        self.draws = Dropout(0.0)  # drops nothing: it draws numbers that depend on seed and step

    def forward(self, frames: Tensor, states: Tensor, mask: Tensor) -> Tensor:
        """Returns the loss, a scalar.

        Args:
            frames: ``(batch, frames, dim)``.
            states: states of the GRU, those at the valid frames first, ``(batch, rows, 2 * context)``.
            mask: True where a frame is valid, bool ``(batch, frames)``.
        """
        numbers = self.draws.uniform(torch.empty(len(mask), mask.shape[1] + self.negatives, device=mask.device))
        keys, uniform = numbers[:, : mask.shape[1]], numbers[:, mask.shape[1] :]
        positions, drawn = draw_anchors(mask.sum(dim=1), keys, steps=self.steps, anchors=self.anchors)
        contexts = self.contexts(states).gather(1, positions[..., None].expand(-1, -1, self.predict.in_features))
        predicted = self.predict(contexts)  # (batch, anchors, steps * shared)
        predicted = predicted.view(*positions.shape, self.steps, -1)
        return cpc_loss(predicted, self.encode(frames), mask, positions=positions, drawn=drawn, uniform=uniform)

    def contexts(self, states: Tensor) -> Tensor:
        """Returns the forward half of the states.

        The backward half depends on the frames to be predicted.
        """
        return states[..., : self.predict.in_features]


def _negative_scores(predicted: Tensor, frames: Tensor, lengths: Tensor, targets: Tensor, uniform: Tensor) -> Tensor:
    """Computes the scores of drawn negatives.

    The result is ``(batch, anchors, steps, negatives)``.
    """
    first, same, rank = draw_negatives(lengths, uniform)
    scores, next_scores = (
        torch.einsum("bakd,bnd->bakn", predicted, frames[index.clamp(max=len(frames) - 1)])
        for index in (first, first + same)
    )  # (batch, anchors, steps, negatives)
    shifted = same[:, None, None] & (rank[:, None, None] >= targets[..., None])
    return torch.where(shifted, next_scores, scores)
