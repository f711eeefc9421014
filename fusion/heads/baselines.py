"""Baselines of the five systems: one modality, sum of scores, concatenation, cross-attention.

- `Unimodal` is the downstream model of SUPERB (Yang et al., 2021, arXiv:2105.01051): mean pooling and one linear layer
  over frozen features. It has no adapter (an exception of C-1), and a projection in front if ``dim`` differs from the
  width of the features. With `normalize` and `hidden` it is the downstream model of EmoBox (Ma et al., 2024,
  arXiv:2406.07162; examples/sb at bb22000).
- `Score` adds the logits of two unimodal models. It is not the score fusion of LE-MER, which is the sum of two runs of
  head ``label-guided`` (L-12). Each model learns from its own cross entropy: trained on the cross entropy of the sum,
  two linear models of pooled features would be one linear model of both, that is `Concat`.
- `Concat` and `CrossAttention` are general baselines of any two streams, and no published score belongs to them: both
  pool by the mean, and cross-attention is one layer in each direction with a residual connection and a layer norm. The
  baselines of JFM, which keep its encoders and its losses, are fusions of head ``jfm`` (J-18).
- C-3: a single modality is pooled and classified alone.
"""

from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from fusion.evaluation.dimensions import ccc_loss, mse_loss
from fusion.head import Batch, Head, HeadOutput
from fusion.head_config import AUDIO, BOTH, TEXT, HeadInputs
from fusion.heads.configs.baselines import ConcatConfig, CrossAttentionConfig, PooledConfig, ScoreConfig, UnimodalConfig
from fusion.heads.pooling import RolePooling, pooled_mask, united_keys
from fusion.nn.attention import CrossLayer, attention_heads_for
from fusion.nn.dropout import Dropout
from fusion.nn.layers import InputProjection, Pool, input_projection, pooled_width

ATTENTION_HEADS = 8
OTHER = {AUDIO: TEXT, TEXT: AUDIO}
EPS = 1e-5  # added to the variance; the default of torch's layer_norm


class Unimodal(Head):
    """A linear classifier of the pooled features of one modality."""

    config_class, stackable = UnimodalConfig, True
    config: UnimodalConfig

    def __init__(self, config: UnimodalConfig, inputs: HeadInputs) -> None:
        super().__init__(config, inputs)
        self.front = _input_projections(config, inputs)[config.modalities]
        dim = config.width(inputs.shapes)
        self.hidden = nn.Sequential(nn.Linear(dim, config.hidden), nn.ReLU()) if config.hidden else nn.Identity()
        self.pool = Pool(config.hidden or dim, kind=config.pooling, learned=False)
        self.classifier = _classifier(config, inputs, self.pool.width)

    def forward(self, batch: Batch) -> HeadOutput:
        """Computes logits ``(batch, classes)``."""
        if not self.config.hidden:
            vectors = self._pooling.vectors(batch)
            return HeadOutput(self.classifier(vectors), embedding=vectors)
        x, mask = batch.features[self.config.modalities], self._pooling.mask(batch)
        rows = self.front(_normalize(x, mask) if self.config.normalize else x)
        pooled = self.pool(self.hidden(rows), mask)
        return HeadOutput(self.classifier(pooled), embedding=pooled)

    @property
    def early_pooling(self) -> dict[str, str]:
        """The pooling of the modality, unless a hidden layer precedes it."""
        return {} if self.config.hidden else united_keys({self.config.modalities: self._pooling})

    def pool_role(self, role: str, batch: Batch) -> tuple[Tensor, Tensor]:
        """Pools the rows of the modality, ``(batch, width)``."""
        return self._pooling.pooled(batch)

    def present(self, batch: Batch) -> Tensor:
        """Returns True for each utterance with a row to pool, bool ``(batch,)``."""
        return self._pooling.mask(batch).any(dim=1)

    @property
    def _pooling(self) -> RolePooling:
        change = _normalize if self.config.normalize else None
        role, history_pool = self.config.modalities, self.config.history_pool
        return RolePooling(role, cast(InputProjection, self.front), self.pool, history_pool=history_pool, change=change)


class Score(Head):
    """The sum of the logits of one model per modality; the model of an absent modality contributes 0.

    In training the sum has no gradient: each model learns from its own loss over the utterances that have its modality.
    Of dimensions, the output is the mean of the models.
    """

    config_class, stackable = ScoreConfig, True
    config: ScoreConfig

    def __init__(self, config: ScoreConfig, inputs: HeadInputs) -> None:
        super().__init__(config, inputs)
        self.models = nn.ModuleDict({role: Unimodal(config.unimodal(role), inputs) for role in config.branches})

    def forward(self, batch: Batch) -> HeadOutput:
        """Computes the sum of logits, ``(batch, classes)``, and in training the loss of each model."""
        present = {role: model.present(batch) for role, model in self._models.items()}
        scores = {role: model(batch).logits for role, model in self._models.items()}
        total = torch.stack([score * present[role][:, None] for role, score in scores.items()]).sum(dim=0)
        if not self.inputs.has_classes:  # each model predicts the value itself
            total = total / torch.stack([*present.values()]).sum(dim=0).clamp(min=1)[:, None]
        if not self.training:
            return HeadOutput(total)
        loss = OWN_LOSSES[self.inputs.loss]
        losses = {role: loss(score, batch.labels, present[role]) for role, score in scores.items()}
        return HeadOutput(total.detach(), losses)

    @property
    def early_pooling(self) -> dict[str, str]:
        """The pooling of each model, if all of them pool first."""
        pooling = {role: model.early_pooling.get(role, "") for role, model in self._models.items()}
        return pooling if all(pooling.values()) else {}

    def pool_role(self, role: str, batch: Batch) -> tuple[Tensor, Tensor]:
        """Pools the rows of a modality, ``(batch, width)``."""
        return self._models[role].pool_role(role, batch)

    @property
    def _models(self) -> dict[str, Unimodal]:
        return cast(dict[str, Unimodal], dict(self.models.items()))


class Concat(Head):
    """A linear classifier of the pooled features of both modalities, concatenated."""

    config_class, stackable = ConcatConfig, True
    config: ConcatConfig

    def __init__(self, config: ConcatConfig, inputs: HeadInputs) -> None:
        super().__init__(config, inputs)
        self.fronts = _input_projections(config, inputs)
        self.pools = _pools(config, inputs)
        self.classifier = _classifier(
            config, inputs, len(config.branches) * pooled_width(config.width(inputs.shapes), config.pooling)
        )

    def forward(self, batch: Batch) -> HeadOutput:
        """Computes logits ``(batch, classes)``."""
        pooled = torch.cat([pooling.vectors(batch) for pooling in self._poolings.values()], dim=-1)
        return HeadOutput(self.classifier(pooled), embedding=pooled)

    @property
    def early_pooling(self) -> dict[str, str]:
        """The pooling of each modality, if no learned layer precedes it."""
        return united_keys(self._poolings)

    def pool_role(self, role: str, batch: Batch) -> tuple[Tensor, Tensor]:
        """Pools the rows of a modality, ``(batch, width)``."""
        return self._poolings[role].pooled(batch)

    @property
    def _poolings(self) -> dict[str, RolePooling]:
        history_pool = self.config.history_pool
        return {
            role: RolePooling(
                role, cast(InputProjection, front), cast(Pool, self.pools[role]), history_pool=history_pool
            )
            for role, front in self.fronts.items()
        }


class CrossAttention(Head):
    """One cross-attention layer in each direction, and a linear classifier of both pooled streams."""

    config_class, stackable = CrossAttentionConfig, True
    config: CrossAttentionConfig

    def __init__(self, config: CrossAttentionConfig, inputs: HeadInputs) -> None:
        super().__init__(config, inputs)
        self.fronts = _input_projections(config, inputs)
        self.pools = _pools(config, inputs)
        query_roles = config.branches if config.modalities == BOTH else ()
        self.crossings = nn.ModuleDict({role: _cross_layer(config, inputs) for role in query_roles})
        self.classifier = _classifier(
            config, inputs, len(config.branches) * pooled_width(config.width(inputs.shapes), config.pooling)
        )

    def forward(self, batch: Batch) -> HeadOutput:
        """Computes logits ``(batch, classes)``."""
        rows = {role: front(batch.features[role]) for role, front in self.fronts.items()}
        crossed = {
            role: crossing(rows[role], rows[OTHER[role]], batch.masks[OTHER[role]])
            for role, crossing in self.crossings.items()
        }
        masks = {role: pooled_mask(batch, role, self.config.history_pool) for role in rows}
        pooled = torch.cat([self.pools[role](x, masks[role]) for role, x in (rows | crossed).items()], dim=-1)
        return HeadOutput(self.classifier(pooled), embedding=pooled)


def _input_projections(config: PooledConfig, inputs: HeadInputs) -> nn.ModuleDict:
    dim = config.width(inputs.shapes)
    return nn.ModuleDict({role: input_projection(config, inputs, role, dim=dim) for role in config.branches})


def _pools(config: PooledConfig, inputs: HeadInputs) -> nn.ModuleDict:
    dim, learned = config.width(inputs.shapes), config.modality_dropout > 0
    return nn.ModuleDict({role: Pool(dim, kind=config.pooling, learned=learned) for role in config.branches})


def _cross_layer(config: CrossAttentionConfig, inputs: HeadInputs) -> CrossLayer:
    dim = config.width(inputs.shapes)
    return CrossLayer(dim=dim, heads=attention_heads_for(dim, config.heads, ATTENTION_HEADS), dropout=config.dropout)


def _classifier(config: PooledConfig, inputs: HeadInputs, width: int) -> nn.Sequential:
    return nn.Sequential(Dropout(config.dropout), nn.Linear(width, len(inputs.classes)))


def _normalize(x: Tensor, mask: Tensor) -> Tensor:
    """Normalizes as torch's ``layer_norm`` over all valid rows of an utterance, ``(batch, rows, ...)``."""
    trailing = [1] * (x.dim() - 2)
    padding, count = ~mask.view(*mask.shape, *trailing), mask.sum(dim=1).clamp(min=1).view(-1, 1, *trailing)
    mean = x.masked_fill(padding, 0).mean(dim=-1, keepdim=True).sum(dim=1, keepdim=True) / count
    centred = (x - mean).masked_fill(padding, 0)
    variance = centred.square().mean(dim=-1, keepdim=True).sum(dim=1, keepdim=True) / count
    return centred * (variance + EPS).rsqrt()


def _cross_entropy(logits: Tensor, labels: Tensor, present: Tensor) -> Tensor:
    """Averages the cross entropy over the utterances where `present` is True; 0 if there is none."""
    losses = functional.cross_entropy(logits, labels, reduction="none")
    return (losses * present).sum() / present.sum().clamp(min=1)


# Main loss of a head -> the loss of each model of `Score`, from outputs, targets and the utterances that count.
OWN_LOSSES: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "cross_entropy": _cross_entropy,
    "ccc": ccc_loss,
    "mse": mse_loss,
}
