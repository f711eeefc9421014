"""The feature extractor between cached rows and the layers of a head: mix, projection, Transformer layers."""

from torch import Tensor, nn

from fusion.attention import TransformerLayer
from fusion.joint import MaskedRows
from fusion.layers import Front


class Extractor(nn.Module):
    """Takes cached rows to a width and runs post-norm Transformer layers over them.

    Args:
        shape: of one row, ``(dim,)`` or ``(layers, dim)``.
        dim: width of what it gives.
        layers: how many; without any, rows are only mixed and projected.
        heads: of each layer.
        dropout: of each layer.
    """

    def __init__(self, shape: tuple[int, ...], *, dim: int, layers: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.front = Front(shape, dim=dim, adapter=False, dropout=dropout)
        self.layers = nn.ModuleList(
            TransformerLayer(dim=dim, heads=heads, feedforward=4 * dim, dropout=dropout) for _ in range(layers)
        )

    def forward(self, x: Tensor, mask: Tensor) -> MaskedRows:
        """Returns rows ``(batch, rows, dim)`` from ``(batch, rows, ...)`` and bool ``(batch, rows)``."""
        rows = self.front(x.masked_fill(~mask.view(*mask.shape, *[1] * (x.dim() - 2)), 0))
        for layer in self.layers:
            rows = layer(rows, mask)
        return MaskedRows(rows, mask)
