"""Bi-modal bi-task: cross-modal coding, a BiGRU over both, predictive coding and contrast of augmented views beside.

Paper: Applied Artificial Intelligence, 2024, https://doi.org/10.1080/08839514.2024.2356992, eq. 1-3 and Fig. 2.
Specification: systems.md 3. Where the paper is silent or contradicts itself:
    B-1: CCB1 asks with audio and reads text, CCB2 the reverse (eq. 1 and the ablation; headings are swapped in print).
    B-2: each block is a whole post-norm Transformer layer of 12 heads, four times as wide inside.
    B-3: one BiGRU of half the width per direction reads the rows of CCB1, then those of CCB2, without padding between.
    B-4: mp is the maximum over valid rows; ``pooling="attn"`` weighs them instead.
    B-5: CPC as van den Oord et al.; its context is the forward half of the BiGRU, which has heard no later frame.
        One draw of negatives serves all anchors and steps of an utterance; the mean is over the anchors of a batch.
        Frames of a wav2vec 2.0 have seen each other already, so that the task is easier than the original.
    B-6, B-7: augmented views are streams of the cache, not made here.
    B-8: the projection, the norm and tau of ECL; the positive is the utterance's own view, so that without augmentation
        there is no ECL. ``positive="class"`` is eq. 3 as printed: originals only, the positive being the next of its
        class in the batch.
    B-9: the extra losses of the paper's total are those of CPC and ECL.
    B-10: of audio alone, CCB1 attends to itself, the BiGRU reads only that, and CPC is off; of text CCB2 likewise.
        A block that is switched off gives the BiGRU nothing; without CCB1, CPC is off.
    B-12: audio is the last hidden state; another layer is another stream.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from fusion.data.views import view_role, with_views
from fusion.head import AUDIO, BOTH, TEXT, Batch, Head, HeadConfig, HeadInputs, HeadOutput, TrainingRows
from fusion.losses.contrastive import n_pair_loss, next_of_class
from fusion.losses.cpc import PredictiveCoding
from fusion.nn.attention import TransformerLayer, attention_heads_for
from fusion.nn.layers import Pool, input_projection, lowest
from fusion.nn.sequences import RaggedGRU

ATTENTION_HEADS = 12  # B-2
BLOCKS = {"ccb1": (AUDIO, TEXT), "ccb2": (TEXT, AUDIO)}  # who asks, and who is read
POOLING, POSITIVES = ("max", "attn"), ("view", "class")


@dataclass(frozen=True, kw_only=True)
class BimodalConfig(HeadConfig):
    """Fields of `Bimodal`.

    Attributes:
        alpha: weight of CPC.
        beta: weight of ECL.
        ccb1: the block of audio that reads text.
        ccb2: the block of text that reads audio.
        heads: of either block; 0 for 12, or the greatest number below 12 that divides the width.
        feedforward: width inside a block; 0 for four times that of the head.
        gru_dim: width of the BiGRU in either direction; 0 for half that of the head.
        pooling: ``max`` or ``attn``.
        cpc_steps: frames that are told ahead.
        cpc_dim: width in which they are told.
        cpc_anchors: contexts per utterance, at most.
        cpc_negatives: frames to tell each from.
        tau: temperature of ECL.
        positive: of ECL: ``view`` for the augmented view of the utterance, ``class`` for another of its class.
        augmentation: whether augmented views are read; off, all is as on a cache that has none.
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
            raise ValueError(f"nothing reaches the BiGRU of modalities={self.modalities!r}; switch {needed} on")

    @property
    def blocks(self) -> tuple[str, ...]:
        """The coding blocks that there are."""
        return tuple(name for name, (query, _) in BLOCKS.items() if getattr(self, name) and self.reads(query))

    @property
    def optional_roles(self) -> tuple[str, ...]:
        """The augmented views that ECL takes."""
        wanted = self.loss_weights["ecl"] > 0 and self.positive == "view"
        return tuple(view_role(role) for role in self.roles) if wanted else ()

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """Weights of ``cpc``, 0 where no context is causal, and ``ecl``, 0 where nothing is its positive."""
        causal, positive = self.modalities == BOTH and self.ccb1, self.augmentation or self.positive == "class"
        return {"cpc": self.alpha if causal else 0.0, "ecl": self.beta if positive else 0.0}


class Bimodal(Head):
    """The head of the bi-modal bi-task system."""

    config_class, stackable = BimodalConfig, True
    config: BimodalConfig

    def __init__(self, config: BimodalConfig, inputs: HeadInputs) -> None:
        super().__init__(config, inputs)
        self.views = _checked_views(config, inputs)
        dim, dropout = config.width(inputs.shapes), config.dropout
        hidden = config.gru_dim or dim // 2
        inner = config.feedforward or 4 * dim
        self.fronts = nn.ModuleDict({role: input_projection(config, inputs, role, dim=dim) for role in config.roles})
        heads = attention_heads_for(dim, config.heads, ATTENTION_HEADS)
        self.blocks = nn.ModuleDict(
            {name: TransformerLayer(dim=dim, heads=heads, feedforward=inner, dropout=dropout) for name in config.blocks}
        )
        self.gru = RaggedGRU(dim, hidden)
        learned = config.modality_dropout > 0
        self.pool_rows = _pool(dim, config.pooling, learned=learned)
        # with both blocks on, some row reaches the BiGRU unless both modalities are absent: nothing to learn there
        self.pool_states = _pool(2 * hidden, config.pooling, learned=learned and len(config.blocks) == 1)
        self.classifier = nn.Linear(dim + 2 * hidden, len(inputs.classes))
        predicts = config.loss_weights["cpc"] > 0
        self.coding = _coding(config, dim, hidden) if predicts else None
        contrasts = config.loss_weights["ecl"] > 0 and (bool(self.views) or not config.optional_roles)
        self.projection = _projection(dim + 2 * hidden, dim) if contrasts else None

    def forward(self, batch: Batch) -> HeadOutput:
        """Returns logits ``(batch, classes)``, and in training mode the losses ``cpc`` and ``ecl``."""
        count, augmented = len(batch), None
        if self.training and self.views:
            batch, augmented = with_views(batch, self.config.roles)
        rows = {role: front(batch.features[role]) for role, front in self.fronts.items()}
        states, mask = self.gru(self.coded(rows, batch.masks))
        first = self.config.roles[0]
        pair = torch.cat([self.pool_rows(rows[first], batch.masks[first]), self.pool_states(states, mask)], dim=1)
        losses = {}
        if self.training and self.coding is not None:
            losses["cpc"] = self.coding(rows[AUDIO][:count], states[:count], batch.masks[AUDIO][:count])
        if self.training and self.projection is not None:
            losses["ecl"] = self._contrast(pair, batch.labels[:count], augmented)
        return HeadOutput(self.classifier(pair[:count]), losses)

    def coded(self, rows: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Gives what each block makes of the adapted rows, ``(batch, rows, dim)``, and where it is valid."""
        streams = []
        for name, block in self.blocks.items():
            asks, read = BLOCKS[name]
            read = read if read in rows else asks
            streams.append((block(rows[asks], masks[read], rows[read]), masks[asks]))
        return streams

    def prepare(self, rows: TrainingRows) -> list[str]:
        """Learns nothing; tells which loss is off, and why."""
        notes = []
        if self.config.alpha > 0 and self.coding is None:
            notes.append("CPC is off: it takes both modalities and ccb1")
        if self.config.beta > self.config.loss_weights["ecl"]:
            notes.append("ECL is off: no augmentation; positive=class does without")
        missing = [role for role in self.config.optional_roles if role not in self.views]
        if missing and not self.views:
            notes.append(f"ECL is off: no stream for {' or '.join(missing)}; positive=class does without")
        elif missing:
            notes.append(f"the views of ECL repeat what has no stream for {missing[0]}")
        return notes

    def _contrast(self, pair: Tensor, labels: Tensor, augmented: Tensor | None) -> Tensor:
        """Gives ECL of pooled originals, followed by their views if `augmented` says which of these count."""
        assert self.projection is not None
        embedded = functional.normalize(self.projection(pair), dim=1)
        differ = labels[:, None] != labels  # (batch, batch)
        if augmented is None:
            places, paired = next_of_class(labels)
            return n_pair_loss(embedded, embedded[places], embedded, differ & paired[:, None], tau=self.config.tau)
        originals, views = embedded.chunk(2)
        negative = torch.cat([differ, differ & augmented], dim=1) & augmented[:, None]
        return n_pair_loss(originals, views, embedded, negative, tau=self.config.tau)


class AttentionPool(nn.Module):
    """Pools the valid rows of each utterance by learned weights; an absent modality as `Pool` does."""

    def __init__(self, dim: int, *, learned: bool) -> None:
        super().__init__()
        self.score = nn.Linear(dim, 1, bias=False)  # softmax would cancel a bias
        self.pool = Pool(dim, kind="mean", learned=learned)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Returns ``(batch, dim)`` from ``(batch, rows, dim)`` and bool ``(batch, rows)``."""
        scores = self.score(x)
        weights = scores.masked_fill(~mask[..., None], lowest(scores)).softmax(dim=1)
        pooled: Tensor = self.pool((weights * x).sum(dim=1, keepdim=True), mask.any(dim=1, keepdim=True))
        return pooled


def _pool(dim: int, kind: str, *, learned: bool) -> nn.Module:
    return AttentionPool(dim, learned=learned) if kind == "attn" else Pool(dim, kind=kind, learned=learned)


def _coding(config: BimodalConfig, dim: int, context: int) -> PredictiveCoding:
    return PredictiveCoding(
        dim=dim,
        context=context,
        shared=config.cpc_dim,
        steps=config.cpc_steps,
        anchors=config.cpc_anchors,
        negatives=config.cpc_negatives,
    )


def _projection(dim: int, inner: int) -> nn.Module:
    return nn.Sequential(nn.Linear(dim, inner), nn.GELU(), nn.Linear(inner, inner))


def _checked_views(config: BimodalConfig, inputs: HeadInputs) -> tuple[str, ...]:
    """Gives the roles of augmented views that there are."""
    views = tuple(view for view in config.optional_roles if view in inputs.shapes)
    for role in config.roles:
        if view_role(role) in views and inputs.shapes[view_role(role)] != inputs.shapes[role]:
            shapes = f"{inputs.shapes[view_role(role)]}, those for {role} {inputs.shapes[role]}"
            raise ValueError(f"the rows for {view_role(role)} have shape {shapes}; views need the same encoder")
    return views
