"""A recurrent network over streams of an utterance, one after another, with no padding between them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class RaggedGRU(nn.Module):
    """A bidirectional GRU of one layer that sees the valid rows of several streams, and nothing else.

    Args:
        dim: width of a row.
        hidden: width of the state of either direction.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.gru = nn.GRU(dim, hidden, batch_first=True, bidirectional=True)

    def forward(self, streams: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Reads the streams in their order.

        Args:
            streams: rows ``(batch, rows, dim)`` and bool ``(batch, rows)`` of each.

        Returns:
            States ``(batch, rows of all, 2 * hidden)``, those of the forward direction first, and where they are valid.
        """
        rows, mask = ragged(streams)
        lengths = mask.sum(dim=1).clamp(min=1).cpu()  # torch packs no empty sequence; the mask keeps its row out
        packed = pack_padded_sequence(rows, lengths, batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=mask.shape[1])
        return states, mask


def ragged(streams: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Puts the valid rows of several streams one after another, and all padding behind them.

    Args:
        streams: rows ``(batch, rows, dim)`` and bool ``(batch, rows)`` of each.

    Returns:
        Rows ``(batch, rows of all, dim)`` and bool ``(batch, rows of all)``.

    Example:
        >>> audio = torch.tensor([[[1.0], [9.0]], [[2.0], [3.0]]]), torch.tensor([[True, False], [True, True]])
        >>> text = torch.tensor([[[4.0]], [[5.0]]]), torch.tensor([[True], [True]])
        >>> ragged([audio, text])[0][..., 0]
        tensor([[1., 4., 9.],
                [2., 3., 5.]])
    """
    rows = torch.cat([rows for rows, _ in streams], dim=1)
    mask = torch.cat([mask for _, mask in streams], dim=1)
    order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)  # (batch, rows of all)
    return rows.gather(1, order[..., None].expand_as(rows)), mask.gather(1, order)
