"""One direction of a cross-modal encoder without feed-forward: one stream attends to the other."""

from torch import Tensor, nn

from fusion.attention import Attention


class CrossLayer(nn.Module):
    """Adds to a stream what it finds in the other, and normalizes; over an absent one it only normalizes."""

    def __init__(self, *, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(dim=dim, heads=heads, dropout=dropout)
        self.norm = nn.LayerNorm(dim)

    def forward(self, query: Tensor, other: Tensor, other_mask: Tensor) -> Tensor:
        """Returns ``(batch, queries, dim)`` from the same, ``(batch, keys, dim)`` and bool ``(batch, keys)``."""
        crossed: Tensor = self.norm(query + self.attention(query, other, other_mask))
        return crossed
