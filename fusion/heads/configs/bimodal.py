"""Hyperparameters of bi-modal bi-task: fields, defaults, checks, and the roles that follow from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from fusion.head_config import AUDIO, BOTH, TEXT, HeadConfig, view_role

BLOCKS = {"ccb1": (AUDIO, TEXT), "ccb2": (TEXT, AUDIO)}  # name -> query, key and value
POOLING, POSITIVES = ("max", "attn"), ("view", "class")


@dataclass(frozen=True, kw_only=True)
class BimodalConfig(HeadConfig):
    """Configuration of bi-modal bi-task.

    Attributes:
        alpha: weight of CPC.
        beta: weight of ECL.
        ccb1: whether the block exists in which audio is the query and text is key and value.
        ccb2: whether the block exists in which text is the query and audio is key and value.
        heads: number of attention heads of each block; 0 for 12, or for the greatest smaller number that divides the
            width.
        feedforward: width of the feed-forward network of a block; 0 for four times the width of the head.
        gru_dim: width of each direction of the BiGRU; 0 for half the width of the head.
        pooling: ``max`` or ``attn``.
        cpc_steps: number of later frames that CPC predicts.
        cpc_dim: width in which CPC compares predictions with frames.
        cpc_anchors: maximum number of contexts per utterance.
        cpc_negatives: number of other frames from which each prediction must separate its frame.
        tau: temperature of ECL.
        positive: positive of ECL: ``view`` for the augmented view of the utterance, ``class`` for another utterance of
            its class.
        augmentation: whether augmented views are read; if not, the head works as on a cache without views.
    """

    per_model: ClassVar[frozenset[str]] = HeadConfig.per_model | {"alpha", "beta"}

    alpha: float = 0.1
    beta: float = 0.1
    ccb1: bool = True
    ccb2: bool = True
    heads: int = 0
    feedforward: int = 0
    gru_dim: int = 0
    pooling: str = "max"
    cpc_steps: int = 12
    cpc_dim: int = 256
    cpc_anchors: int = 32
    cpc_negatives: int = 128
    tau: float = 0.1
    positive: str = "view"
    augmentation: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, allowed in (("pooling", POOLING), ("positive", POSITIVES)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        for name in ("alpha", "beta", "heads", "feedforward", "gru_dim"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("cpc_steps", "cpc_dim", "cpc_anchors", "cpc_negatives"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.tau <= 0:
            raise ValueError(f"tau must be above 0, got {self.tau}")
        if not self.blocks:
            needed = " or ".join(name for name, (query, _) in BLOCKS.items() if self.reads(query))
            raise ValueError(f"the BiGRU of modalities={self.modalities!r} has no input; switch on {needed}")

    @property
    def blocks(self) -> tuple[str, ...]:
        """Keys of `BLOCKS` whose block exists."""
        return tuple(name for name, (query, _) in BLOCKS.items() if getattr(self, name) and self.reads(query))

    @property
    def optional_roles(self) -> tuple[str, ...]:
        """Roles of the augmented views that ECL reads if the cache has them."""
        wanted = self.loss_weights["ecl"] > 0 and self.positive == "view"
        return tuple(view_role(role) for role in self.roles) if wanted else ()

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """Weights of ``cpc``, 0 if no context is causal, and of ``ecl``, 0 if there are no positives."""
        causal, positive = self.modalities == BOTH and self.ccb1, self.augmentation or self.positive == "class"
        return {"cpc": self.alpha if causal else 0.0, "ecl": self.beta if positive else 0.0}
