"""Attention, Transformer layers and cross-modal layers over masked rows.

Parameters have the names, shapes and initial values of torch's ``MultiheadAttention`` and ``TransformerEncoderLayer``,
so that stored layers can be loaded. The classes of torch are not used, because their dropout draws from global random
generators; these layers use `fusion.nn.dropout.Dropout`.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from fusion.nn.dropout import Dropout


def attention_heads_for(dim: int, requested: int, usual: int) -> int:
    """Returns the number of attention heads for a width.

    Args:
        dim: width.
        requested: number of heads; 0 for the greatest divisor of the width up to `usual`.
        usual: default number of heads.

    Raises:
        ValueError: if the requested number does not divide the width.

    Example:
        >>> attention_heads_for(768, 0, usual=12), attention_heads_for(64, 0, usual=12)
        (12, 8)
    """
    divisors = [heads for heads in range(1, dim + 1) if dim % heads == 0]
    if requested and requested not in divisors:
        raise ValueError(f"heads must divide the width {dim}: one of {', '.join(map(str, divisors))}, got {requested}")
    return requested or max(heads for heads in divisors if heads <= usual)


class Attention(nn.Module):
    """Multi-head attention of a stream over another or itself; 0 for an utterance without a valid key."""

    def __init__(self, *, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"width {dim} cannot be divided among {heads} heads; choose another dim or heads")
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        self.dropout = Dropout(dropout)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, key: Tensor, key_mask: Tensor) -> Tensor:
        """Computes attention of queries over keys.

        Args:
            query: ``(batch, queries, dim)``.
            key: keys and values, ``(batch, keys, dim)``.
            key_mask: True where a key is valid, bool ``(batch, keys)``.

        Returns:
            ``(batch, queries, dim)``, 0 for an utterance without a valid key.
        """
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = (
            self._by_head(functional.linear(stream, weight, bias))
            for stream, weight, bias in zip((query, key, key), weights, biases, strict=True)
        )  # (batch, heads, rows, dim of a head)
        present = key_mask.any(dim=1)
        seen = (key_mask | ~present[:, None])[:, None, None]  # (batch, 1, 1, keys); a softmax over no key is NaN
        if self.training and self.dropout.active:
            scores = (q @ k.transpose(-1, -2)).div_(q.shape[-1] ** 0.5)  # in place: the largest tensor of a head
            unseen = torch.zeros_like(seen, dtype=scores.dtype).masked_fill_(~seen, float("-inf"))
            mixed = self.dropout(scores.add_(unseen).softmax(dim=-1)) @ v
        else:
            mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        attended: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(-2))
        return attended * present[:, None, None]

    def _by_head(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], self.heads, x.shape[-1] // self.heads).transpose(1, 2)


class TransformerLayer(nn.Module):
    """A Transformer encoder layer with GELU (Vaswani et al., 2017, arXiv:1706.03762); may attend to a memory."""

    def __init__(
        self,
        *,
        dim: int,
        heads: int,
        feedforward: int,
        dropout: float,
        norm_first: bool = False,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.self_attn = Attention(dim=dim, heads=heads, dropout=dropout)
        self.linear1 = nn.Linear(dim, feedforward)
        self.linear2 = nn.Linear(feedforward, dim)
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.dropouts = nn.ModuleList([Dropout(dropout) for _ in range(3)])
        self.norm_first = norm_first

    def forward(self, x: Tensor, mask: Tensor, memory: Tensor | None = None) -> Tensor:
        """Returns ``(batch, rows, dim)``.

        Args:
            x: queries, ``(batch, rows, dim)``.
            mask: True where a key is valid, bool: ``(batch, keys)`` with a memory, else ``(batch, rows)``.
            memory: keys and values, ``(batch, keys, dim)``; `x` itself if None.
        """
        if self.norm_first:
            normed = self.norm1(x)
            x = x + self.dropouts[0](self.self_attn(normed, normed if memory is None else memory, mask))
            return x + self._feedforward(self.norm2(x))
        x = self.norm1(x + self.dropouts[0](self.self_attn(x, x if memory is None else memory, mask)))
        fed: Tensor = self.norm2(x + self._feedforward(x))
        return fed

    def _feedforward(self, x: Tensor) -> Tensor:
        hidden = self.dropouts[1](functional.gelu(self.linear1(x)))
        fed: Tensor = self.dropouts[2](self.linear2(hidden))
        return fed


class CrossLayer(nn.Module):
    """One direction of a cross-modal encoder without feed-forward: a stream attends to another.

    The result is normalized. If the other stream is absent, the stream is only normalized.
    """

    def __init__(self, *, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(dim=dim, heads=heads, dropout=dropout)
        self.norm = nn.LayerNorm(dim)

    def forward(self, query: Tensor, other: Tensor, other_mask: Tensor) -> Tensor:
        """Returns the stream with the attended rows added, normalized.

        Args:
            query: ``(batch, queries, dim)``.
            other: keys and values, ``(batch, keys, dim)``.
            other_mask: True where a key is valid, bool ``(batch, keys)``.

        Returns:
            ``(batch, queries, dim)``.
        """
        crossed: Tensor = self.norm(query + self.attention(query, other, other_mask))
        return crossed
