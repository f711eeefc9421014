"""The baselines that the five papers compare with: one modality, scores added, features joined, cross-attention.

- `Unimodal` is the downstream model of SUPERB (Yang et al., 2021, arXiv:2105.01051): mean pooling and one linear layer
  over frozen features, without an adapter (C-1 makes an exception of it), behind a projection where ``dim`` asks for
  one. With `normalize` and `hidden` it is that of EmoBox (Ma et al., 2024, arXiv:2406.07162; examples/sb at bb22000).
- `Score` adds the logits of two of them, as in LE-MER, section 3.4 (Interspeech 2023). Each learns from its own cross
  entropy: trained on that of the sum, two linear models of pooled features are one linear model of both, `Concat`.
- `Concat` and `CrossAttention` stand in for the fusion of JFM in its Tables 2 and 3 (2024). The paper describes
  neither: here they pool by the mean, and cross-attention is a layer each way with a residual and a norm.
- C-3: one modality is pooled and classified alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from fusion.head import AUDIO, BOTH, TEXT, Batch, Head, HeadConfig, HeadInputs, HeadOutput
from fusion.nn.attention import CrossLayer, attention_heads_for
from fusion.nn.dropout import Dropout
from fusion.nn.layers import POOLING, Pool, input_projection

ATTENTION_HEADS = 8
OTHER = {AUDIO: TEXT, TEXT: AUDIO}
EPS = 1e-5  # added to the variance, as in torch's layer_norm


@dataclass(frozen=True, kw_only=True)
class PooledConfig(HeadConfig):
    """What a head that pools each modality can be told.

    Attributes:
        pooling: ``mean`` or ``max``.
    """

    pooling: str = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pooling not in POOLING:
            raise ValueError(f"pooling must be one of {', '.join(POOLING)}, got {self.pooling!r}")


@dataclass(frozen=True, kw_only=True)
class UnimodalConfig(PooledConfig):
    """What a model of one modality can be told.

    Attributes:
        normalize: takes all features of an utterance together to mean 0 and variance 1, layer by layer.
        hidden: width of a linear layer and ReLU over each row before pooling; 0 for none.
    """

    adapter: bool = False
    modalities: str = AUDIO
    normalize: bool = False
    hidden: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.normalize and self.standardize:
            raise ValueError("normalize goes by the utterance, standardize by the training part; set one of them")
        if self.hidden < 0:
            raise ValueError(f"hidden must be a width, or 0 for none, got {self.hidden}")
        if self.modalities == BOTH:
            raise ValueError(f"modalities must be {AUDIO} or {TEXT} for a model of one, got {BOTH!r}")


@dataclass(frozen=True, kw_only=True)
class ScoreConfig(PooledConfig):
    """What two models of one modality can be told."""

    adapter: bool = False

    def of_one(self, modality: str) -> UnimodalConfig:
        """Gives the configuration of one of the models; its width is that of its own stream where `dim` is 0."""
        shared = {name: getattr(self, name) for name in ("dim", "adapter", "dropout", "pooling", "standardize")}
        return UnimodalConfig(**shared, modalities=modality)

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """One cross entropy for each model."""
        return dict.fromkeys(self.roles, 1.0)


@dataclass(frozen=True, kw_only=True)
class ConcatConfig(PooledConfig):
    """What concatenation can be told."""


@dataclass(frozen=True, kw_only=True)
class CrossAttentionConfig(PooledConfig):
    """What cross-attention can be told.

    Attributes:
        heads: of attention; 0 for 8, or the greatest number below that divides the width.
    """

    heads: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.heads < 0:
            raise ValueError(f"heads must not be negative, got {self.heads}")


class Unimodal(Head):
    """Classifies by the pooled features of one modality."""

    config_class, stackable = UnimodalConfig, True
    config: UnimodalConfig

    def __init__(self, config: UnimodalConfig, inputs: HeadInputs) -> None:
        super().__init__(config, inputs)
        self.front = _fronts(config, inputs)[config.modalities]
        dim = config.width(inputs.shapes)
        self.hidden = nn.Sequential(nn.Linear(dim, config.hidden), nn.ReLU()) if config.hidden else nn.Identity()
        self.pool = Pool(config.hidden or dim, kind=config.pooling, learned=False)
        self.classifier = _classifier(config, inputs, config.hidden or dim)

    def forward(self, batch: Batch) -> HeadOutput:
        """Gives logits ``(batch, classes)``."""
        x, mask = batch.features[self.config.modalities], batch.masks[self.config.modalities]
        rows = self.front(_normalized(x, mask) if self.config.normalize else x)
        return HeadOutput(self.classifier(self.pool(self.hidden(rows), mask)))


class Score(Head):
    """Adds the logits of one model per modality; one whose modality is absent has no say.

    In training the sum is cut off from the models: each learns from its own cross entropy, over the utterances that
    have its modality.
    """

    config_class, stackable = ScoreConfig, True
    config: ScoreConfig

    def __init__(self, config: ScoreConfig, inputs: HeadInputs) -> None:
        super().__init__(config, inputs)
        self.models = nn.ModuleDict({role: Unimodal(config.of_one(role), inputs) for role in config.roles})

    def forward(self, batch: Batch) -> HeadOutput:
        """Gives the sum, ``(batch, classes)``, and in training the cross entropy of each model."""
        present = {role: batch.masks[role].any(dim=1) for role in self.config.roles}
        scores = {role: model(batch).logits for role, model in self.models.items()}
        total = torch.stack([score * present[role][:, None] for role, score in scores.items()]).sum(dim=0)
        if not self.training:
            return HeadOutput(total)
        losses = {role: _cross_entropy(score, batch.labels, present[role]) for role, score in scores.items()}
        return HeadOutput(total.detach(), losses)


class Concat(Head):
    """Classifies by the pooled features of each modality, concatenated."""

    config_class, stackable = ConcatConfig, True
    config: ConcatConfig

    def __init__(self, config: ConcatConfig, inputs: HeadInputs) -> None:
        super().__init__(config, inputs)
        self.fronts = _fronts(config, inputs)
        self.pools = _pools(config, inputs)
        self.classifier = _classifier(config, inputs, len(config.roles) * config.width(inputs.shapes))

    def forward(self, batch: Batch) -> HeadOutput:
        """Gives logits ``(batch, classes)``."""
        rows = {role: front(batch.features[role]) for role, front in self.fronts.items()}
        pooled = [self.pools[role](one, batch.masks[role]) for role, one in rows.items()]
        return HeadOutput(self.classifier(torch.cat(pooled, dim=-1)))


class CrossAttention(Head):
    """Lets each modality attend to the other once, and classifies by both, pooled and concatenated."""

    config_class, stackable = CrossAttentionConfig, True
    config: CrossAttentionConfig

    def __init__(self, config: CrossAttentionConfig, inputs: HeadInputs) -> None:
        super().__init__(config, inputs)
        self.fronts = _fronts(config, inputs)
        self.pools = _pools(config, inputs)
        asking = config.roles if config.modalities == BOTH else ()
        self.crossings = nn.ModuleDict({role: _crossing(config, inputs) for role in asking})
        self.classifier = _classifier(config, inputs, len(config.roles) * config.width(inputs.shapes))

    def forward(self, batch: Batch) -> HeadOutput:
        """Gives logits ``(batch, classes)``."""
        rows = {role: front(batch.features[role]) for role, front in self.fronts.items()}
        crossed = {
            role: crossing(rows[role], rows[OTHER[role]], batch.masks[OTHER[role]])
            for role, crossing in self.crossings.items()
        }
        pooled = [self.pools[role](one, batch.masks[role]) for role, one in (rows | crossed).items()]
        return HeadOutput(self.classifier(torch.cat(pooled, dim=-1)))


def _fronts(config: PooledConfig, inputs: HeadInputs) -> nn.ModuleDict:
    dim = config.width(inputs.shapes)
    return nn.ModuleDict({role: input_projection(config, inputs, role, dim=dim) for role in config.roles})


def _pools(config: PooledConfig, inputs: HeadInputs) -> nn.ModuleDict:
    dim, learned = config.width(inputs.shapes), config.modality_dropout > 0
    return nn.ModuleDict({role: Pool(dim, kind=config.pooling, learned=learned) for role in config.roles})


def _crossing(config: CrossAttentionConfig, inputs: HeadInputs) -> CrossLayer:
    dim = config.width(inputs.shapes)
    return CrossLayer(dim=dim, heads=attention_heads_for(dim, config.heads, ATTENTION_HEADS), dropout=config.dropout)


def _classifier(config: PooledConfig, inputs: HeadInputs, width: int) -> nn.Sequential:
    return nn.Sequential(Dropout(config.dropout), nn.Linear(width, len(inputs.classes)))


def _normalized(x: Tensor, mask: Tensor) -> Tensor:
    """Gives what torch's ``layer_norm`` over all valid rows of an utterance would, ``(batch, rows, ...)``."""
    trailing = [1] * (x.dim() - 2)
    padding, count = ~mask.view(*mask.shape, *trailing), mask.sum(dim=1).clamp(min=1).view(-1, 1, *trailing)
    mean = x.masked_fill(padding, 0).mean(dim=-1, keepdim=True).sum(dim=1, keepdim=True) / count
    centred = (x - mean).masked_fill(padding, 0)
    variance = centred.square().mean(dim=-1, keepdim=True).sum(dim=1, keepdim=True) / count
    return centred * (variance + EPS).rsqrt()


def _cross_entropy(logits: Tensor, labels: Tensor, counted: Tensor) -> Tensor:
    """Averages the cross entropy over the utterances that count; 0 if none does."""
    each = functional.cross_entropy(logits, labels, reduction="none")
    return (each * counted).sum() / counted.sum().clamp(min=1)
