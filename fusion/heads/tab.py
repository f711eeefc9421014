"""Mul-TAB: self-attention in each modality, a cross-modal encoder, and a temporal-aware block (system 002).

Paper: MMER-TAB (Applied Sciences 14:3276, 2024, doi:10.3390/app14083276), sections 4 and 5.3.2. The temporal-aware
block is that of TIM-Net (Ye et al., 2023, arXiv:2211.08233) as the paper changes it.

Where the paper is silent or contradicts itself (systems.md 4):

- C-1: features are frozen; a residual adapter stands before each modality.
- C-3: one modality skips the cross-modal encoder; the classifier reads its pooled vector alone.
- M-2: self-attention is two post-norm Transformer layers per modality, with feed-forward.
- M-3: the width stays that of the stream; both projections have kernel 1.
- M-4: eq. 6 adds the stream of the query, the text; the printed one has another length.
- M-5: eight heads, separate weights in each direction.
- M-6: "regular" convolution: dilation 1, not causal, kernel 3; ``causal`` is there, with kernel 2.
- M-7: ordinary dropout instead of TIM-Net's spatial one.
- M-8: speech and text are joined along time, without padding between them, and averaged apart (``pooling=max`` is
  ours, for streams that no encoder has made); with ``axis=channel``,
  text is resampled to the length of speech and joined along features, with kernel 2. Where speech is absent, the
  length is that of the text.
- M-9: batch normalization sees valid rows only.
- M-10: GELU in the feed-forward of the self-attention; the classifier is dropout and one linear layer.
- Cross entropy is the only loss.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from fusion.head import AUDIO, BOTH, TEXT, Batch, Head, HeadConfig, HeadInputs, HeadOutput
from fusion.nn.attention import CrossLayer, TransformerLayer, attention_heads_for
from fusion.nn.dropout import Dropout
from fusion.nn.layers import POOLING, MaskedBatchNorm, Pool, input_projection
from fusion.nn.sequences import Pair, joined_in_channels, joined_in_time

TIME, CHANNEL = "time", "channel"
ATTENTION_HEADS = 8  # M-5
SUB_BLOCKS = 3  # TAB3: TIM-Net's block has two


@dataclass(frozen=True, kw_only=True)
class MulTABConfig(HeadConfig):
    """What Mul-TAB can be told.

    Attributes:
        heads: of self-attention and of the cross-modal encoder; 0 for 8, or the greatest number below that divides
            the width.
        layers: of self-attention in each modality.
        feedforward: width within these layers; 0 for four times the head's.
        kernel_speech: rows that the projection of speech sees, an odd number.
        kernel_text: rows that the projection of text sees, an odd number.
        tab: the temporal-aware block; without it the joined streams are pooled as they are.
        self_attention: the layers of self-attention.
        tab_kernel: rows that a convolution of the block sees; 0 for 3, or 2 where it is causal or over channels.
        causal: convolutions of the block see no later row.
        axis: ``time`` or ``channel``, along which speech and text are joined.
        pooling: ``mean``, the paper's, or ``max``, over the valid rows of each modality.
    """

    heads: int = 0
    layers: int = 2
    feedforward: int = 0
    kernel_speech: int = 1
    kernel_text: int = 1
    tab: bool = True
    self_attention: bool = True
    tab_kernel: int = 0
    causal: bool = False
    axis: str = TIME
    pooling: str = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.axis not in {TIME, CHANNEL}:
            raise ValueError(f"axis must be {TIME} or {CHANNEL}, got {self.axis!r}")
        if self.pooling not in POOLING:
            raise ValueError(f"pooling must be one of {', '.join(POOLING)}, got {self.pooling!r}")
        if self.layers < 1 or self.heads < 0:
            raise ValueError(f"layers must be at least 1, got {self.layers}; heads not negative, got {self.heads}")
        for name in ("kernel_speech", "kernel_text"):
            if getattr(self, name) < 1 or getattr(self, name) % 2 == 0:
                raise ValueError(f"{name} must be an odd number of rows, got {getattr(self, name)}")
        if self.feedforward < 0:
            raise ValueError(f"feedforward must be a width, or 0 for four times the head's, got {self.feedforward}")
        if self.tab_kernel < 0:
            raise ValueError(f"tab_kernel must be a number of rows, or 0 for the default, got {self.tab_kernel}")
        if self.block_kernel % 2 == 0 and not self.causal and self.axis == TIME:
            raise ValueError(f"tab_kernel must be odd unless causal, got {self.tab_kernel}")

    @property
    def block_kernel(self) -> int:
        """Rows that a convolution of the block sees."""
        return self.tab_kernel or (2 if self.causal or self.axis == CHANNEL else 3)

    @property
    def kernels(self) -> Mapping[str, int]:
        """Rows that the projection of each modality sees."""
        return {AUDIO: self.kernel_speech, TEXT: self.kernel_text}


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
        asking = config.roles if both else ()
        self.crossings = nn.ModuleDict({role: self._crossing() for role in asking})
        channels = 2 * self.dim if both and config.axis == CHANNEL else self.dim
        self.block = TemporalAwareBlock(config, channels) if config.tab else None
        self.pools = nn.ModuleDict(
            {role: Pool(self.dim, kind=config.pooling, learned=learned) for role in config.roles}
        )
        self.dropout = Dropout(config.dropout)
        self.classifier = nn.Linear(len(config.roles) * self.dim, len(inputs.classes))

    def forward(self, batch: Batch) -> HeadOutput:
        """Gives logits ``(batch, classes)``; there is no auxiliary loss."""
        roles = self.config.roles
        encoded = [self.streams[role](batch.features[role], batch.masks[role]) for role in roles]
        masks = [batch.masks[role] for role in roles]
        if len(roles) == 2:
            pooled = self.fuse(self.cross((encoded[0], encoded[1]), (masks[0], masks[1])), (masks[0], masks[1]))
        else:
            pooled = self.pools[roles[0]](self._aware(encoded[0], masks[0]), masks[0])
        return HeadOutput(self.classifier(self.dropout(pooled)))

    def cross(self, streams: Pair, masks: Pair) -> Pair:
        """Lets speech and text attend to each other, eq. 2-6; lengths stay."""
        speech, text = streams
        return self.crossings[AUDIO](speech, text, masks[1]), self.crossings[TEXT](text, speech, masks[0])

    def fuse(self, streams: Pair, masks: Pair) -> Tensor:
        """Joins speech and text, eq. 7, and pools each; ``(batch, 2 dim)``, speech first."""
        in_time = self.config.axis == TIME
        rows, segments = (joined_in_time if in_time else joined_in_channels)(streams, masks)
        aware = self._aware(rows, segments[0] | segments[1])
        halves = (aware, aware) if in_time else aware.chunk(2, dim=-1)
        pools = (self.pools[AUDIO], self.pools[TEXT])
        pooled = [pool(half, own) for pool, half, own in zip(pools, halves, segments, strict=True)]
        return torch.cat(pooled, dim=-1)

    def _crossing(self) -> CrossLayer:
        return CrossLayer(
            dim=self.dim,
            heads=attention_heads_for(self.dim, self.config.heads, ATTENTION_HEADS),
            dropout=self.config.dropout,
        )

    def _aware(self, x: Tensor, mask: Tensor) -> Tensor:
        return x if self.block is None else self.block(x, mask)


class TemporalAwareBlock(nn.Module):
    """Weighs each element by a map in [0.5, 1) that three convolutional sub-blocks make of its surroundings."""

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
    """A convolution along time to which padding is silence; the number of rows stays."""

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
    """One modality until it meets the other: front, self-attention, projection (eq. 1)."""

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
