"""Hyperparameters of GCF2-Net: fields, defaults, checks, and the roles that follow from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from fusion.head_config import AUDIO, TEXT, HeadConfig

CHARS, CTC = "chars", "ctc"
CHOICES = {
    "residual": ("block", "module"),
    "gate": ("identity", "tanh"),
    "sgu": ("dense", "dwconv"),
    "ctc_reduction": ("mean", "sum"),
}


@dataclass(frozen=True, kw_only=True)
class ResCMFAConfig(HeadConfig):
    """Configuration of GCF2-Net.

    Attributes:
        layers: number m of ResCMFA layers; the paper has 4 for IEMOCAP and 2 for MELD.
        heads: number of heads of each attention; 0 for 12, or for the greatest smaller number that divides the width.
        residual: what a block adds to its output: ``block`` for its query input, ``module`` for the initial features
            (G-3).
        global_aware: whether the global-aware block exists.
        gate: activation of the gate of that block, ``identity`` or ``tanh`` (G-7).
        gate_residual: whether the global-aware block adds its input (G-6).
        sgu: gate of that block, ``dense`` over fixed slots or ``dwconv`` over any length (G-8).
        text_slots: number of tokens that the dense gate reads.
        audio_slots: number of frames that the dense gate reads; 1500 are 30 s of wav2vec 2.0.
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
        """Number of slots of each modality that the head reads, in the order in which streams are joined."""
        slots = {TEXT: self.text_slots, AUDIO: self.audio_slots}
        return {modality: count for modality, count in slots.items() if self.reads(modality)}

    @property
    def training_roles(self) -> tuple[str, ...]:
        """The characters of the transcript, if there is a CTC loss."""
        return (CHARS,) if self.loss_weights else ()

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """Weight alpha for the CTC loss, if the head reads audio."""
        return {CTC: self.alpha} if self.alpha and self.reads(AUDIO) else {}
