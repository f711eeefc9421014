"""Hyperparameters of the baseline heads: fields, defaults, checks, and the roles that follow from them."""

from collections.abc import Mapping
from dataclasses import dataclass

from fusion.head_config import ALL, AUDIO, BOTH, HISTORY_POOLS, OWN, TEXT, TOKENS, HeadConfig

POOLING = ("mean", "max", "meanstd", "attention")  # keys of `fusion.nn.layers.POOLING`
PROBE_POOLING = ("mean", "max", "meanstd")  # those without weights of their own


@dataclass(frozen=True, kw_only=True)
class PooledConfig(HeadConfig):
    """Configuration of a head that pools each modality.

    Attributes:
        pooling: ``mean``, ``max``, ``meanstd`` (mean and standard deviation), or ``attention`` (the same, weighted by
            learned attention).
        history_pool: tokens that are pooled of a text stream with history, ``own`` (those of the current turn) or
            ``all``.
    """

    pooling: str = "mean"
    history_pool: str = ALL

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pooling not in POOLING:
            raise ValueError(f"pooling must be one of {', '.join(POOLING)}, got {self.pooling!r}")
        if self.history_pool not in HISTORY_POOLS:
            raise ValueError(f"history_pool must be one of {', '.join(HISTORY_POOLS)}, got {self.history_pool!r}")

    @property
    def roles(self) -> tuple[str, ...]:
        """The modalities, and the spans of tokens if only those of the current turn are pooled."""
        return (*self.branches, *((TOKENS,) if self.history_pool == OWN and self.reads(TEXT) else ()))


@dataclass(frozen=True, kw_only=True)
class UnimodalConfig(PooledConfig):
    """Configuration of a model of one modality.

    Attributes:
        normalize: whether the features of each utterance are normalized to mean 0 and variance 1, over all rows and
            dimensions together, for each layer of a stacked stream alone.
        hidden: width of a linear layer with ReLU that each row passes before pooling; 0 for no such layer.
    """

    adapter: bool = False
    modalities: str = AUDIO
    normalize: bool = False
    hidden: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.normalize and self.standardize:
            raise ValueError("normalize uses the utterance, standardize the training subset; set only one of them")
        if self.hidden < 0:
            raise ValueError(f"hidden must be a width, or 0 for no hidden layer, got {self.hidden}")
        if self.modalities == BOTH:
            raise ValueError(f"modalities must be {AUDIO} or {TEXT} for a unimodal model, got {BOTH!r}")


@dataclass(frozen=True, kw_only=True)
class ProbeConfig(PooledConfig):
    """Configuration of a linear probe; of the training fields it reads ``monitor`` and ``class_weights``."""

    adapter: bool = False
    dropout: float = 0.0
    pooling: str = "meanstd"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pooling not in PROBE_POOLING:
            raise ValueError(f"pooling of a probe must be one of {', '.join(PROBE_POOLING)}, got {self.pooling!r}")
        if self.standardize:
            raise ValueError("standardize must be false for a probe, which standardizes pooled vectors; leave it out")
        for name in ("adapter", "tuned_adapter", "dropout", "modality_dropout", "dim"):
            if getattr(self, name):
                raise ValueError(f"{name} has no effect on a probe, which is one linear layer; leave it out")


@dataclass(frozen=True, kw_only=True)
class ScoreConfig(PooledConfig):
    """Configuration of two unimodal models whose logits are added."""

    adapter: bool = False

    def unimodal(self, modality: str) -> UnimodalConfig:
        """Returns the configuration of the model of a modality; with `dim` 0, its width is that of its stream."""
        names = ("dim", "adapter", "dropout", "pooling", "standardize", "history_pool")
        shared = {name: getattr(self, name) for name in names}
        return UnimodalConfig(**shared, modalities=modality)

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """Weight 1 for the cross entropy of each model."""
        return dict.fromkeys(self.branches, 1.0)


@dataclass(frozen=True, kw_only=True)
class ConcatConfig(PooledConfig):
    """Configuration of the concatenation of pooled features."""


@dataclass(frozen=True, kw_only=True)
class CrossAttentionConfig(PooledConfig):
    """Configuration of cross-attention.

    Attributes:
        heads: number of attention heads; 0 for 8, or for the greatest smaller number that divides the width.
    """

    heads: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.heads < 0:
            raise ValueError(f"heads must not be negative, got {self.heads}")
