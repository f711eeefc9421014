"""GCF2-Net: residual cross-modal fusion attention in two directions, a global-aware block and a CTC auxiliary.

Paper: "GCF2-Net", Frontiers in Neuroscience, 2023, doi:10.3389/fnins.2023.1183132, sections 3.2 to 3.4 and 4.2.
Specification: section 2 of systems.md. Decided where the paper is silent or cannot be:

- C-1 the adapter before every branch; G-11 the CTC head reads what comes out of it, after dropout.
- G-1, G-2 12 heads, dropout 0.1. A width that 12 does not divide gets the greatest number of heads below that does.
- G-3 a block adds its own query input; ``residual = module`` adds the initial features instead.
- G-4 streams are joined along time, text first.
- G-5 to G-8 the global-aware block, see `SlotGate` and `LocalGate`. A stream that takes no part has no slots.
- G-9 layer norm, mean over all valid rows, dropout, linear.
- G-10 CTC: each loss divided by its characters, then averaged; ``ctc_reduction = sum`` is the paper's preset.
- C-3 one modality: no ResCMFA layers. Rows of both are pooled together, so that an utterance that lacks a modality
  has a mean over the other, and no learned vector stands for what is absent.
- 2.6 without a feasible transcript, an utterance drops out of the CTC term only; `prepare` counts them.
- alpha = 0 keeps the CTC head, untrained, so that models of one grid have the same parameters.

The global-aware block of GCF2-Net: one gMLP block over the joined rows of all streams.

gMLP: Liu et al., 2021, arXiv:2105.08050. "Global-aware": GLAM (Zhu and Li, 2022, arXiv:2204.05571). In GCF2-Net (2023,
doi:10.3389/fnins.2023.1183132) it is an inventory of layers; decisions G-5 to G-8 read it as this block.

A gate mixes rows along time, per channel. `SlotGate` sees everything: each stream owns a span of fixed slots, so that
what a position means does not depend on padding. `LocalGate` takes any length and sees 15 rows to each side.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from fusion.head import AUDIO, BOTH, TEXT, Batch, Head, HeadConfig, HeadInputs, HeadOutput, TrainingRows
from fusion.losses.ctc import REDUCTIONS, ctc_loss, feasible
from fusion.nn.attention import Attention, attention_heads_for
from fusion.nn.dropout import Dropout
from fusion.nn.layers import Pool, input_projection

EXPANSION = 4  # 768 -> 3072, as printed
KERNEL = 31  # of `LocalGate`
START = 1e-3  # spatial weights start within this over the rows they mix, biases at 1, as in the public gMLP package
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"identity": lambda gate: gate, "tanh": torch.tanh}
Streams: TypeAlias = Mapping[str, Tensor]  # by modality
CHARS, CTC = "chars", "ctc"
SYMBOLS = 32  # characters of wav2vec2-base, the blank among them
ATTENTION_HEADS = 12  # G-1
CHOICES = {
    "residual": ("block", "module"),
    "gate": tuple(ACTIVATIONS),
    "sgu": ("dense", "dwconv"),
    "ctc_reduction": REDUCTIONS,
}


class GlobalAware(nn.Module):
    """Expands, gates one half of the channels by the other mixed along time, and projects back.

    Args:
        dim: width of a row.
        gate: a `SlotGate` or `LocalGate` over ``EXPANSION / 2 * dim`` channels.
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
            masks: of each stream in that order, bool ``(batch, rows of it)``.
        """
        passed, gating = functional.gelu(self.expand(self.norm(x))).chunk(2, dim=-1)
        out: Tensor = self.project(passed * self.gate(self.gate_norm(gating), masks))
        return x + out if self.residual else out


class SlotGate(nn.Module):
    """A dense projection over fixed slots (G-8): every valid row sees every other; rows beyond the slots get gate 1.

    Args:
        slots: of each stream, in the order in which they are joined.
        activation: a key of `ACTIVATIONS` (G-7).
    """

    def __init__(self, slots: Sequence[int], *, activation: str = "identity") -> None:
        super().__init__()
        total = sum(slots)
        self.slots = tuple(slots)
        self.firsts = _firsts(slots)
        self.activation = ACTIVATIONS[activation]
        self.weight = nn.Parameter(torch.empty(total, total))
        self.bias = nn.Parameter(torch.ones(total))
        nn.init.uniform_(self.weight, -START / total, START / total)

    def forward(self, x: Tensor, masks: Sequence[Tensor]) -> Tensor:
        """Returns the gate, ``(batch, rows, channels)`` as `x`; the masks are those of `GlobalAware`."""
        rows = [mask.shape[1] for mask in masks]
        used = [min(pair) for pair in zip(rows, self.slots, strict=True)]
        x = zeroed(x, masks)
        if rows == used:
            return self._gate(x, used)
        gates = self._gate(_spans(x, 1, _firsts(rows), used), used).split_with_sizes(used, dim=1)
        beyond = [(0, 0, 0, every - inside) for every, inside in zip(rows, used, strict=True)]
        return torch.cat([functional.pad(gate, pad, value=1) for gate, pad in zip(gates, beyond, strict=True)], dim=1)

    def _gate(self, x: Tensor, used: Sequence[int]) -> Tensor:
        end = self.firsts[-1] + used[-1]
        weight = self.weight[:end, :end]  # first, since each cut has a gradient as large as what it is cut from
        weight = _spans(_spans(weight, 0, self.firsts, used), 1, self.firsts, used)  # (rows, rows)
        bias = _spans(self.bias, 0, self.firsts, used)[:, None]
        # bmm of one expanded matrix: a plain `weight @ x` first copies x transposed
        return self.activation(torch.baddbmm(bias, weight.expand(len(x), -1, -1), x))


class LocalGate(nn.Module):
    """A depthwise convolution over the valid rows, packed: the first audio frame follows the last token.

    Args:
        channels: width of a row.
        activation: a key of `ACTIVATIONS`.
    """

    def __init__(self, channels: int, *, activation: str = "identity") -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.convolution = nn.Conv1d(channels, channels, KERNEL, padding=KERNEL // 2, groups=channels)
        nn.init.uniform_(self.convolution.weight, -START / KERNEL, START / KERNEL)
        nn.init.ones_(self.convolution.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, masks: Sequence[Tensor]) -> Tensor:
        """Returns the gate, ``(batch, rows, channels)`` as `x`; the masks are those of `GlobalAware`."""
        order = (~torch.cat(list(masks), dim=1)).int().argsort(dim=1, stable=True)  # (batch, rows), valid ones first
        packed = zeroed(x, masks).take_along_dim(order[..., None], dim=1)
        gate = self.activation(self.convolution(packed.transpose(1, 2)).transpose(1, 2))
        return gate.take_along_dim(order.argsort(dim=1)[..., None], dim=1)


def gated_channels(dim: int) -> int:
    """Gives the width of what a gate mixes in a block of this width."""
    return EXPANSION // 2 * dim


def zeroed(x: Tensor, masks: Sequence[Tensor]) -> Tensor:
    """Gives joined streams with 0 where no row is valid."""
    return x.masked_fill(~torch.cat(list(masks), dim=1)[..., None], 0)


@dataclass(frozen=True, kw_only=True)
class ResCMFAConfig(HeadConfig):
    """What can be chosen of GCF2-Net.

    Attributes:
        layers: ResCMFA layers m; 4 for IEMOCAP, 2 for MELD.
        heads: of each attention; 0 for 12, or the greatest number below 12 that divides the width.
        residual: what a block adds to, ``block`` or ``module`` (G-3).
        global_aware: whether the global-aware block stands there.
        gate: activation of its gate, ``identity`` or ``tanh`` (G-7).
        gate_residual: whether the block adds its input (G-6).
        sgu: ``dense`` over fixed slots or ``dwconv`` over any length (G-8).
        text_slots: tokens that the dense gate can take.
        audio_slots: frames that it can take; 1500 are 30 s of wav2vec 2.0.
        alpha: weight of the CTC loss.
        ctc_reduction: ``mean`` or ``sum`` (G-10).
    """

    per_model: ClassVar[frozenset[str]] = HeadConfig.per_model | {"alpha"}

    layers: int = 4
    heads: int = 0
    residual: str = "block"
    global_aware: bool = True
    gate: str = "identity"
    gate_residual: bool = True
    sgu: str = "dense"
    text_slots: int = 128
    audio_slots: int = 1500
    alpha: float = 0.1
    ctc_reduction: str = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        for name, least in {"layers": 0, "heads": 0, "text_slots": 1, "audio_slots": 1, "alpha": 0}.items():
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")

    @property
    def slots(self) -> Mapping[str, int]:
        """Slots of each modality that takes part, in the order in which they are joined."""
        slots = {TEXT: self.text_slots, AUDIO: self.audio_slots}
        return {modality: count for modality, count in slots.items() if self.reads(modality)}

    @property
    def training_roles(self) -> tuple[str, ...]:
        """The characters, if there is a CTC loss."""
        return (CHARS,) if self.loss_weights else ()

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """CTC with alpha, if audio takes part."""
        return {CTC: self.alpha} if self.alpha and self.reads(AUDIO) else {}


class CrossModalBlock(nn.Module):
    """One direction of a ResCMFA layer: attention, linear, layer norm, GELU, dropout, residual."""

    def __init__(self, *, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(dim=dim, heads=heads, dropout=dropout)
        self.linear = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def forward(self, query: Tensor, memory: Tensor, memory_mask: Tensor, residual: Tensor) -> Tensor:
        """Returns ``(batch, queries, dim)``: `residual` and what the query finds in the memory."""
        found = self.linear(self.attention(query, memory, memory_mask))
        advanced: Tensor = residual + self.dropout(functional.gelu(self.norm(found)))
        return advanced


class ResCMFALayer(nn.Module):
    """Two parallel blocks: audio over the initial text, text over the initial audio."""

    def __init__(self, *, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.audio_text = CrossModalBlock(dim=dim, heads=heads, dropout=dropout)
        self.text_audio = CrossModalBlock(dim=dim, heads=heads, dropout=dropout)

    def forward(self, streams: Streams, initial: Streams, masks: Streams, residual: Streams) -> Streams:
        """Returns both streams, advanced; text stands first."""
        return {
            TEXT: self.text_audio(streams[TEXT], initial[AUDIO], masks[AUDIO], residual[TEXT]),
            AUDIO: self.audio_text(streams[AUDIO], initial[TEXT], masks[TEXT], residual[AUDIO]),
        }


class ResCMFA(Head):
    """GCF2-Net; `fusion.head.Head` over frames and tokens.

    Raises:
        ValueError: if the heads asked for do not divide the width.
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
        self.ctc = nn.Linear(dim, SYMBOLS) if config.reads(AUDIO) else None

    def forward(self, batch: Batch) -> HeadOutput:
        """Gives logits ``(batch, classes)``; in training, the loss ``ctc``."""
        initial = {modality: front(batch.features[modality]) for modality, front in self.fronts.items()}
        masks = {modality: batch.masks[modality] for modality in initial}
        logits = self._classified(list(self._crossed(initial, masks).values()), list(masks.values()))
        wanted = self.training and self.config.loss_weights
        return HeadOutput(logits, {CTC: self._ctc_loss(initial[AUDIO], batch)} if wanted else {})

    def prepare(self, rows: TrainingRows) -> list[str]:
        """Learns nothing; counts the utterances that the CTC loss cannot use."""
        if not self.config.training_roles:
            return []
        left_out = sum(not _spelled(rows, place) for place in range(len(rows)))
        told = "the CTC loss: without a transcript, or with more characters than frames"
        return [f"{left_out} of {len(rows)} training utterances are left out of {told}"] if left_out else []

    def over_limits(self, lengths: Mapping[str, npt.NDArray[np.int64]]) -> npt.NDArray[np.bool_]:
        """Tells which utterances have rows beyond the slots of the dense gate; bool ``(n,)``."""
        limited = self.config.global_aware and self.config.sgu == "dense"
        beyond: npt.NDArray[np.bool_] = np.zeros_like(lengths[self.config.roles[0]], dtype=np.bool_)
        for modality, slots in self.config.slots.items():
            beyond = beyond | (limited & (lengths[modality] > slots))
        return beyond

    def _crossed(self, initial: Streams, masks: Streams) -> Streams:
        """Advances the streams; what they attend to stays the initial features in every layer."""
        streams = initial
        for layer in self.layers:
            streams = layer(streams, initial, masks, initial if self.config.residual == "module" else streams)
        return streams

    def _classified(self, streams: Sequence[Tensor], masks: Sequence[Tensor]) -> Tensor:
        x = torch.cat(list(streams), dim=1)  # (batch, tokens + frames, dim)
        if self.global_aware is not None:
            x = self.global_aware(x, masks)
        pooled = self.pool(self.norm(x), torch.cat(list(masks), dim=1))  # (batch, dim)
        logits: Tensor = self.classifier(self.dropout(pooled))
        return logits

    def _ctc_loss(self, audio: Tensor, batch: Batch) -> Tensor:
        assert self.ctc is not None
        logits = self.ctc(self.ctc_dropout(audio))  # (batch, frames, symbols)
        targets, target_mask = batch.features[CHARS][..., 0], batch.masks[CHARS]
        return ctc_loss(logits, batch.masks[AUDIO], targets, target_mask, reduction=self.config.ctc_reduction)


def _firsts(lengths: Sequence[int]) -> list[int]:
    return [0, *accumulate(lengths)][:-1]


def _spans(x: Tensor, dim: int, firsts: Sequence[int], lengths: Sequence[int]) -> Tensor:
    """Gives the spans that begin at `firsts`, one after another."""
    return torch.cat([x.narrow(dim, first, length) for first, length in zip(firsts, lengths, strict=True)], dim=dim)


def _global_aware(config: ResCMFAConfig, dim: int) -> GlobalAware:
    if config.sgu == "dense":
        gate: nn.Module = SlotGate(list(config.slots.values()), activation=config.gate)
    else:
        gate = LocalGate(gated_channels(dim), activation=config.gate)
    return GlobalAware(dim, gate, residual=config.gate_residual)


def _spelled(rows: TrainingRows, place: int) -> bool:
    """Tells whether an utterance takes part in the CTC loss."""
    symbols = torch.from_numpy(rows.rows(CHARS, place)[:, 0].astype(np.int64))[None]
    frames = torch.tensor([len(rows.rows(AUDIO, place))])
    return bool(feasible(symbols, torch.ones_like(symbols, dtype=torch.bool), frames))
