"""Hyperparameters of Mul-TAB: fields, defaults, checks, and the roles that follow from them."""

from collections.abc import Mapping
from dataclasses import dataclass

from fusion.head_config import AUDIO, TEXT, HeadConfig

POOLING = ("mean", "max")  # of `fusion.nn.layers.POOLING`, those that keep the width
TIME, CHANNEL = "time", "channel"


@dataclass(frozen=True, kw_only=True)
class MulTABConfig(HeadConfig):
    """Configuration of Mul-TAB.

    Attributes:
        heads: number of heads of self-attention and of the cross-modal encoder; 0 for 8, or for the greatest smaller
            number that divides the width.
        layers: number of self-attention layers of each modality.
        feedforward: width of the feed-forward networks in these layers; 0 for four times the width of the head.
        kernel_speech: kernel of the projection of speech in rows, an odd number.
        kernel_text: kernel of the projection of text in rows, an odd number.
        tab: whether the joined streams pass the temporal-aware block before they are pooled.
        self_attention: whether the layers of self-attention exist.
        tab_kernel: kernel of the convolutions of the block in rows; 0 for 3, or for 2 if they are causal or `axis` is
            ``channel``.
        causal: whether a convolution of the block sees no later row.
        axis: dimension along which speech and text are joined, ``time`` or ``channel``.
        pooling: pooling over the valid rows of each modality, ``mean`` as in the paper or ``max``.
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
        if self.layers < 1:
            raise ValueError(f"layers must be at least 1, got {self.layers}")
        if self.heads < 0:
            raise ValueError(f"heads must not be negative, got {self.heads}")
        for name in ("kernel_speech", "kernel_text"):
            if getattr(self, name) < 1 or getattr(self, name) % 2 == 0:
                raise ValueError(f"{name} must be an odd number of rows, got {getattr(self, name)}")
        if self.feedforward < 0:
            raise ValueError(f"feedforward must be a width, or 0 for 4 times that of the head, got {self.feedforward}")
        if self.tab_kernel < 0:
            raise ValueError(f"tab_kernel must be a number of rows, or 0 for the default, got {self.tab_kernel}")
        if self.block_kernel % 2 == 0 and not self.causal and self.axis == TIME:
            raise ValueError(f"tab_kernel must be odd unless causal, got {self.tab_kernel}")

    @property
    def block_kernel(self) -> int:
        """Kernel of the convolutions of the temporal-aware block, in rows."""
        return self.tab_kernel or (2 if self.causal or self.axis == CHANNEL else 3)

    @property
    def kernels(self) -> Mapping[str, int]:
        """Kernel of the projection of each modality, in rows."""
        return {AUDIO: self.kernel_speech, TEXT: self.kernel_text}
