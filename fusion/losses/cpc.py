"""Contrastive predictive coding: tell the frames to come from others (van den Oord et al., 2018, arXiv:1807.03748).

Differs in that (systems.md B-5) half of the negatives are of the same utterance and half of others, and that one draw
of them serves all anchors and steps of an utterance: where it would hit the frame to be told, the next one stands in.

The parameters of contrastive predictive coding over a bidirectional GRU, and what it draws (systems.md B-5).
"""

import torch
from torch import Tensor, nn

from fusion.losses.precision import in_float32
from fusion.nn.dropout import Dropout


def info_nce(positive: Tensor, negatives: Tensor) -> Tensor:
    """Gives the cross entropy of picking the positive among all candidates.

    Args:
        positive: scores, ``(...)``.
        negatives: scores, ``(..., negatives)``.

    Returns:
        One loss per positive, ``(...)``.

    Example:
        >>> info_nce(torch.zeros(1), torch.zeros(1, 128))  # the logarithm of 129
        tensor([4.8598])
    """
    return torch.cat([positive[..., None], negatives], dim=-1).logsumexp(dim=-1) - positive


def draw_anchors(lengths: Tensor, uniform: Tensor, *, steps: int, anchors: int) -> tuple[Tensor, Tensor]:
    """Draws frames with `steps` frames after them, none twice.

    Args:
        lengths: frames of each utterance, int64 ``(batch,)``; below ``steps + 2`` an utterance is skipped.
        uniform: random numbers in [0, 1), ``(batch, frames)``.
        steps: how far ahead frames are told.
        anchors: how many to draw, all that there are where there are less.

    Returns:
        Positions, int64 ``(batch, anchors)``, and which of them were drawn, bool.
    """
    last = lengths.where(lengths >= steps + 2, 0) - steps
    places = torch.arange(uniform.shape[1], device=uniform.device)
    keys = uniform.masked_fill(places >= last[:, None], -1).sort(dim=1, descending=True, stable=True)
    return keys.indices[:, :anchors], keys.values[:, :anchors] >= 0


def draw_negatives(lengths: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Draws frames with equal chances: half of them of the same utterance, one frame left out, half of all others.

    A batch of one utterance gives all of them from there.

    Args:
        lengths: frames of each utterance, int64 ``(batch,)``.
        uniform: random numbers in [0, 1), ``(batch, negatives)``.

    Returns:
        Positions among the frames of all utterances; whether they are of the same utterance; and then their positions
        in it, where those from the frame left out onwards stand for the one after them. All ``(batch, negatives)``.
    """
    negatives = uniform.shape[1]
    starts = (lengths.cumsum(dim=0) - lengths)[:, None]
    mine, others = lengths[:, None], (lengths.sum() - lengths)[:, None]
    own = (torch.arange(negatives, device=uniform.device) < negatives // 2) | (others == 0)
    count = torch.where(own, mine - 1, others).clamp(min=1)
    rank = (uniform * count).long().minimum(count - 1)  # a product may round up to the count
    elsewhere = rank + mine * (rank >= starts)
    return torch.where(own, starts + rank, elsewhere), own, rank


@in_float32
def cpc_loss(
    predicted: Tensor, encoded: Tensor, mask: Tensor, *, places: Tensor, drawn: Tensor, uniform: Tensor
) -> Tensor:
    """Averages `info_nce` over the anchors of all utterances and the steps after each.

    Args:
        predicted: the frames 1, 2, ... after each anchor as the context tells them, ``(batch, anchors, steps, dim)``.
        encoded: the frames as they are, ``(batch, frames, dim)``.
        mask: where they are valid, bool ``(batch, frames)``.
        places: positions of the anchors, int64 ``(batch, anchors)``.
        drawn: which of the anchors count, bool ``(batch, anchors)``.
        uniform: random numbers in [0, 1) that negatives are drawn by, ``(batch, negatives)``.

    Returns:
        A scalar, 0 where no anchor counts.
    """
    frames = encoded.flatten(0, 1)[(~mask).flatten().to(torch.uint8).argsort(stable=True)]  # the valid ones first
    lengths = mask.sum(dim=1)
    ahead = torch.arange(1, predicted.shape[2] + 1, device=places.device)
    targets = places[..., None] + ahead  # (batch, anchors, steps), within the utterance
    starts = (lengths.cumsum(dim=0) - lengths)[:, None, None]
    positive = (predicted * frames[(starts + targets).clamp(max=len(frames) - 1)]).sum(dim=-1)
    losses = info_nce(positive, _negative_scores(predicted, frames, lengths, targets, uniform))
    counted = drawn[..., None].expand_as(losses)
    return losses.masked_fill(~counted, 0).sum() / counted.sum().clamp(min=1)


class PredictiveCoding(nn.Module):
    """Tells frames from the states before them.

    Args:
        dim: width of a frame.
        context: width of the forward half of a state.
        shared: width in which frames are told.
        steps: how far ahead.
        anchors: states to tell from, per utterance.
        negatives: frames to tell each from.
    """

    def __init__(self, *, dim: int, context: int, shared: int, steps: int, anchors: int, negatives: int) -> None:
        super().__init__()
        self.steps, self.anchors, self.negatives = steps, anchors, negatives
        self.encode = nn.Linear(dim, shared)
        self.predict = nn.Linear(context, steps * shared)
        self.draws = Dropout(0.0)  # drops nothing: its numbers follow from seed and step

    def forward(self, frames: Tensor, states: Tensor, mask: Tensor) -> Tensor:
        """Returns the loss, a scalar.

        Args:
            frames: ``(batch, frames, dim)``.
            states: those at the valid frames first, ``(batch, rows, 2 * context)``.
            mask: where frames are valid, bool ``(batch, frames)``.
        """
        numbers = self.draws.uniform(torch.empty(len(mask), mask.shape[1] + self.negatives, device=mask.device))
        keys, uniform = numbers[:, : mask.shape[1]], numbers[:, mask.shape[1] :]
        places, drawn = draw_anchors(mask.sum(dim=1), keys, steps=self.steps, anchors=self.anchors)
        contexts = self.contexts(states).gather(1, places[..., None].expand(-1, -1, self.predict.in_features))
        predicted = self.predict(contexts)  # (batch, anchors, steps * shared)
        predicted = predicted.view(*places.shape, self.steps, -1)
        return cpc_loss(predicted, self.encode(frames), mask, places=places, drawn=drawn, uniform=uniform)

    def contexts(self, states: Tensor) -> Tensor:
        """Gives the forward half of the states: the backward half has heard the frames to be told."""
        return states[..., : self.predict.in_features]


def _negative_scores(predicted: Tensor, frames: Tensor, lengths: Tensor, targets: Tensor, uniform: Tensor) -> Tensor:
    """Scores drawn frames against predictions, ``(batch, anchors, steps, negatives)``."""
    first, own, rank = draw_negatives(lengths, uniform)
    low, high = (
        torch.einsum("bakd,bnd->bakn", predicted, frames[at.clamp(max=len(frames) - 1)]) for at in (first, first + own)
    )  # (batch, anchors, steps, negatives)
    passed = own[:, None, None] & (rank[:, None, None] >= targets[..., None])
    return torch.where(passed, high, low)
