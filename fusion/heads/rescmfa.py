"""GCF2-Net: residual cross-modal fusion attention in both directions, a global-aware block, and a CTC auxiliary loss.

Paper: "GCF2-Net", Frontiers in Neuroscience, 2023, doi:10.3389/fnins.2023.1183132, sections 3.2 to 3.4 and 4.2.
The global-aware block is one gMLP block (Liu et al., 2021, arXiv:2105.08050) over the joined rows of all streams; the
name is that of GLAM (Zhu and Li, 2022, arXiv:2204.05571).

Where the paper is silent or contradicts itself (docs/decisions.md#gcf2-net):

- C-1, G-11: the adapter precedes every branch; the CTC layer reads its output, after dropout.
- G-1, G-2: 12 heads and dropout 0.1. A width that 12 does not divide gets the greatest smaller number that divides it.
- G-3: a block adds its own query input; ``residual=module`` adds the initial features instead.
- G-4: streams are joined along time, text first.
- G-5 to G-8: the paper lists the layers of the global-aware block without their order; `GlobalAware` is the gMLP block
  that consists of them. Its gate mixes rows along time, separately for each channel. `SlotGate` reads all rows: each
  stream has fixed slots of its own, so that a position has the same meaning whatever the padding. `LocalGate` accepts
  any length and reads 15 rows to each side. A modality that the head does not read has no slots.
- G-9: layer norm, mean over all valid rows, dropout, linear layer.
- G-10: each CTC loss is divided by its number of characters, then all are averaged; the recipes with printed values use
  ``ctc_reduction=sum``.
- C-3: a single modality has no ResCMFA layers. Rows of both modalities are pooled together, so that an utterance that
  lacks a modality has the mean over the other, and no learned vector represents the absent modality.
- Without a feasible transcript, an utterance does not take part in the CTC loss (docs/decisions.md#ctc-targets);
  `ResCMFA.prepare` counts these utterances.
- With ``alpha=0`` the CTC layer exists but is not trained, so that all models of a grid have the same parameters.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from fusion.head import Batch, Head, HeadOutput
from fusion.head_config import AUDIO, BOTH, TEXT, HeadInputs, TrainingRows
from fusion.heads.configs.rescmfa import CHARS, CTC, ResCMFAConfig
from fusion.losses.ctc import ctc_loss, feasible
from fusion.nn.attention import Attention, attention_heads_for
from fusion.nn.dropout import Dropout
from fusion.nn.layers import Pool, input_projection
from fusion.nn.sequences import valid_first

Streams: TypeAlias = Mapping[str, Tensor]  # by modality
ATTENTION_HEADS = 12  # G-1
EXPANSION = 4  # 768 -> 3072, as printed
KERNEL = 31  # rows, of `LocalGate`

# Range of the first spatial weights, divided by the number of rows they mix, as in the public gMLP package
START_RANGE = 1e-3
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"identity": lambda gate: gate, "tanh": torch.tanh}


class ResCMFA(Head):
    """The fusion head of GCF2-Net.

    Raises:
        ValueError: if the configured number of heads does not divide the width.
    """

    config_class, stackable = ResCMFAConfig, True
    config: ResCMFAConfig

    def __init__(self, config: ResCMFAConfig, inputs: HeadInputs) -> None:
        super().__init__(config, inputs)
        dim, rate = config.width(inputs.shapes), config.dropout
        heads = attention_heads_for(dim, config.heads, ATTENTION_HEADS)
        self.fronts = nn.ModuleDict(
            {modality: input_projection(config, inputs, modality, dim=dim) for modality in config.slots}
        )
        depth = config.layers if config.modalities == BOTH else 0
        self.layers = nn.ModuleList([ResCMFALayer(dim=dim, heads=heads, dropout=rate) for _ in range(depth)])
        self.global_aware = _global_aware(config, dim) if config.global_aware else None
        self.norm = nn.LayerNorm(dim)
        self.pool = Pool(dim, kind="mean", learned=False)
        self.dropout = Dropout(rate)
        self.classifier = nn.Linear(dim, len(inputs.classes))
        self.ctc_dropout = Dropout(rate)
        self.ctc = nn.Linear(dim, inputs.symbols) if config.reads(AUDIO) else None

    def forward(self, batch: Batch) -> HeadOutput:
        """Computes logits ``(batch, classes)``, and in training the loss ``ctc``."""
        initial = {modality: front(batch.features[modality]) for modality, front in self.fronts.items()}
        masks = {modality: batch.masks[modality] for modality in initial}
        pooled = self._fuse(list(self._cross(initial, masks).values()), list(masks.values()))
        logits: Tensor = self.classifier(self.dropout(pooled))
        wanted = self.training and self.config.loss_weights
        return HeadOutput(logits, {CTC: self._ctc_loss(initial[AUDIO], batch)} if wanted else {}, pooled)

    def prepare(self, rows: TrainingRows) -> list[str]:
        """Returns a note that counts the utterances that the CTC loss cannot use; learns nothing."""
        if not self.config.training_roles:
            return []
        unusable = sum(not _feasible_target(rows, index) for index in range(len(rows)))
        if not unusable:
            return []
        reason = "no transcript, or more characters than frames"
        return [f"{unusable} of {len(rows)} training utterances are left out of the CTC loss: {reason}"]

    def over_limits(self, lengths: Mapping[str, npt.NDArray[np.int64]]) -> npt.NDArray[np.bool_]:
        """Returns True for each utterance with rows beyond the slots of the dense gate, bool ``(n,)``."""
        limited = self.config.global_aware and self.config.sgu == "dense"
        beyond: npt.NDArray[np.bool_] = np.zeros_like(lengths[self.config.roles[0]], dtype=np.bool_)
        for modality, slots in self.config.slots.items():
            beyond = beyond | (limited & (lengths[modality] > slots))
        return beyond

    def _cross(self, initial: Streams, masks: Streams) -> Streams:
        """Computes the ResCMFA layers; keys and values stay the initial features in every layer."""
        streams = initial
        for layer in self.layers:
            streams = layer(streams, initial, masks, initial if self.config.residual == "module" else streams)
        return streams

    def _fuse(self, streams: Sequence[Tensor], masks: Sequence[Tensor]) -> Tensor:
        x = torch.cat(list(streams), dim=1)  # (batch, tokens + frames, dim)
        if self.global_aware is not None:
            x = self.global_aware(x, masks)
        pooled: Tensor = self.pool(self.norm(x), torch.cat(list(masks), dim=1))  # (batch, dim)
        return pooled

    def _ctc_loss(self, audio: Tensor, batch: Batch) -> Tensor:
        assert self.ctc is not None
        logits = self.ctc(self.ctc_dropout(audio))  # (batch, frames, symbols)
        targets, target_mask = batch.features[CHARS][..., 0], batch.masks[CHARS]
        return ctc_loss(logits, batch.masks[AUDIO], targets, target_mask, reduction=self.config.ctc_reduction)


class ResCMFALayer(nn.Module):
    """Two parallel blocks: audio attends to the initial text, text to the initial audio."""

    def __init__(self, *, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.audio_text = CrossModalBlock(dim=dim, heads=heads, dropout=dropout)
        self.text_audio = CrossModalBlock(dim=dim, heads=heads, dropout=dropout)

    def forward(self, streams: Streams, initial: Streams, masks: Streams, residual: Streams) -> Streams:
        """Computes both streams after this layer, text first.

        Args:
            streams: queries, ``(batch, rows, dim)`` of each modality.
            initial: keys and values, of the same shapes.
            masks: True where a row is valid, bool ``(batch, rows)``.
            residual: what is added to the outputs, of the shapes of `streams`.
        """
        return {
            TEXT: self.text_audio(streams[TEXT], initial[AUDIO], masks[AUDIO], residual[TEXT]),
            AUDIO: self.audio_text(streams[AUDIO], initial[TEXT], masks[TEXT], residual[AUDIO]),
        }


class CrossModalBlock(nn.Module):
    """One direction of a ResCMFA layer: attention, linear, layer norm, GELU, dropout, residual."""

    def __init__(self, *, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(dim=dim, heads=heads, dropout=dropout)
        self.linear = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def forward(self, query: Tensor, memory: Tensor, memory_mask: Tensor, residual: Tensor) -> Tensor:
        """Computes ``(batch, queries, dim)``: the sum of `residual` and the attention of the query to the memory."""
        attended = self.linear(self.attention(query, memory, memory_mask))
        advanced: Tensor = residual + self.dropout(functional.gelu(self.norm(attended)))
        return advanced


class GlobalAware(nn.Module):
    """The global-aware block: expansion, a gate of one half of the channels for the other half, projection back.

    Args:
        dim: width of a row.
        gate: a `SlotGate` or `LocalGate` over ``EXPANSION / 2 * dim`` channels; it mixes the gating half along time.
        residual: whether the input is added (G-6).
    """

    def __init__(self, dim: int, gate: nn.Module, *, residual: bool = True) -> None:
        super().__init__()
        half = gated_channels(dim)
        self.norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, 2 * half)
        self.gate_norm = nn.LayerNorm(half)
        self.gate = gate
        self.project = nn.Linear(half, dim)
        self.residual = residual

    def forward(self, x: Tensor, masks: Sequence[Tensor]) -> Tensor:
        """Returns ``(batch, rows, dim)``.

        Args:
            x: the streams one after another along time, ``(batch, rows, dim)``.
            masks: mask of each stream in that order, bool ``(batch, rows of the stream)``.
        """
        passed, gating = functional.gelu(self.expand(self.norm(x))).chunk(2, dim=-1)
        out: Tensor = self.project(passed * self.gate(self.gate_norm(gating), masks))
        return x + out if self.residual else out


class SlotGate(nn.Module):
    """A dense projection along time over fixed slots (G-8): every valid row reaches every other valid row.

    Rows beyond the slots get the gate 1.

    Args:
        slots: number of slots of each stream, in the order in which streams are joined.
        activation: a key of `ACTIVATIONS` (G-7).
    """

    def __init__(self, slots: Sequence[int], *, activation: str = "identity") -> None:
        super().__init__()
        total = sum(slots)
        self.slots = tuple(slots)
        self.offsets = _offsets(slots)
        self.activation = ACTIVATIONS[activation]
        self.weight = nn.Parameter(torch.empty(total, total))
        self.bias = nn.Parameter(torch.ones(total))
        nn.init.uniform_(self.weight, -START_RANGE / total, START_RANGE / total)

    def forward(self, x: Tensor, masks: Sequence[Tensor]) -> Tensor:
        """Returns the gate, ``(batch, rows, channels)`` as `x`; the masks are those of `GlobalAware`."""
        rows = [mask.shape[1] for mask in masks]
        used = [min(pair) for pair in zip(rows, self.slots, strict=True)]
        x = zero_padding(x, masks)
        if rows == used:
            return self._gate(x, used)
        gates = self._gate(_spans(x, 1, _offsets(rows), used), used).split_with_sizes(used, dim=1)
        beyond = [(0, 0, 0, every - inside) for every, inside in zip(rows, used, strict=True)]
        return torch.cat([functional.pad(gate, pad, value=1) for gate, pad in zip(gates, beyond, strict=True)], dim=1)

    def _gate(self, x: Tensor, used: Sequence[int]) -> Tensor:
        end = self.offsets[-1] + used[-1]
        weight = self.weight[:end, :end]  # cut first: the gradient of each span below is as large as its source
        weight = _spans(_spans(weight, 0, self.offsets, used), 1, self.offsets, used)  # (rows, rows)
        bias = _spans(self.bias, 0, self.offsets, used)[:, None]
        # baddbmm with one expanded matrix: a plain `weight @ x` first copies x transposed
        return self.activation(torch.baddbmm(bias, weight.expand(x.shape[0], -1, -1), x))


class LocalGate(nn.Module):
    """A depthwise convolution over valid rows without padding between them: audio follows the last token directly.

    Args:
        channels: width of a row.
        activation: a key of `ACTIVATIONS` (G-7).
    """

    def __init__(self, channels: int, *, activation: str = "identity") -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.convolution = nn.Conv1d(channels, channels, KERNEL, padding=KERNEL // 2, groups=channels)
        nn.init.uniform_(self.convolution.weight, -START_RANGE / KERNEL, START_RANGE / KERNEL)
        nn.init.ones_(self.convolution.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, masks: Sequence[Tensor]) -> Tensor:
        """Returns the gate, ``(batch, rows, channels)`` as `x`; the masks are those of `GlobalAware`."""
        order = valid_first(torch.cat(list(masks), dim=1))  # (batch, rows)
        packed = zero_padding(x, masks).take_along_dim(order[..., None], dim=1)
        gate = self.activation(self.convolution(packed.transpose(1, 2)).transpose(1, 2))
        return gate.take_along_dim(order.argsort(dim=1)[..., None], dim=1)


def gated_channels(dim: int) -> int:
    """Returns the number of channels of each half of a global-aware block of this width."""
    return EXPANSION // 2 * dim


def zero_padding(x: Tensor, masks: Sequence[Tensor]) -> Tensor:
    """Returns joined streams ``(batch, rows, channels)`` with 0 in every row that is not valid."""
    return x.masked_fill(~torch.cat(list(masks), dim=1)[..., None], 0)


def _global_aware(config: ResCMFAConfig, dim: int) -> GlobalAware:
    if config.sgu == "dense":
        gate: nn.Module = SlotGate(list(config.slots.values()), activation=config.gate)
    else:
        gate = LocalGate(gated_channels(dim), activation=config.gate)
    return GlobalAware(dim, gate, residual=config.gate_residual)


def _feasible_target(rows: TrainingRows, index: int) -> bool:
    """Returns whether an utterance can take part in the CTC loss."""
    symbols = torch.from_numpy(rows.rows(CHARS, index)[:, 0].astype(np.int64))[None]
    frames = torch.tensor([rows.length(AUDIO, index)])
    return bool(feasible(symbols, torch.ones_like(symbols, dtype=torch.bool), frames))


def _offsets(lengths: Sequence[int]) -> list[int]:
    """Returns the first position of each of several spans that follow each other."""
    return [0, *accumulate(lengths)][:-1]


def _spans(x: Tensor, dim: int, offsets: Sequence[int], lengths: Sequence[int]) -> Tensor:
    """Concatenates the spans of a dimension that begin at `offsets`."""
    return torch.cat([x.narrow(dim, start, length) for start, length in zip(offsets, lengths, strict=True)], dim=dim)
