"""Bi-modal bi-task: cross-modal coding blocks, a BiGRU over both, and two auxiliary tasks.

The tasks are contrastive predictive coding (CPC) and enhanced contrastive learning (ECL) with augmented views.
Paper: Applied Artificial Intelligence, 2024, https://doi.org/10.1080/08839514.2024.2356992, eq. 1-3 and Fig. 2.

Where the paper is silent or contradicts itself (docs/decisions.md#bi-modal-bi-task):

- B-1: in the cross-modal coding block CCB1, audio is the query and text is key and value; in CCB2 the reverse (eq. 1
  and the ablation; the printed headings are swapped).
- B-2: each block is a complete post-norm Transformer layer with 12 heads and a feed-forward network of four times the
  width.
- B-3: one BiGRU, of half the width in each direction, reads the rows of CCB1 and then those of CCB2, without padding
  between them.
- B-4: `mp` is the maximum over valid rows; ``pooling="attn"`` uses learned weights.
- B-5: CPC is that of van den Oord et al. (2018, arXiv:1807.03748). Its context is the forward half of the BiGRU, which
  does not depend on later frames. One draw of negatives serves all anchors and steps of an utterance; the mean is over
  the anchors of a batch. Frames of wav2vec 2.0 depend on each other already, so the task is easier than the original.
- B-6, B-7: augmented views are streams of the cache; the head does not create them.
- B-8: projection, norm and temperature of ECL. The positive is the utterance's own view, so that there is no ECL
  without augmentation. ``positive="class"`` is eq. 3 as printed: originals only, and the positive is the next
  utterance of the same class in the batch.
- B-9: the two additional losses of the paper's total are those of CPC and ECL.
- B-10: with audio alone, CCB1 attends to audio itself, the BiGRU reads only its rows, and CPC is off; with text alone,
  the same holds for CCB2. A block that is switched off adds no rows to the BiGRU; without CCB1, CPC is off.
- B-12: audio is the last hidden state; another layer is another stream.
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


class Bimodal(Head):
    """The fusion head of bi-modal bi-task."""

    config_class, stackable = BimodalConfig, True
    config: BimodalConfig

    def __init__(self, config: BimodalConfig, inputs: HeadInputs) -> None:
        super().__init__(config, inputs)
        self.views = _available_views(config, inputs)
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
        # With both blocks, the BiGRU has no row only if both modalities are absent: that vector would never be trained
        self.pool_states = _pool(2 * hidden, config.pooling, learned=learned and len(config.blocks) == 1)
        width = dim + 2 * hidden
        self.classifier = nn.Linear(width, len(inputs.classes))
        predicts = config.loss_weights["cpc"] > 0
        self.coding = _predictive_coding(config, dim, hidden) if predicts else None
        contrasts = config.loss_weights["ecl"] > 0 and (bool(self.views) or not config.optional_roles)
        self.projection = nn.Sequential(nn.Linear(width, dim), nn.GELU(), nn.Linear(dim, dim)) if contrasts else None

    def forward(self, batch: Batch) -> HeadOutput:
        """Computes logits ``(batch, classes)``, and in training mode the losses ``cpc`` and ``ecl``."""
        count, augmented = len(batch), None
        if self.training and self.views:
            batch, augmented = with_views(batch, self.config.roles)
        rows = {role: front(batch.features[role]) for role, front in self.fronts.items()}
        states, mask = self.gru(self.encode_blocks(rows, batch.masks))
        first = self.config.roles[0]
        pair = torch.cat([self.pool_rows(rows[first], batch.masks[first]), self.pool_states(states, mask)], dim=1)
        losses = {}
        if self.training and self.coding is not None:
            losses["cpc"] = self.coding(rows[AUDIO][:count], states[:count], batch.masks[AUDIO][:count])
        if self.training and self.projection is not None:
            losses["ecl"] = self._ecl_loss(pair, batch.labels[:count], augmented)
        return HeadOutput(self.classifier(pair[:count]), losses)

    def encode_blocks(self, rows: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Computes the output of each coding block.

        Args:
            rows: adapted rows by modality, ``(batch, rows, dim)``.
            masks: True where a row is valid, by modality, bool ``(batch, rows)``.

        Returns:
            Output ``(batch, rows, dim)`` and mask of each block; the rows are those of its query modality.
        """
        streams = []
        for name, block in self.blocks.items():
            query, memory = BLOCKS[name]
            memory = memory if memory in rows else query
            streams.append((block(rows[query], masks[memory], rows[memory]), masks[query]))
        return streams

    def prepare(self, rows: TrainingRows) -> list[str]:
        """Returns notes on auxiliary losses that are off and on missing views; learns nothing."""
        notes = []
        if self.config.alpha > 0 and self.coding is None:
            notes.append("CPC is off: it needs both modalities and ccb1")
        if self.config.beta > self.config.loss_weights["ecl"]:
            notes.append("ECL is off: no augmentation; positive=class needs no views")
        missing = [role for role in self.config.optional_roles if role not in self.views]
        if missing and not self.views:
            notes.append(f"ECL is off: no stream for {' or '.join(missing)}; positive=class needs no views")
        elif missing:
            notes.append(f"no stream for {missing[0]}; the views of ECL use the original rows instead")
        return notes

    def _ecl_loss(self, pair: Tensor, labels: Tensor, augmented: Tensor | None) -> Tensor:
        """Computes the loss of ECL.

        Args:
            pair: pooled rows and states, those of the originals first, then those of their views if there are any,
                ``(batch, dim + 2 * hidden)`` or twice as many.
            labels: classes of the originals, int64 ``(batch,)``.
            augmented: True where an utterance has views, bool ``(batch,)``; None if `pair` contains no views.
        """
        assert self.projection is not None
        embedded = functional.normalize(self.projection(pair), dim=1)
        differ = labels[:, None] != labels  # (batch, batch)
        if augmented is None:
            positives, paired = next_of_class(labels)
            return n_pair_loss(embedded, embedded[positives], embedded, differ & paired[:, None], tau=self.config.tau)
        originals, views = embedded.chunk(2)
        negative = torch.cat([differ, differ & augmented], dim=1) & augmented[:, None]
        return n_pair_loss(originals, views, embedded, negative, tau=self.config.tau)


class AttentionPool(nn.Module):
    """Pooling of the valid rows of each utterance by learned weights; `Pool` replaces an absent modality."""

    def __init__(self, dim: int, *, learned: bool) -> None:
        super().__init__()
        self.score = nn.Linear(dim, 1, bias=False)  # a softmax is independent of a bias
        self.pool = Pool(dim, kind="mean", learned=learned)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Returns ``(batch, dim)`` from ``(batch, rows, dim)`` and bool ``(batch, rows)``."""
        scores = self.score(x)
        weights = scores.masked_fill(~mask[..., None], lowest(scores)).softmax(dim=1)
        pooled: Tensor = self.pool((weights * x).sum(dim=1, keepdim=True), mask.any(dim=1, keepdim=True))
        return pooled


def _pool(dim: int, kind: str, *, learned: bool) -> nn.Module:
    return AttentionPool(dim, learned=learned) if kind == "attn" else Pool(dim, kind=kind, learned=learned)


def _predictive_coding(config: BimodalConfig, dim: int, context: int) -> PredictiveCoding:
    return PredictiveCoding(
        dim=dim,
        context=context,
        shared=config.cpc_dim,
        steps=config.cpc_steps,
        anchors=config.cpc_anchors,
        negatives=config.cpc_negatives,
    )


def _available_views(config: BimodalConfig, inputs: HeadInputs) -> tuple[str, ...]:
    """Returns the roles of the augmented views in the data.

    Raises:
        ValueError: if a view has another row shape than its original.
    """
    views = tuple(view for view in config.optional_roles if view in inputs.shapes)
    for role in config.roles:
        if view_role(role) in views and inputs.shapes[view_role(role)] != inputs.shapes[role]:
            shapes = f"{inputs.shapes[view_role(role)]}, those for {role} {inputs.shapes[role]}"
            raise ValueError(f"the rows for {view_role(role)} have shape {shapes}; views must be of the same encoder")
    return views
