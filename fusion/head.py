"""The contract of a head: its configuration, its inputs, its outputs, and the methods that training calls."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fusion.arrays import ClassIds

Weights = Mapping[str, npt.NDArray[Any]]
BOTH, AUDIO, TEXT = "both", "audio", "text"
MODALITIES = (BOTH, AUDIO, TEXT)


@dataclass(frozen=True, kw_only=True)
class HeadInputs:
    """Description of the data that a head is built for.

    Attributes:
        classes: names of the classes, in the order of their indices.
        shapes: role -> shape of one row of the stream that is read for the role, ``(dim,)`` or ``(layers, dim)``.
        weights: role -> pre-trained weights of the encoder of that stream, as stored in the cache.
        layers: role -> layers of that stream, as written after ``@``.
    """

    classes: tuple[str, ...]
    shapes: Mapping[str, tuple[int, ...]]
    weights: Mapping[str, Weights] = field(default_factory=dict)
    layers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows of several utterances, padded on the right to the longest of them and to at least one row.

    Values in the padding are undefined. An utterance that lacks a modality has no valid row of it.

    Attributes:
        features: role -> ``(batch, rows, ...)``; float32, int64 for codes, tokens and chars.
        masks: role -> True where a row is valid, bool ``(batch, rows)``.
        labels: class of each utterance, int64 ``(batch,)``.
        indices: index of each utterance among all utterances of the cache, int64 ``(batch,)``.
    """

    features: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]
    labels: Tensor
    indices: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def without(self, role: str, absent: Tensor) -> "Batch":
        """Returns the batch without a role where `absent` is True, bool ``(batch,)``."""
        return replace(self, masks={**self.masks, role: self.masks[role] & ~absent[:, None]})

    def to(self, device: torch.device) -> "Batch":
        """Moves all tensors to a device."""
        return Batch(
            features={role: values.to(device) for role, values in self.features.items()},
            masks={role: mask.to(device) for role, mask in self.masks.items()},
            labels=self.labels.to(device),
            indices=self.indices.to(device),
        )


@dataclass(frozen=True)
class HeadOutput:
    """Output of a head for one batch.

    Attributes:
        logits: ``(batch, classes)``.
        losses: auxiliary losses by name, unweighted scalars; empty in eval mode.
    """

    logits: Tensor
    losses: Mapping[str, Tensor] = field(default_factory=dict)


class TrainingRows(Protocol):
    """Training subset of a fold, the only data that `Head.prepare` may learn from.

    Attributes:
        labels: class of each utterance, int64 ``(n,)``.
    """

    labels: ClassIds

    def __len__(self) -> int:
        """Returns the number of utterances."""
        ...

    def text(self, index: int) -> str:
        """Returns the transcript of one utterance of the subset, as stored."""
        ...

    def rows(self, role: str, index: int) -> npt.NDArray[Any]:
        """Returns the cached rows of one utterance of the subset, ``(rows, ...)``."""
        ...


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """Configuration fields common to all heads; the configuration of a head adds its own.

    Attributes:
        per_model: fields in which models of one stack may differ: their values change neither a shape nor the
            computation, only dropout rates, weights of losses and initial weights.
        dim: width of the head; 0 for the width of its audio stream, or of its text stream if it reads no audio.
        adapter: whether a residual adapter precedes every branch.
        dropout: rate of all dropout, in [0, 1).
        modalities: ``both``, ``audio`` or ``text``.
        modality_dropout: probability in [0, 1) that an utterance loses one of its two modalities during training.
        standardize: whether each dimension is first scaled to mean 0 and variance 1 over the training subset of the
            fold.
    """

    per_model: ClassVar[frozenset[str]] = frozenset({"dropout"})

    dim: int = 0
    adapter: bool = True
    dropout: float = 0.1
    modalities: str = BOTH
    modality_dropout: float = 0.0
    standardize: bool = False

    def __post_init__(self) -> None:
        if self.modalities not in MODALITIES:
            raise ValueError(f"modalities must be one of {', '.join(MODALITIES)}, got {self.modalities!r}")
        for name in ("dropout", "modality_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        if self.modality_dropout and self.modalities != BOTH:
            rate, only = self.modality_dropout, self.modalities
            raise ValueError(f"modality_dropout ({rate}) needs two modalities, got {only} only; set it to 0")
        if self.dim < 0:
            raise ValueError(f"dim must be a width, or 0 for the width of the stream, got {self.dim}")

    def reads(self, modality: str) -> bool:
        """Checks whether the head reads a modality, ``audio`` or ``text``."""
        return self.modalities in {BOTH, modality}

    def width(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """Returns the width of the head for streams of these row shapes."""
        first = AUDIO if self.reads(AUDIO) else TEXT
        return self.dim or shapes[first][-1]

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles whose streams are required for prediction and training."""
        return tuple(modality for modality in (AUDIO, TEXT) if self.reads(modality))

    @property
    def training_roles(self) -> tuple[str, ...]:
        """Roles that are read in training only."""
        return ()

    @property
    def prepare_roles(self) -> tuple[str, ...]:
        """Roles that only `Head.prepare` reads, from training rows.

        `HeadInputs.shapes` includes them.
        """
        return ()

    @property
    def optional_roles(self) -> tuple[str, ...]:
        """Roles that training reads in addition if the cache has a stream for them."""
        return ()

    @property
    def weight_roles(self) -> tuple[str, ...]:
        """Roles with encoders whose pre-trained weights the head starts from."""
        return ()

    @property
    def every_role(self) -> set[str]:
        """All roles for which a stream may be chosen."""
        return {*self.roles, *self.training_roles, *self.prepare_roles, *self.weight_roles, *self.optional_roles}

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """Weight of each auxiliary loss by name; losses of weight 0 are not computed."""
        return {}


class Head(nn.Module, ABC):
    """A fusion head: a module from padded features to logits, and in training also to auxiliary losses.

    A subclass sets `config_class`, calls ``super().__init__(config, inputs)``, and defines `forward`. It may narrow the
    type of its configuration by an annotation, ``config: MyConfig``.

    Attributes:
        config_class: class of the configuration, a frozen dataclass.
        stackable: whether a grid may train several of these heads as one stack by `torch.func.vmap`. The forward pass
            then depends on no value of a tensor (no ``if``, no ``.item()``) and uses `fusion.nn.dropout.Dropout` for
            all dropout.
        config: the configuration.
        inputs: description of the data that the head was built for.
    """

    config_class: ClassVar[type[HeadConfig]]
    stackable: ClassVar[bool] = False

    def __init__(self, config: HeadConfig, inputs: HeadInputs) -> None:
        super().__init__()
        self.config = config
        self.inputs = inputs

    def __call__(self, batch: Batch) -> HeadOutput:
        """Calls `forward`; `torch.nn.Module` leaves its type open."""
        output: HeadOutput = super().__call__(batch)
        return output

    @abstractmethod
    def forward(self, batch: Batch) -> HeadOutput:
        """Computes logits, and in training mode auxiliary losses.

        `HeadConfig.loss_weights` names the auxiliary losses; losses of weight 0 are not computed.
        """

    def prepare(self, rows: TrainingRows) -> list[str]:
        """Learns from the training subset before step 0; returns notes to print."""
        return []

    def over_limits(self, lengths: Mapping[str, npt.NDArray[np.int64]]) -> npt.NDArray[np.bool_]:
        """Returns True for each utterance that is longer than the head can read in full.

        Args:
            lengths: role -> number of rows of each utterance, int64 ``(n,)``.

        Returns:
            Bool ``(n,)``.
        """
        return np.zeros(len(next(iter(lengths.values()))), dtype=np.bool_)

    @property
    def training_reads(self) -> set[str]:
        """Roles that training reads."""
        return {*self.config.roles, *self.config.training_roles, *self.config.optional_roles}
