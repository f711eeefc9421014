"""Mul-TAB: self-attention in each modality, a cross-modal encoder and a temporal-aware block.

Paper: MMER-TAB (Applied Sciences 14:3276, 2024, doi:10.3390/app14083276), sections 4 and 5.3.2. The temporal-aware
block is that of TIM-Net (Ye et al., 2023, arXiv:2211.08233) with the changes of the paper.

Where the paper is silent or contradicts itself (docs/decisions.md#mul-tab):

- C-1: features are frozen; a residual adapter precedes each modality.
- C-3: a single modality skips the cross-modal encoder; the classifier reads its pooled vector alone.
- M-2: self-attention is two post-norm Transformer layers per modality, with feed-forward networks.
- M-3: both projections keep the width of the stream and have kernel 1.
- M-4: eq. 6 adds the query stream, the text; the printed stream has another length.
- M-5: 8 heads, and separate weights for each direction.
- M-6: "regular" convolutions have dilation 1, are not causal and have kernel 3; ``causal=true`` has kernel 2.
- M-7: ordinary dropout instead of the spatial dropout of TIM-Net.
- M-8: speech and text are joined along time without padding between them, and averaged separately. With
  ``axis=channel``, text is resampled to the length of speech and joined along features, with kernel 2; if speech is
  absent, the length is that of the text. ``pooling=max`` is an addition, for streams that are not the output of an
  encoder.
- M-9: batch normalization uses valid rows only.
- M-10: GELU is the activation of the feed-forward networks in self-attention; the classifier is dropout and one linear
  layer. Cross entropy is the only loss.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from fusion.head import Batch, Head, HeadOutput
from fusion.head_config import AUDIO, BOTH, TEXT, HeadInputs
from fusion.heads.configs.tab import CHANNEL, TIME, MulTABConfig
from fusion.nn.attention import CrossLayer, TransformerLayer, attention_heads_for
from fusion.nn.dropout import Dropout
from fusion.nn.layers import MaskedBatchNorm, Pool, input_projection
from fusion.nn.sequences import Pair, join_in_channels, join_in_time

ATTENTION_HEADS = 8  # M-5
SUB_BLOCKS = 3  # TAB3 of the paper; the block of TIM-Net has two


class MulTAB(Head):
    """The fusion head of Mul-TAB."""

    config_class, stackable = MulTABConfig, True
    config: MulTABConfig

    def __init__(self, config: MulTABConfig, inputs: HeadInputs) -> None:
        super().__init__(config, inputs)
        self.dim = config.width(inputs.shapes)
        both = config.modalities == BOTH
        learned = config.modality_dropout > 0
        self.streams = nn.ModuleDict({role: _Stream(config, inputs, role) for role in config.roles})
        query_roles = config.roles if both else ()
        self.crossings = nn.ModuleDict({role: self._cross_layer() for role in query_roles})
        channels = 2 * self.dim if both and config.axis == CHANNEL else self.dim
        self.block = TemporalAwareBlock(config, channels) if config.tab else None
        self.pools = nn.ModuleDict(
            {role: Pool(self.dim, kind=config.pooling, learned=learned) for role in config.roles}
        )
        self.dropout = Dropout(config.dropout)
        self.classifier = nn.Linear(len(config.roles) * self.dim, len(inputs.classes))

    def forward(self, batch: Batch) -> HeadOutput:
        """Computes logits ``(batch, classes)``; there is no auxiliary loss."""
        roles = self.config.roles
        encoded = [self.streams[role](batch.features[role], batch.masks[role]) for role in roles]
        masks = [batch.masks[role] for role in roles]
        if len(roles) == 2:
            pooled = self.fuse(self.cross((encoded[0], encoded[1]), (masks[0], masks[1])), (masks[0], masks[1]))
        else:
            pooled = self.pools[roles[0]](self._apply_block(encoded[0], masks[0]), masks[0])
        return HeadOutput(self.classifier(self.dropout(pooled)), embedding=pooled)

    def cross(self, streams: Pair, masks: Pair) -> Pair:
        """Computes the cross-modal encoder of speech and text, eq. 2-6; both streams keep their shape."""
        speech, text = streams
        return self.crossings[AUDIO](speech, text, masks[1]), self.crossings[TEXT](text, speech, masks[0])

    def fuse(self, streams: Pair, masks: Pair) -> Tensor:
        """Joins speech and text (eq. 7) and pools each of them, ``(batch, 2 * dim)``, speech first."""
        in_time = self.config.axis == TIME
        rows, segments = (join_in_time if in_time else join_in_channels)(streams, masks)
        weighted = self._apply_block(rows, segments[0] | segments[1])
        halves = (weighted, weighted) if in_time else weighted.chunk(2, dim=-1)
        pools = (self.pools[AUDIO], self.pools[TEXT])
        pooled = [pool(half, segment) for pool, half, segment in zip(pools, halves, segments, strict=True)]
        return torch.cat(pooled, dim=-1)

    def _cross_layer(self) -> CrossLayer:
        return CrossLayer(
            dim=self.dim,
            heads=attention_heads_for(self.dim, self.config.heads, ATTENTION_HEADS),
            dropout=self.config.dropout,
        )

    def _apply_block(self, x: Tensor, mask: Tensor) -> Tensor:
        return x if self.block is None else self.block(x, mask)


class TemporalAwareBlock(nn.Module):
    """Three convolutional sub-blocks whose sigmoid, a map in [0.5, 1), weighs each element of the input."""

    def __init__(self, config: MulTABConfig, channels: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([_SubBlock(config, channels) for _ in range(SUB_BLOCKS)])

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Returns ``(batch, rows, channels)`` from the same and bool ``(batch, rows)``."""
        hidden = x
        for block in self.blocks:
            hidden = block(hidden, mask)
        return x * hidden.sigmoid()


class MaskedConv(nn.Module):
    """A convolution along time that keeps the number of rows and reads padding as 0."""

    def __init__(self, channels: int, *, kernel: int, causal: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, kernel)
        before = kernel - 1 if causal else (kernel - 1) // 2
        self.margins = (before, kernel - 1 - before)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Returns ``(batch, rows, channels)`` from the same and bool ``(batch, rows)``."""
        valid = x.masked_fill(~mask[..., None], 0).transpose(1, 2)  # (batch, channels, rows)
        convolved: Tensor = self.conv(functional.pad(valid, self.margins)).transpose(1, 2)
        return convolved


class _SubBlock(nn.Module):
    def __init__(self, config: MulTABConfig, channels: int) -> None:
        super().__init__()
        self.conv = MaskedConv(channels, kernel=config.block_kernel, causal=config.causal)
        self.norm = MaskedBatchNorm(channels)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        dropped: Tensor = self.dropout(functional.relu(self.norm(self.conv(x, mask), mask)))
        return dropped


class _Stream(nn.Module):
    """The layers of one modality before the cross-modal encoder: input, self-attention, projection (eq. 1)."""

    def __init__(self, config: MulTABConfig, inputs: HeadInputs, role: str) -> None:
        super().__init__()
        dim = config.width(inputs.shapes)
        self.front = input_projection(config, inputs, role, dim=dim)
        count = config.layers if config.self_attention else 0
        self.layers = nn.ModuleList([_self_attention(config, dim) for _ in range(count)])
        self.project = MaskedConv(dim, kernel=config.kernels[role])

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.front(x)
        for layer in self.layers:
            x = layer(x, mask)
        projected: Tensor = self.project(x, mask)
        return projected


def _self_attention(config: MulTABConfig, dim: int) -> TransformerLayer:
    feedforward = config.feedforward or 4 * dim
    return TransformerLayer(
        dim=dim,
        heads=attention_heads_for(dim, config.heads, ATTENTION_HEADS),
        feedforward=feedforward,
        dropout=config.dropout,
    )
