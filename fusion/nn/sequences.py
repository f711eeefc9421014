"""A recurrent network over streams of an utterance, one after another, with no padding between them.

Joins two streams of different lengths into one, along time or along features (systems.md M-8).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

Pair = tuple[Tensor, Tensor]


class MaskedRows(NamedTuple):
    """Rows of several utterances, padded on the right: ``(batch, rows, dim)`` and bool ``(batch, rows)``."""

    rows: Tensor
    mask: Tensor


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


def joined_in_time(streams: Pair, masks: Pair) -> tuple[Tensor, Pair]:
    """Puts the valid rows of two streams one after the other, without padding between them.

    Args:
        streams: two of ``(batch, rows, dim)``, each with its own number of rows.
        masks: True where a row is valid, bool ``(batch, rows)``.

    Returns:
        The rows, ``(batch, rows of both, dim)``, and where those of each stream lie, bool ``(batch, rows of both)``.
    """
    rows, mask = ragged(list(zip(streams, masks, strict=True)))
    first = torch.arange(rows.shape[1], device=rows.device) < masks[0].sum(dim=1, keepdim=True)
    return rows, (first, mask & ~first)


def joined_in_channels(streams: Pair, masks: Pair) -> tuple[Tensor, Pair]:
    """Resamples the second stream to the length of the first, or of itself where there is no first, and joins both.

    Args:
        streams: two of ``(batch, rows, dim)``, valid rows first, each with its own number of rows.
        masks: True where a row is valid, bool ``(batch, rows)``.

    Returns:
        The rows, ``(batch, rows of the longer, 2 dim)``, and where each stream has some, bool ``(batch, rows of the
        longer)``: both alike, unless one is absent.
    """
    first, second = (stream.masked_fill(~mask[..., None], 0) for stream, mask in zip(streams, masks, strict=True))
    lengths = [mask.sum(dim=1) for mask in masks]
    wanted = torch.where(lengths[0] > 0, lengths[0], lengths[1])
    rows = max(first.shape[1], second.shape[1])
    padded = functional.pad(first, (0, 0, 0, rows - first.shape[1]))
    joined = torch.cat([padded, resampled(second, lengths[1], wanted, rows)], dim=-1)
    within = torch.arange(rows, device=first.device) < wanted[:, None]
    return joined, (within & (lengths[0] > 0)[:, None], within & (lengths[1] > 0)[:, None])


def resampled(x: Tensor, lengths: Tensor, wanted: Tensor, rows: int) -> Tensor:
    """Stretches the first rows of each utterance linearly, as torch's ``interpolate`` does with one utterance.

    Args:
        x: ``(batch, rows, dim)``.
        lengths: how many rows of it count, int64 ``(batch,)``; where none does, the first is taken.
        wanted: how many rows there are to be, int64 ``(batch,)``; those beyond mean nothing.
        rows: of the result.

    Returns:
        ``(batch, rows, dim)``.
    """
    last = (lengths - 1).clamp(min=0)[:, None]
    scale = (lengths / wanted.clamp(min=1))[:, None]
    centres = torch.arange(rows, device=x.device) + 0.5
    at = (centres * scale - 0.5).clamp(min=0).minimum(last)  # (batch, rows)
    low = at.floor().long()
    share = (at - low)[..., None].to(x.dtype)
    return _rows_at(x, low) * (1 - share) + _rows_at(x, (low + 1).minimum(last)) * share


def _rows_at(x: Tensor, places: Tensor) -> Tensor:
    return x.gather(1, places[..., None].expand(-1, -1, x.shape[-1]))
