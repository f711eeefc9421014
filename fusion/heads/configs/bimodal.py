"""Hyperparameters of bi-modal bi-task: fields, defaults, checks, and the roles that follow from them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import ClassVar

from fusion.head_config import AUDIO, BOTH, TEXT, HeadConfig, view_role

BLOCKS = {"ccb1": (AUDIO, TEXT), "ccb2": (TEXT, AUDIO)}  # name -> query, key and value
POOLING, POSITIVES = ("max", "attn"), ("view", "class")
CPC, SUPERVISED, AUGMENTED = TERMS = ("cpc", "supervised", "augmented")
LOSSES: Mapping[str, str] = {CPC: "cpc", SUPERVISED: "supervised", AUGMENTED: "ecl"}  # term -> name of its loss
AUTO, NONE = "auto", "none"
TASKS = (AUTO, NONE, *("+".join(names) for count in (1, 2, 3) for names in combinations(TERMS, count)))


@dataclass(frozen=True, kw_only=True)
class BimodalConfig(HeadConfig):
    """Configuration of bi-modal bi-task.

    Attributes:
        tasks: auxiliary terms of the loss, joined by ``+`` in this order: ``cpc`` (predictive coding), ``supervised``
            (contrast with another utterance of the class), ``augmented`` (contrast with the augmented view of the
            utterance); or ``none``; or ``auto`` for ``cpc+augmented`` if the cache has views and ``cpc+supervised`` if
            not.
        alpha: weight of ``cpc``, and of ``supervised`` in ``supervised+augmented``.
        beta: weight of ``augmented``, and of ``supervised`` without it.
        gamma: weight of ``supervised`` in ``cpc+supervised+augmented``.
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
        tau: temperature of the contrastive terms.
        positive: with ``tasks=auto``, ``class`` stands for ``tasks=cpc+supervised``.
        augmentation: with ``tasks=auto``, whether augmented views are read if the cache has them.
    """

    per_model: ClassVar[frozenset[str]] = HeadConfig.per_model | {"alpha", "beta", "gamma"}

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
    tasks: str = AUTO
    gamma: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, allowed in (("pooling", POOLING), ("positive", POSITIVES), ("tasks", TASKS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        for name in ("alpha", "beta", "gamma", "heads", "feedforward", "gru_dim"):
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
        self._check_tasks()

    @property
    def blocks(self) -> tuple[str, ...]:
        """Keys of `BLOCKS` whose block exists."""
        return tuple(name for name, (query, _) in BLOCKS.items() if getattr(self, name) and self.reads(query))

    @property
    def causal(self) -> bool:
        """True if there is a context that does not depend on later frames, which CPC needs (B-10)."""
        return self.modalities == BOTH and self.ccb1

    @property
    def terms(self) -> tuple[str, ...]:
        """The requested auxiliary terms; with ``auto``, those of a cache with views."""
        if self.tasks == NONE:
            return ()
        if self.tasks != AUTO:
            return tuple(self.tasks.split("+"))
        if self.positive == "class":
            return CPC, SUPERVISED
        return (CPC, AUGMENTED) if self.augmentation else (CPC,)

    @property
    def optional_roles(self) -> tuple[str, ...]:
        """Roles of the augmented views, if one of the terms reads them."""
        return tuple(view_role(role) for role in self.roles) if self.weights[AUGMENTED] > 0 else ()

    @property
    def needs_view(self) -> bool:
        """True if the requested terms need a stream of augmented views."""
        return self.tasks != AUTO and self.weights[AUGMENTED] > 0

    def bound_to(self, roles: Collection[str]) -> "BimodalConfig":
        """Returns the configuration with the terms that ``auto`` stands for on a cache without views.

        On a cache with views it stays as it is: earlier versions trained the same there.

        Args:
            roles: roles for which streams are selected.
        """
        has_views = any(role in roles for role in self.optional_roles)
        if self.tasks != AUTO or self.positive == "class" or not self.beta or has_views:
            return self
        return replace(self, tasks=f"{CPC}+{SUPERVISED}" if self.causal else SUPERVISED)

    @property
    def needs_classes(self) -> str:
        """The contrastive terms, if one is trained."""
        if not self.weights[SUPERVISED] and not self.weights[AUGMENTED]:
            return ""
        return f"its contrastive terms compare classes; pass --set tasks={CPC if self.causal else NONE}"

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """Weight of the loss of each term."""
        return {LOSSES[name]: weight for name, weight in self.weights.items()}

    @property
    def weights(self) -> Mapping[str, float]:
        """Weight of each term; 0 for a term that is not requested, and for CPC without a causal context."""
        terms = self.terms
        supervised = self.beta
        if AUGMENTED in terms:
            supervised = self.gamma if CPC in terms else self.alpha
        weights = {CPC: self.alpha if self.causal else 0.0, SUPERVISED: supervised, AUGMENTED: self.beta}
        return {name: weight if name in terms else 0.0 for name, weight in weights.items()}

    def _check_tasks(self) -> None:
        """Checks that the fields that name terms do not contradict each other, and that a term is left."""
        if self.tasks == AUTO:
            return
        if self.positive == "class":
            raise ValueError(
                f"positive=class is for tasks=auto, got tasks={self.tasks}; name supervised in tasks instead"
            )
        if AUGMENTED in self.terms and not self.augmentation:
            raise ValueError(f"tasks={self.tasks} reads augmented views, got augmentation=False; leave one of them out")
        if self.tasks == CPC and not self.causal:
            raise ValueError(
                f"tasks={CPC} needs both modalities and ccb1, got modalities={self.modalities} and ccb1={self.ccb1}; "
                f"choose tasks={SUPERVISED}, {AUGMENTED} or {NONE}"
            )
