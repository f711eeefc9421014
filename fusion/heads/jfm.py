"""JFM with inter-class contrastive learning (ICL): joint vectors through layers of a ViT and a language model.

Paper: Shi et al., 2024, arXiv:2405.17900, sections 2.2 to 2.5 and 3.2. Log-mel passes the first layers of a ViT. Text
passes a feature extractor and then the layers of a language model that follow its hidden state 12. The only exchange
between the two streams are a few learned joint vectors (section 2.3; after the prompts of PMF, Li et al., 2023,
arXiv:2304.06306). The final row of CLS and that of the start token are classified separately.

Where the paper is silent or contradicts itself (docs/decisions.md#jfm):

- J-1: text is the 12th hidden state of a large model, because the layers that follow need its width.
- J-2: the extractor precedes the joint blocks.
- J-3: mel bands are normalized over the training subset of the fold, the kernels of the three colours are averaged, and
  positions are fixed.
- J-4: each stream stays in its own layers, against the printed indices.
- J-5: the blocks are the first layers of the ViT and the layers after the hidden state of the text.
- J-6, J-7: sizes of the MLPs and the start of joint vectors are those of PMF.
- J-8: everything is trained except the cached text features and the fixed positions.
- J-9: there is one kind of joint vectors.
- J-10: logits are averaged.
- J-11 to J-14: the contrastive loss reads both final rows, normalized.
- J-15: no dialogue context.
- C-3: no row attends to joint vectors from an absent modality.
- One dropout rate holds everywhere, the ViT included; the two passes of a layer use the same mask.
- J-17: the language layers are those of the encoder of text; the paper cites BERT for them.
- J-18: ``fusion=cfa`` and ``fusion=concat`` are the two baselines of Table 3: they replace the joint blocks by layers
  of the ViT alone and a fusion of their rows with those of the extractor.
- With ``fusion=late`` there are no blocks of section 2.3: text is the start token after the extractor (J-2), audio is
  the CLS row of a complete ViT. The paper gives no other details of late fusion.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cache.errors import MmerError
from fusion.head import Batch, Head, HeadOutput
from fusion.head_config import AUDIO, TEXT, HeadInputs, TrainingRows, Weights
from fusion.heads.configs.jfm import (
    BASE768,
    CFA,
    CONCAT,
    ICL,
    LANGUAGE,
    LAST,
    LATE,
    LAYER12,
    MEL,
    PATCHES,
    JFMConfig,
)
from fusion.losses.contrastive import supervised_contrastive_loss
from fusion.nn.attention import CrossLayer, TransformerLayer, attention_heads_for
from fusion.nn.layers import InputProjection, Pool
from fusion.nn.pretrained import BANDS, PATCH, MelPatches, featurize_hint, layer_width, select_layers, start_layer
from fusion.nn.sequences import MaskedRows

SOURCES: Mapping[str, str] = {TEXT: AUDIO, AUDIO: TEXT}  # modality -> the other, from which its joint vectors come
VECTOR_STD = 0.02  # standard deviation of new joint vectors, as in PMF (J-7)


class JFM(Head):
    """The fusion head of JFM.

    Raises:
        MmerError: if start weights are missing, or the text stream does not fit the language layers.
    """

    config_class, stackable = JFMConfig, True
    config: JFMConfig

    def __init__(self, config: JFMConfig, inputs: HeadInputs) -> None:
        super().__init__(config, inputs)
        self._notes: list[str] = []
        self.norm: nn.Module = nn.Identity()
        modalities = [modality for modality in (AUDIO, TEXT) if config.reads(modality)]
        self.roles = dict(zip(modalities, config.roles, strict=True))
        self.entries = nn.ModuleDict()
        layers: dict[str, list[TransformerLayer]] = {}
        widths: dict[str, int] = {}
        if config.reads(AUDIO):
            layers[AUDIO], widths[AUDIO] = self._build_audio(inputs)
        if config.reads(TEXT):
            layers[TEXT], widths[TEXT] = self._build_text(inputs)
        length = config.joint_length if config.joint else 0
        self.blocks = nn.ModuleList(
            JointBlock({modality: stack[index] for modality, stack in layers.items() if stack}, length=length)
            for index in range(max(map(len, layers.values())))
        )
        self.crossing = None
        if config.fusion == CFA and len(widths) > 1:
            self.crossing = CrossModalFusion(widths, heads=config.extractor_heads, dropout=config.dropout)
        learned, classes = config.modality_dropout > 0, len(inputs.classes)
        self.pools = nn.ModuleDict({name: Pool(dim, kind="mean", learned=learned) for name, dim in widths.items()})
        classified = {CONCAT: sum(widths.values())} if config.fusion == CONCAT else widths
        self.classifiers = nn.ModuleDict({name: nn.Linear(dim, classes) for name, dim in classified.items()})
        if config.freeze_layers:
            self._freeze([layer for stack in layers.values() for layer in stack])

    def forward(self, batch: Batch) -> HeadOutput:
        """Computes the mean of the logits of all classifiers and, in training, the contrastive loss."""
        streams = {
            modality: self.entries[modality](batch.features[role], batch.masks[role])
            for modality, role in self.roles.items()
        }
        for block in self.blocks:
            streams = block(streams)
        if self.crossing is not None:
            streams = self.crossing({modality: self._normed(modality, stream) for modality, stream in streams.items()})
        pooled = {modality: self._final_row(modality, stream) for modality, stream in streams.items()}
        if self.config.fusion == CONCAT:
            pooled = {CONCAT: torch.cat(list(pooled.values()), dim=1)}
        logits = torch.stack([self.classifiers[name](x) for name, x in pooled.items()]).mean(dim=0)
        features = torch.cat(list(pooled.values()), dim=1)
        if not self.training or not self.config.loss_weights.get(ICL):
            return HeadOutput(logits, embedding=features)
        loss = supervised_contrastive_loss(features, batch.classes, temperature=self.config.tau)
        return HeadOutput(logits, {ICL: loss}, features)

    def prepare(self, rows: TrainingRows) -> list[str]:
        """Learns the statistics of the mel bands; returns notes on the layers if they are the last ones."""
        if self._patches:
            self._patches.fit(rows.rows(MEL, index) for index in range(len(rows)))
        return list(self._notes)

    def over_limits(self, lengths: Mapping[str, npt.NDArray[np.int64]]) -> npt.NDArray[np.bool_]:
        """Returns True for utterances longer than the stored positions (15 s), bool ``(n,)``.

        Such an utterance gets positions that are interpolated for its own length.
        """
        if not self._patches:
            return np.zeros(len(next(iter(lengths.values()))), dtype=np.bool_)
        return np.asarray(lengths[MEL] > PATCH * self._patches.columns)

    @property
    def _patches(self) -> MelPatches | None:
        """The embedding of log-mel, if the head reads log-mel."""
        return next((entry for entry in self.entries.values() if isinstance(entry, MelPatches)), None)

    def _final_row(self, modality: str, stream: MaskedRows) -> Tensor:
        """Returns the row that is classified, the first: CLS or the start token, ``(batch, dim)``."""
        first = MaskedRows(stream.rows[:, :1], stream.mask[:, :1])
        rows, mask = first if self.crossing is not None else self._normed(modality, first)
        vector: Tensor = self.pools[modality](rows, mask)
        return vector

    def _normed(self, modality: str, stream: MaskedRows) -> MaskedRows:
        """Applies the final norm of the ViT to a stream of audio; text is normalized by its last layer."""
        return MaskedRows(self.norm(stream.rows), stream.mask) if modality == AUDIO else stream

    def _build_audio(self, inputs: HeadInputs) -> tuple[list[TransformerLayer], int]:
        """Builds the entry and the layers of audio; returns the layers and their width."""
        if self.config.fusion == LATE:
            dim = inputs.shapes[PATCHES][-1]
            self.entries[AUDIO] = Extractor(inputs.shapes[PATCHES], dim=dim, layers=0, heads=1, dropout=0)
            return [], dim
        if inputs.shapes[MEL] != (BANDS,):
            raise MmerError(f"jfm reads log-mel of {BANDS} bands, got rows of shape {inputs.shapes[MEL]}; use logmel80")
        weights = inputs.weights.get(PATCHES, {})
        layers = self._start_layers("ViT", weights, 0)
        self.entries[AUDIO] = MelPatches(weights)
        dim = len(weights["cls"])
        self.norm = nn.LayerNorm(dim, eps=float(weights["norm_eps"]))
        final = {name: torch.tensor(weights[f"norm.{name}"]) for name in ("weight", "bias")}
        self.norm.load_state_dict(final, assign=True)
        return layers, dim

    def _build_text(self, inputs: HeadInputs) -> tuple[list[TransformerLayer], int]:
        """Builds the extractor and the layers of text; returns the layers and their width."""
        config, shape = self.config, inputs.shapes[TEXT]
        layers, dim = [], shape[-1]
        if config.language_layers:
            role = LANGUAGE if config.text == BASE768 else TEXT
            choice, weights = inputs.layers.get(role, ""), inputs.weights.get(role, {})
            if not choice.isdecimal():
                remedy = featurize_hint(config.blocks)
                raise MmerError(f"jfm continues from one hidden state of text, got {choice or 'none'!r}; {remedy}")
            layers = self._start_layers("language", weights, int(choice))
            dim = layer_width(weights, int(choice))
        if config.text == LAYER12 and shape != (dim,):
            raise MmerError(f"jfm needs text rows of shape ({dim},), got {shape}; use one hidden state of the encoder")
        self.entries[TEXT] = Extractor(
            shape, dim=dim, layers=config.extractor_layers, heads=config.extractor_heads, dropout=config.dropout
        )
        return layers, dim

    def _start_layers(self, what: str, weights: Weights, first: int) -> list[TransformerLayer]:
        """Builds the pre-trained layers of one stream: those from index `first` on, or the last stored ones."""
        config = self.config
        last = config.layers == LAST
        chosen = select_layers(weights, what, first=first, count=config.blocks, last=last)
        if last:
            self._notes.append(f"last stored {what} layers: {', '.join(map(str, chosen))}")
        return [start_layer(weights, index, dropout=config.dropout) for index in chosen]

    def _freeze(self, layers: list[TransformerLayer]) -> None:
        for module in [*layers, self.norm, *([self._patches] if self._patches else [])]:
            module.requires_grad_(False)


class JointBlock(nn.Module):
    """One layer of each stream, and the joint vectors between two streams (section 2.3).

    Each layer runs twice with the same weights: once over its own stream and the vectors that leave it, once over its
    own stream and the vectors that arrive. Only the vectors of the first pass and the rows of the second are kept.

    Args:
        layers: one layer of each modality.
        length: number of joint vectors of each direction; with 0, or with one modality, each layer runs once.
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
        """Computes the streams for the next block; a stream without a layer here stays unchanged."""
        joints = {
            modality: vectors(self.layers[SOURCES[modality]], streams[SOURCES[modality]])
            for modality, vectors in self.joints.items()
        }
        advanced = dict(streams)
        for modality, layer in self.layers.items():
            rows, mask = streams[modality]
            out = _run_layer(layer, streams[modality], joints.get(modality))
            advanced[modality] = MaskedRows(out[:, : rows.shape[1]], mask)
        return advanced


class JointVectors(nn.Module):
    """Learned vectors that collect information from one stream and enter the other at its width (section 2.3).

    They pass the layer of the source stream together with its rows, and then an MLP to the width of the other stream.

    Args:
        length: number of vectors.
        source_dim: width of the stream from which they collect information.
        dim: width of the stream that they enter.
    """

    def __init__(self, *, length: int, source_dim: int, dim: int) -> None:
        super().__init__()
        hidden = max(source_dim, dim) // 2
        self.vectors = nn.Parameter(VECTOR_STD * torch.randn(length, source_dim))
        self.mlp = nn.Sequential(nn.Linear(source_dim, hidden), nn.ReLU(), nn.Linear(hidden, dim))

    def forward(self, layer: TransformerLayer, source: MaskedRows) -> MaskedRows:
        """Computes the vectors, ``(batch, length, dim)``; none is valid if the source modality is absent."""
        vectors = self.vectors.expand(source.rows.shape[0], -1, -1)
        valid = torch.ones_like(vectors[..., 0], dtype=torch.bool)
        out = _run_layer(layer, source, MaskedRows(vectors, valid))
        gathered = out[:, source.rows.shape[1] :]
        return MaskedRows(self.mlp(gathered), valid & source.mask.any(dim=1, keepdim=True))


class CrossModalFusion(nn.Module):
    """Cross-modal fusion attention, a baseline of Table 3 (J-18): the rows of each stream attend to those of the other.

    The paper prints no equation: each direction is one attention with a residual connection and a layer norm, over rows
    that a linear layer maps to the width of the queries.

    Args:
        widths: width of each stream, by modality.
        heads: number of attention heads; for a width that it does not divide, the greatest smaller number that does.
        dropout: dropout rate of the attention.
    """

    def __init__(self, widths: Mapping[str, int], *, heads: int, dropout: float) -> None:
        super().__init__()
        self.maps = nn.ModuleDict(
            {modality: nn.Linear(widths[SOURCES[modality]], dim) for modality, dim in widths.items()}
        )
        self.layers = nn.ModuleDict(
            {
                modality: CrossLayer(dim=dim, heads=attention_heads_for(dim, 0, usual=heads), dropout=dropout)
                for modality, dim in widths.items()
            }
        )

    def forward(self, streams: Mapping[str, MaskedRows]) -> dict[str, MaskedRows]:
        """Computes both streams from the same input; each keeps its rows and its width."""
        crossed = {}
        for modality, layer in self.layers.items():
            query, other = streams[modality], streams[SOURCES[modality]]
            crossed[modality] = MaskedRows(layer(query.rows, self.maps[modality](other.rows), other.mask), query.mask)
        return crossed


class Extractor(nn.Module):
    """The feature extractor before the joint blocks: layer mix, projection, post-norm Transformer layers.

    Args:
        shape: shape of one cached row, ``(dim,)`` or ``(layers, dim)``.
        dim: width of the output.
        layers: number of Transformer layers; with 0, rows are only mixed and projected.
        heads: number of attention heads of each layer.
        dropout: dropout rate of each layer.
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


def _run_layer(layer: nn.Module, stream: MaskedRows, joints: MaskedRows | None) -> Tensor:
    """Runs a layer over a stream followed by the joint vectors, ``(batch, rows + length, dim)``."""
    rows, mask = stream
    if joints is not None:
        rows, mask = torch.cat([rows, joints.rows], dim=1), torch.cat([mask, joints.mask], dim=1)
    out: Tensor = layer(rows, mask)
    return out
