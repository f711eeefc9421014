"""Several streams of an utterance as one sequence: joined along time or along features, or read by a GRU.

Two streams of different lengths are joined along time without padding between them, or along features after
resampling (docs/decisions.md#m-8).
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
    """A bidirectional GRU of one layer over the valid rows of several streams, one stream after another.

    Args:
        dim: width of a row.
        hidden: width of the state of each direction.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.gru = nn.GRU(dim, hidden, batch_first=True, bidirectional=True)

    def forward(self, streams: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Computes the states of the streams in their order.

        Args:
            streams: rows ``(batch, rows, dim)`` and mask, bool ``(batch, rows)``, of each stream.

        Returns:
            States ``(batch, rows of all, 2 * hidden)``, first the half of the forward direction, and their mask, bool
            ``(batch, rows of all)``.
        """
        rows, mask = ragged(streams)
        lengths = mask.sum(dim=1).clamp(min=1).cpu()  # torch packs no empty sequence; the mask excludes its row
        packed = pack_padded_sequence(rows, lengths, batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=mask.shape[1])
        return states, mask


def ragged(streams: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Joins the valid rows of several streams along time, padding at the end.

    Args:
        streams: rows ``(batch, rows, dim)`` and mask, bool ``(batch, rows)``, of each stream.

    Returns:
        Rows ``(batch, rows of all, dim)`` and mask, bool ``(batch, rows of all)``.

    Example:
        >>> audio = torch.tensor([[[1.0], [9.0]], [[2.0], [3.0]]]), torch.tensor([[True, False], [True, True]])
        >>> text = torch.tensor([[[4.0]], [[5.0]]]), torch.tensor([[True], [True]])
        >>> ragged([audio, text])[0][..., 0]
        tensor([[1., 4., 9.],
                [2., 3., 5.]])
    """
    rows = torch.cat([rows for rows, _ in streams], dim=1)
    mask = torch.cat([mask for _, mask in streams], dim=1)
    order = valid_first(mask)
    return rows.gather(1, order[..., None].expand_as(rows)), mask.gather(1, order)


def valid_first(mask: Tensor) -> Tensor:
    """Returns the order in which valid rows precede the others, int64 ``(batch, rows)``.

    Args:
        mask: True where a row is valid, bool ``(batch, rows)``.

    Example:
        >>> valid_first(torch.tensor([[False, True, False, True]]))
        tensor([[1, 3, 0, 2]])
    """
    count = mask.shape[1]
    position = torch.arange(count, device=mask.device)
    return torch.where(mask, position, position + count).argsort(dim=1)  # no equal keys: ONNX has no stable sort


def join_in_time(streams: Pair, masks: Pair) -> tuple[Tensor, Pair]:
    """Joins the valid rows of two streams along time, without padding between them.

    Args:
        streams: rows of each stream, ``(batch, rows, dim)``; numbers of rows may differ.
        masks: True where a row is valid, bool ``(batch, rows)``.

    Returns:
        The rows, ``(batch, rows of both, dim)``, and for each stream a mask that is True for its rows, bool ``(batch,
        rows of both)``.
    """
    rows, mask = ragged(list(zip(streams, masks, strict=True)))
    first = torch.arange(rows.shape[1], device=rows.device) < masks[0].sum(dim=1, keepdim=True)
    return rows, (first, mask & ~first)


def join_in_channels(streams: Pair, masks: Pair) -> tuple[Tensor, Pair]:
    """Joins two streams along features; the second is resampled.

    The second stream gets the length of the first.

    Where the first stream is absent, the second keeps its length.

    Args:
        streams: rows of each stream, ``(batch, rows, dim)``, valid rows first; numbers of rows may differ.
        masks: True where a row is valid, bool ``(batch, rows)``.

    Returns:
        The rows, ``(batch, rows of the longer, 2 * dim)``, and for each stream a mask that is True where it has rows,
        bool ``(batch, rows of the longer)``. The masks are equal unless one stream is absent.
    """
    first, second = (stream.masked_fill(~mask[..., None], 0) for stream, mask in zip(streams, masks, strict=True))
    lengths = [mask.sum(dim=1) for mask in masks]
    joined_lengths = torch.where(lengths[0] > 0, lengths[0], lengths[1])
    rows = max(first.shape[1], second.shape[1])
    padded = functional.pad(first, (0, 0, 0, rows - first.shape[1]))
    joined = torch.cat([padded, resampled(second, lengths[1], joined_lengths, rows)], dim=-1)
    within = torch.arange(rows, device=first.device) < joined_lengths[:, None]
    return joined, (within & (lengths[0] > 0)[:, None], within & (lengths[1] > 0)[:, None])


def resampled(x: Tensor, lengths: Tensor, new_lengths: Tensor, rows: int) -> Tensor:
    """Computes linearly resampled rows of each utterance.

    The result equals torch's ``interpolate`` with one utterance.

    Args:
        x: rows, ``(batch, rows, dim)``.
        lengths: number of valid rows of each utterance, int64 ``(batch,)``; 0 repeats the first row.
        new_lengths: number of rows of each utterance after resampling, int64 ``(batch,)``; later rows are undefined.
        rows: number of rows of the result.

    Returns:
        ``(batch, rows, dim)``.
    """
    last = (lengths - 1).clamp(min=0)[:, None]
    scale = (lengths / new_lengths.clamp(min=1))[:, None]
    centres = torch.arange(rows, device=x.device) + 0.5
    position = (centres * scale - 0.5).clamp(min=0).minimum(last)  # (batch, rows)
    low = position.floor().long()
    share = (position - low)[..., None].to(x.dtype)
    return _gather_rows(x, low) * (1 - share) + _gather_rows(x, (low + 1).minimum(last)) * share


def _gather_rows(x: Tensor, index: Tensor) -> Tensor:
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))
