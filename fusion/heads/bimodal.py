"""Bi-modal bi-task: cross-modal coding blocks, a BiGRU over both, and auxiliary tasks.

The tasks are contrastive predictive coding (CPC) and contrastive learning (N-pair loss), enhanced by augmented views.
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
- B-8: projection, norm and temperature of the N-pair loss. Term ``augmented``: the positive is the utterance's own
  view. Term ``supervised``: eq. 3 as printed, originals only, and the positive is the next utterance of the same class
  in the batch.
- B-9, B-13: the two additional losses of the paper's total are two of ``cpc``, ``supervised`` and ``augmented``;
  without views, ``supervised`` replaces ``augmented``.
- B-10: with audio alone, CCB1 attends to audio itself, the BiGRU reads only its rows, and CPC is off; with text alone,
  the same holds for CCB2. A block that is switched off adds no rows to the BiGRU; without CCB1, CPC is off.
- B-12: audio is the last hidden state; another layer is another stream.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from fusion.data.views import with_views
from fusion.head import Batch, Head, HeadOutput
from fusion.head_config import AUDIO, HeadInputs, TrainingRows, numbered_view, view_role
from fusion.heads.configs.bimodal import AUGMENTED, BLOCKS, CPC, LOSSES, SUPERVISED, BimodalConfig
from fusion.losses.contrastive import n_pair_loss, next_of_class
from fusion.losses.cpc import PredictiveCoding
from fusion.nn.attention import TransformerLayer, attention_heads_for
from fusion.nn.layers import Pool, input_projection, lowest
from fusion.nn.sequences import RaggedGRU

ATTENTION_HEADS = 12  # B-2


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
        weights = config.weights
        self.coding = _predictive_coding(config, dim, hidden) if weights[CPC] > 0 else None
        contrasts = weights[SUPERVISED] > 0 or (weights[AUGMENTED] > 0 and bool(self.views))
        self.projection = nn.Sequential(nn.Linear(width, dim), nn.GELU(), nn.Linear(dim, dim)) if contrasts else None

    def forward(self, batch: Batch) -> HeadOutput:
        """Computes logits ``(batch, classes)``, and in training mode the losses of the auxiliary terms."""
        count, augmented = batch.labels.shape[0], None
        if self.training and self.views:
            batch, augmented = with_views(batch, self.config.roles)
        rows = {role: front(batch.features[role]) for role, front in self.fronts.items()}
        states, mask = self.gru(self.encode_blocks(rows, batch.masks))
        first = self.config.roles[0]
        pair = torch.cat([self.pool_rows(rows[first], batch.masks[first]), self.pool_states(states, mask)], dim=1)
        losses = {}
        if self.training and self.coding is not None:
            losses[LOSSES[CPC]] = self.coding(rows[AUDIO][:count], states[:count], batch.masks[AUDIO][:count])
        if self.training and self.projection is not None:
            losses |= self._contrastive_losses(pair, batch.classes[:count], augmented)
        return HeadOutput(self.classifier(pair[:count]), losses, pair[:count])

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
        """Returns notes on the auxiliary terms and on missing views; learns nothing."""
        weights = {name: weight for name, weight in self.config.weights.items() if weight}
        if self.projection is None:
            weights = {name: weight for name, weight in weights.items() if name == CPC}
        terms = ", ".join(f"{name} (weight {weight:g})" for name, weight in weights.items())
        notes = [f"auxiliary tasks: {terms or 'none'}"]
        if CPC in self.config.terms and not self.config.causal:
            notes.append("CPC is off: it needs both modalities and ccb1")
        if self.views:
            counts = {role: sum(numbered_view(name)[0] == role for name in self.inputs.shapes) for role in self.views}
            notes.append("views: " + ", ".join(f"{count} for {role}" for role, count in counts.items()))
            notes += [
                f"no stream for {role}: the original rows are used in the views"
                for role in self.config.optional_roles
                if role not in self.views
            ]
            notes += [note for role in self.views if (note := _missing_views(rows, role))]
        return notes

    def _contrastive_losses(self, pair: Tensor, labels: Tensor, augmented: Tensor | None) -> dict[str, Tensor]:
        """Computes the losses of the contrastive terms.

        Args:
            pair: pooled rows and states, those of the originals first, then those of their views if there are any,
                ``(batch, dim + 2 * hidden)`` or twice as many.
            labels: classes of the originals, int64 ``(batch,)``.
            augmented: True where an utterance has views, bool ``(batch,)``; None if `pair` contains no views.
        """
        assert self.projection is not None
        embedded, tau = functional.normalize(self.projection(pair), dim=1), self.config.tau
        originals, views = embedded[: len(labels)], embedded[len(labels) :]
        differ = labels[:, None] != labels  # (batch, batch)
        losses = {}
        if self.config.weights[SUPERVISED] > 0:
            positives, paired = next_of_class(labels)
            negative = differ & paired[:, None]
            losses[LOSSES[SUPERVISED]] = n_pair_loss(originals, originals[positives], originals, negative, tau=tau)
        if augmented is not None:
            negative = torch.cat([differ, differ & augmented], dim=1) & augmented[:, None]
            losses[LOSSES[AUGMENTED]] = n_pair_loss(originals, views, embedded, negative, tau=tau)
        return losses


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


def _missing_views(rows: TrainingRows, role: str) -> str:
    """Returns a note on training utterances without a view, whose term is 0; empty if each has one."""
    missing = sum(not len(rows.rows(role, index)) for index in range(len(rows)))
    return f"{missing} of {len(rows)} training utterances have no {role}" if missing else ""


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
