"""The parameters of contrastive predictive coding over a bidirectional GRU, and what it draws (systems.md B-5)."""

import torch
from torch import Tensor, nn

from fusion.dropout import Dropout
from fusion.losses.cpc import cpc_loss, draw_anchors


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
