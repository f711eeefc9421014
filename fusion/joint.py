"""Joint vectors: two streams, each in layers of its own, that exchange nothing but a few vectors.

Shi et al., 2024, arXiv:2405.17900, section 2.3; after the prompts of PMF (Li et al., 2023, arXiv:2304.06306). Vectors
that are learned go through the layer of one stream together with its rows, through an MLP to the width of the other,
and through the other's layer together with its rows. Nothing else of a pass is kept.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fusion.attention import TransformerLayer
from fusion.head import AUDIO, TEXT

SOURCES: Mapping[str, str] = {TEXT: AUDIO, AUDIO: TEXT}  # where the vectors that a stream is given come from
SPREAD = 0.02  # PMF's standard deviation of new vectors


class MaskedRows(NamedTuple):
    """Rows of several utterances, padded on the right: ``(batch, rows, dim)`` and bool ``(batch, rows)``."""

    rows: Tensor
    mask: Tensor


class JointVectors(nn.Module):
    """Learned vectors that gather from one stream and come out at the width of the other.

    Args:
        length: how many.
        source_dim: width of the stream that they gather from.
        dim: width of the stream that they are given to.
    """

    def __init__(self, *, length: int, source_dim: int, dim: int) -> None:
        super().__init__()
        hidden = max(source_dim, dim) // 2
        self.vectors = nn.Parameter(SPREAD * torch.randn(length, source_dim))
        self.mlp = nn.Sequential(nn.Linear(source_dim, hidden), nn.ReLU(), nn.Linear(hidden, dim))

    def forward(self, layer: TransformerLayer, source: MaskedRows) -> MaskedRows:
        """Gives the vectors ``(batch, length, dim)``; none is valid where the source is absent."""
        vectors = self.vectors.expand(len(source.rows), -1, -1)
        valid = torch.ones_like(vectors[..., 0], dtype=torch.bool)
        out = _passed(layer, source, MaskedRows(vectors, valid))
        gathered = out[:, source.rows.shape[1] :]
        return MaskedRows(self.mlp(gathered), valid & source.mask.any(dim=1, keepdim=True))


class JointBlock(nn.Module):
    """One layer of each stream, and the joint vectors between two.

    A layer runs twice with the same weights: once for the vectors that leave its stream and once, with those that
    reach it, for its rows.

    Args:
        layers: by modality.
        length: of the joint vectors in each direction; without any, or alone, a layer runs once.
    """

    def __init__(self, layers: Mapping[str, TransformerLayer], *, length: int) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(layers)
        widths = {modality: layer.linear1.in_features for modality, layer in layers.items()}
        joints = {
            modality: JointVectors(length=length, source_dim=widths[SOURCES[modality]], dim=widths[modality])
            for modality in layers
            if length and SOURCES[modality] in layers
        }
        self.joints = nn.ModuleDict(joints)

    def forward(self, streams: Mapping[str, MaskedRows]) -> dict[str, MaskedRows]:
        """Gives the streams of the next block; those without a layer here stay as they are."""
        joints = {
            modality: vectors(self.layers[SOURCES[modality]], streams[SOURCES[modality]])
            for modality, vectors in self.joints.items()
        }
        after = dict(streams)
        for modality, layer in self.layers.items():
            rows, mask = streams[modality]
            out = _passed(layer, streams[modality], joints.get(modality))
            after[modality] = MaskedRows(out[:, : rows.shape[1]], mask)
        return after


def _passed(layer: nn.Module, stream: MaskedRows, joints: MaskedRows | None) -> Tensor:
    """Runs a layer over a stream and the joint vectors behind it, ``(batch, rows + length, dim)``."""
    rows, mask = stream
    if joints is not None:
        rows, mask = torch.cat([rows, joints.rows], dim=1), torch.cat([mask, joints.mask], dim=1)
    out: Tensor = layer(rows, mask)
    return out
