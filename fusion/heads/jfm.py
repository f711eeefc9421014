"""JFM with inter-class contrastive learning (Shi et al., 2024, arXiv:2405.17900, sections 2.2 to 2.5 and 3.2).

Log-mel goes through the first layers of a ViT and text through the layers of a language model that follow its hidden
state 12; the two exchange joint vectors (`JointBlock`). The rows of CLS and of the start token are classified apart.

Deviations and decisions: text is the 12th hidden state of a large model, as its layers take it (J-1); the extractor
stands before the joint blocks (J-2); bands are normalized over the training fold, kernels of colours are averaged, and
positions are fixed (J-3); each stream stays in its own layers, against the printed indices (J-4), the ViT's first
and those after the text's hidden state (J-5); sizes and starts of MLPs and joint vectors are PMF's (J-6, J-7); all but
the cached text is trained (J-8); one kind of vectors (J-9); logits are averaged (J-10); the contrastive loss reads
both final rows, normalized (J-11 to J-14); no dialogue context (J-15). One rate of dropout holds everywhere, the ViT
included, and both passes of a layer drop alike. Vectors from an absent modality are not attended to (C-3). Fused late,
without the blocks of the paper's section 2.3, are the start token after the extractor (J-2) and the CLS row of a whole
ViT; the paper says no more of it.

Joint vectors: two streams, each in layers of its own, that exchange nothing but a few vectors.

Shi et al., 2024, arXiv:2405.17900, section 2.3; after the prompts of PMF (Li et al., 2023, arXiv:2304.06306). Vectors
that are learned go through the layer of one stream together with its rows, through an MLP to the width of the other,
and through the other's layer together with its rows. Nothing else of a pass is kept.

The feature extractor between cached rows and the layers of a head: mix, projection, Transformer layers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cache.errors import MmerError
from fusion.head import AUDIO, TEXT, Batch, Head, HeadConfig, HeadInputs, HeadOutput, TrainingRows, Weights
from fusion.losses.contrastive import supervised_contrastive_loss
from fusion.nn.attention import TransformerLayer
from fusion.nn.layers import InputProjection, Pool
from fusion.nn.pretrained import (
    BANDS,
    MOST_LAYERS,
    PATCH,
    MelPatches,
    add_them,
    chosen_layers,
    layer_width,
    start_layer,
)
from fusion.nn.sequences import MaskedRows

SOURCES: Mapping[str, str] = {TEXT: AUDIO, AUDIO: TEXT}  # where the vectors that a stream is given come from
SPREAD = 0.02  # PMF's standard deviation of new vectors
MEL, PATCHES, LANGUAGE = "mel", "patches", "language"
JOINT, LATE = "joint", "late"
LAYER12, BASE768 = "layer12", "base768"
FIRST, LAST = "first", "last"
CHOICES = {"fusion": (JOINT, LATE), "text": (LAYER12, BASE768), "layers": (FIRST, LAST)}
ICL = "icl"


class JointVectors(nn.Module):
    """Learned vectors that gather from one stream and come out at the width of the other.

    Args:
        length: how many.
        source_dim: width of the stream that they gather from.
        dim: width of the stream that they are given to.
    """

    def __init__(self, *, length: int, source_dim: int, dim: int) -> None:
        super().__init__()
        hidden = max(source_dim, dim) // 2
        self.vectors = nn.Parameter(SPREAD * torch.randn(length, source_dim))
        self.mlp = nn.Sequential(nn.Linear(source_dim, hidden), nn.ReLU(), nn.Linear(hidden, dim))

    def forward(self, layer: TransformerLayer, source: MaskedRows) -> MaskedRows:
        """Gives the vectors ``(batch, length, dim)``; none is valid where the source is absent."""
        vectors = self.vectors.expand(len(source.rows), -1, -1)
        valid = torch.ones_like(vectors[..., 0], dtype=torch.bool)
        out = _passed(layer, source, MaskedRows(vectors, valid))
        gathered = out[:, source.rows.shape[1] :]
        return MaskedRows(self.mlp(gathered), valid & source.mask.any(dim=1, keepdim=True))


class JointBlock(nn.Module):
    """One layer of each stream, and the joint vectors between two.

    A layer runs twice with the same weights: once for the vectors that leave its stream and once, with those that
    reach it, for its rows.

    Args:
        layers: by modality.
        length: of the joint vectors in each direction; without any, or alone, a layer runs once.
    """

    def __init__(self, layers: Mapping[str, TransformerLayer], *, length: int) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(layers)
        widths = {modality: layer.linear1.in_features for modality, layer in layers.items()}
        joints = {
            modality: JointVectors(length=length, source_dim=widths[SOURCES[modality]], dim=widths[modality])
            for modality in layers
            if length and SOURCES[modality] in layers
        }
        self.joints = nn.ModuleDict(joints)

    def forward(self, streams: Mapping[str, MaskedRows]) -> dict[str, MaskedRows]:
        """Gives the streams of the next block; those without a layer here stay as they are."""
        joints = {
            modality: vectors(self.layers[SOURCES[modality]], streams[SOURCES[modality]])
            for modality, vectors in self.joints.items()
        }
        after = dict(streams)
        for modality, layer in self.layers.items():
            rows, mask = streams[modality]
            out = _passed(layer, streams[modality], joints.get(modality))
            after[modality] = MaskedRows(out[:, : rows.shape[1]], mask)
        return after


class Extractor(nn.Module):
    """Takes cached rows to a width and runs post-norm Transformer layers over them.

    Args:
        shape: of one row, ``(dim,)`` or ``(layers, dim)``.
        dim: width of what it gives.
        layers: how many; without any, rows are only mixed and projected.
        heads: of each layer.
        dropout: of each layer.
    """

    def __init__(self, shape: tuple[int, ...], *, dim: int, layers: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.front = InputProjection(shape, dim=dim, adapter=False, dropout=dropout)
        self.layers = nn.ModuleList(
            TransformerLayer(dim=dim, heads=heads, feedforward=4 * dim, dropout=dropout) for _ in range(layers)
        )

    def forward(self, x: Tensor, mask: Tensor) -> MaskedRows:
        """Returns rows ``(batch, rows, dim)`` from ``(batch, rows, ...)`` and bool ``(batch, rows)``."""
        rows = self.front(x.masked_fill(~mask.view(*mask.shape, *[1] * (x.dim() - 2)), 0))
        for layer in self.layers:
            rows = layer(rows, mask)
        return MaskedRows(rows, mask)


@dataclass(frozen=True, kw_only=True)
class JFMConfig(HeadConfig):
    """Fields of JFM; its widths are those of the pre-trained layers, so `dim` and `adapter` stay off.

    Attributes:
        fusion: ``joint``; or ``late``: no blocks, text comes from the extractor, audio is CLS of the `patches` stream.
        joint: whether streams exchange joint vectors.
        joint_length: joint vectors of each block and direction.
        blocks: pre-trained layers of each stream; ``late`` has none, whatever is set.
        layers: which of the stored layers, ``first`` or ``last``.
        freeze_layers: whether all that starts from the cache stays as it is, as in PMF.
        text: ``layer12``; or ``base768``: rows of any width and a linear to that of the layers, whose weights
            are then those of the role ``language``; ``late`` leaves them their width.
        extractor_layers: layers between the cached text and the blocks.
        extractor_heads: heads of each.
        icl: whether the inter-class contrastive loss is trained too.
        icl_weight: its weight.
        tau: its temperature.
    """

    per_model: ClassVar[frozenset[str]] = HeadConfig.per_model | {"icl_weight", "layers"}

    adapter: bool = False
    fusion: str = JOINT
    joint: bool = True
    joint_length: int = 4
    blocks: int = 2
    layers: str = FIRST
    freeze_layers: bool = False
    text: str = LAYER12
    extractor_layers: int = 2
    extractor_heads: int = 8
    icl: bool = True
    icl_weight: float = 1.0
    tau: float = 0.07

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dim or self.adapter:
            raise ValueError("jfm has the widths of its pre-trained layers and no adapter: dim must be 0, adapter off")
        if self.standardize:
            raise ValueError("pre-trained layers go on from features as encoders give them: standardize must be false")
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be {' or '.join(allowed)}, got {getattr(self, name)!r}")
        if not 1 <= self.blocks <= MOST_LAYERS:
            raise ValueError(f"blocks must be 1 to {MOST_LAYERS}, got {self.blocks}; fusion={LATE} does without")
        for name, least in (("joint_length", 1), ("extractor_layers", 0), ("extractor_heads", 1), ("icl_weight", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.tau <= 0:
            raise ValueError(f"tau must be above 0, got {self.tau}")

    @property
    def depth(self) -> int:
        """The blocks that there are."""
        return 0 if self.fusion == LATE else self.blocks

    @property
    def roles(self) -> tuple[str, ...]:
        """Log-mel or, fused late, patches; and text."""
        read = {AUDIO: PATCHES if self.fusion == LATE else MEL, TEXT: TEXT}
        return tuple(role for modality, role in read.items() if self.reads(modality))

    @property
    def weight_roles(self) -> tuple[str, ...]:
        """The roles whose encoders must have their start weights in the cache.

        Text is one of them fused late too: of several streams, that is the one which joint blocks would go on from.
        """
        language = (LANGUAGE,) if self.depth else ()
        text = language if self.text == BASE768 else (TEXT,)
        return ((PATCHES,) if MEL in self.roles else ()) + (text if self.reads(TEXT) else ())

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """The weight of the inter-class contrastive loss."""
        return {ICL: self.icl_weight} if self.icl else {}


class JFM(Head):
    """The head; see the module.

    Raises:
        MmerError: if start weights are missing, or text is not what its layers follow.
    """

    config_class, stackable = JFMConfig, True
    config: JFMConfig

    def __init__(self, config: JFMConfig, inputs: HeadInputs) -> None:
        super().__init__(config, inputs)
        self._notes: list[str] = []
        self.norm: nn.Module = nn.Identity()
        self.roles = dict(zip([one for one in (AUDIO, TEXT) if config.reads(one)], config.roles, strict=True))
        self.entries = nn.ModuleDict()
        layers: dict[str, list[TransformerLayer]] = {}
        widths: dict[str, int] = {}
        if config.reads(AUDIO):
            layers[AUDIO], widths[AUDIO] = self._build_audio(inputs)
        if config.reads(TEXT):
            layers[TEXT], widths[TEXT] = self._build_text(inputs)
        length = config.joint_length if config.joint else 0
        self.blocks = nn.ModuleList(
            JointBlock({modality: own[index] for modality, own in layers.items()}, length=length)
            for index in range(config.depth)
        )
        learned = config.modality_dropout > 0
        self.pools = nn.ModuleDict({one: Pool(dim, kind="mean", learned=learned) for one, dim in widths.items()})
        self.classifiers = nn.ModuleDict({one: nn.Linear(dim, len(inputs.classes)) for one, dim in widths.items()})
        if config.freeze_layers:
            self._freeze([layer for own in layers.values() for layer in own])

    def forward(self, batch: Batch) -> HeadOutput:
        """Gives the mean of the logits of each modality and, in training, the contrastive loss."""
        streams = {one: self.entries[one](batch.features[role], batch.masks[role]) for one, role in self.roles.items()}
        for block in self.blocks:
            streams = block(streams)
        pooled = {one: self._pooled(one, stream) for one, stream in streams.items()}
        logits = torch.stack([self.classifiers[one](vector) for one, vector in pooled.items()]).mean(dim=0)
        if not self.training or not self.config.loss_weights.get(ICL):
            return HeadOutput(logits)
        features = torch.cat(list(pooled.values()), dim=1)
        loss = supervised_contrastive_loss(features, batch.labels, temperature=self.config.tau)
        return HeadOutput(logits, {ICL: loss})

    def prepare(self, rows: TrainingRows) -> list[str]:
        """Learns the statistics of the mel bands; names the layers where they are not the first."""
        if self._patches:
            self._patches.fit(rows.rows(MEL, place) for place in range(len(rows)))
        return list(self._notes)

    def over_limits(self, lengths: Mapping[str, npt.NDArray[np.int64]]) -> npt.NDArray[np.bool_]:
        """Tells which are longer than the stored positions (15 s) and get positions of their own."""
        if not self._patches:
            return np.zeros(len(next(iter(lengths.values()))), dtype=np.bool_)
        return np.asarray(lengths[MEL] > PATCH * self._patches.columns)

    @property
    def _patches(self) -> MelPatches | None:
        """What embeds log-mel, where that is read."""
        return next((entry for entry in self.entries.values() if isinstance(entry, MelPatches)), None)

    def _pooled(self, modality: str, stream: MaskedRows) -> Tensor:
        """Takes the first row, CLS or the start token, ``(batch, dim)``."""
        first = stream.rows[:, :1]
        vector: Tensor = self.pools[modality](self.norm(first) if modality == AUDIO else first, stream.mask[:, :1])
        return vector

    def _build_audio(self, inputs: HeadInputs) -> tuple[list[TransformerLayer], int]:
        if self.config.fusion == LATE:
            dim = inputs.shapes[PATCHES][-1]
            self.entries[AUDIO] = Extractor(inputs.shapes[PATCHES], dim=dim, layers=0, heads=1, dropout=0)
            return [], dim
        if inputs.shapes[MEL] != (BANDS,):
            raise MmerError(f"jfm reads log-mel of {BANDS} bands, got rows of shape {inputs.shapes[MEL]}; use logmel80")
        weights = inputs.weights.get(PATCHES, {})
        layers = self._start("ViT", weights, 0)
        self.entries[AUDIO] = MelPatches(weights)
        dim = len(weights["cls"])
        self.norm = nn.LayerNorm(dim, eps=float(weights["norm_eps"]))
        final = {name: torch.tensor(weights[f"norm.{name}"]) for name in ("weight", "bias")}
        self.norm.load_state_dict(final, assign=True)
        return layers, dim

    def _build_text(self, inputs: HeadInputs) -> tuple[list[TransformerLayer], int]:
        config, shape = self.config, inputs.shapes[TEXT]
        layers, dim = [], shape[-1]
        if config.depth:
            role = LANGUAGE if config.text == BASE768 else TEXT
            choice, weights = inputs.layers.get(role, ""), inputs.weights.get(role, {})
            if not choice.isdecimal():
                remedy = add_them(config.blocks)
                raise MmerError(f"jfm goes on from one hidden state of text, got {choice or 'none'!r}; {remedy}")
            layers = self._start("language", weights, int(choice))
            dim = layer_width(weights, int(choice))
        if config.text == LAYER12 and shape != (dim,):
            raise MmerError(f"jfm needs text rows of shape ({dim},), got {shape}; take one hidden state of the encoder")
        self.entries[TEXT] = Extractor(
            shape, dim=dim, layers=config.extractor_layers, heads=config.extractor_heads, dropout=config.dropout
        )
        return layers, dim

    def _start(self, what: str, weights: Weights, first: int) -> list[TransformerLayer]:
        """Builds the pre-trained layers of one stream, from index `first` on or the last of those stored."""
        config = self.config
        last = config.layers == LAST
        chosen = chosen_layers(weights, what, first=first, count=config.blocks, last=last)
        if last:
            self._notes.append(f"last stored {what} layers: {', '.join(map(str, chosen))}")
        return [start_layer(weights, index, dropout=config.dropout) for index in chosen]

    def _freeze(self, layers: list[TransformerLayer]) -> None:
        for part in [*layers, self.norm, *([self._patches] if self._patches else [])]:
            part.requires_grad_(False)


def _passed(layer: nn.Module, stream: MaskedRows, joints: MaskedRows | None) -> Tensor:
    """Runs a layer over a stream and the joint vectors behind it, ``(batch, rows + length, dim)``."""
    rows, mask = stream
    if joints is not None:
        rows, mask = torch.cat([rows, joints.rows], dim=1), torch.cat([mask, joints.mask], dim=1)
    out: Tensor = layer(rows, mask)
    return out
