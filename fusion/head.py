"""The contract of a head: its configuration, what it reads, and what training asks of it.

What a head is built from, what it is given, and what it gives back.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

Weights = Mapping[str, npt.NDArray[Any]]
BOTH, AUDIO, TEXT = "both", "audio", "text"
MODALITIES = (BOTH, AUDIO, TEXT)


@dataclass(frozen=True, kw_only=True)
class HeadInputs:
    """What is known of the data before a head is built.

    Attributes:
        classes: names of the classes, in the order of their indices.
        shapes: role -> shape of one row of the stream that is read for it, ``(dim,)`` or ``(layers, dim)``.
        weights: role -> what the cache holds of that stream's encoder for heads to start from.
        layers: role -> layers of that stream, as asked for after ``@``.
    """

    classes: tuple[str, ...]
    shapes: Mapping[str, tuple[int, ...]]
    weights: Mapping[str, Weights] = field(default_factory=dict)
    layers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows of several utterances, padded on the right to the longest of them, and to one row at least.

    What lies in the padding is anything at all. An utterance that lacks a modality has no valid row in it.

    Attributes:
        features: role -> ``(batch, rows, ...)``; float32, int64 for codes, tokens and chars.
        masks: role -> True where a row is valid, bool ``(batch, rows)``.
        labels: class of each utterance, int64 ``(batch,)``.
        indices: position of each utterance among all of the cache, int64 ``(batch,)``.
    """

    features: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]
    labels: Tensor
    indices: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def without(self, role: str, absent: Tensor) -> "Batch":
        """Takes a role away from the utterances where `absent` is True, bool ``(batch,)``."""
        return replace(self, masks={**self.masks, role: self.masks[role] & ~absent[:, None]})

    def to(self, device: torch.device) -> "Batch":
        """Moves everything to a device."""
        return Batch(
            features={role: values.to(device) for role, values in self.features.items()},
            masks={role: mask.to(device) for role, mask in self.masks.items()},
            labels=self.labels.to(device),
            indices=self.indices.to(device),
        )


@dataclass(frozen=True)
class HeadOutput:
    """What a head gives for a batch.

    Attributes:
        logits: ``(batch, classes)``.
        losses: auxiliary losses by name, unweighted scalars; empty in eval mode.
    """

    logits: Tensor
    losses: Mapping[str, Tensor] = field(default_factory=dict)


class TrainingRows(Protocol):
    """The training part of a fold, and nothing else: what `prepare` of a head may learn from."""

    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        """Counts the utterances."""
        ...

    def text(self, place: int) -> str:
        """Gives the transcript of one of them, as stored."""
        ...

    def rows(self, role: str, place: int) -> npt.NDArray[Any]:
        """Gives the cached rows of one of them, ``(rows, ...)``."""
        ...


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """The fields that every head has; each head's own configuration adds to them.

    Attributes:
        per_model: fields in which models that are trained as one stack may differ: their values change neither a shape
            nor what is computed, but only how losses are weighed and where weights start.
        dim: width of the head; 0 for that of its audio stream, or of its text stream where it reads no other.
        adapter: the residual adapter before every branch.
        dropout: rate of all dropout.
        modalities: ``both``, ``audio`` or ``text``.
        modality_dropout: how often, in training, one of two modalities is taken away from an utterance.
        standardize: takes each dimension to mean 0 and variance 1 of the fold's training part, before all else.
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
            raise ValueError(
                f"modality_dropout takes one of two modalities, there is {self.modalities} alone; set it to 0"
            )
        if self.dim < 0:
            raise ValueError(f"dim must be a width, or 0 for that of the stream, got {self.dim}")

    def reads(self, modality: str) -> bool:
        """Tells whether ``audio`` or ``text`` takes part."""
        return self.modalities in {BOTH, modality}

    def width(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """Gives the width of the head over streams of these row shapes."""
        first = AUDIO if self.reads(AUDIO) else TEXT
        return self.dim or shapes[first][-1]

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles whose streams the head cannot do without, in predicting as in training."""
        return tuple(modality for modality in (AUDIO, TEXT) if self.reads(modality))

    @property
    def training_roles(self) -> tuple[str, ...]:
        """The roles that are read in training only."""
        return ()

    @property
    def prepare_roles(self) -> tuple[str, ...]:
        """The roles that only `Head.prepare` reads, of the training rows; their shapes are known all the same."""
        return ()

    @property
    def optional_roles(self) -> tuple[str, ...]:
        """The roles that training reads too where the cache has a stream for them."""
        return ()

    @property
    def weight_roles(self) -> tuple[str, ...]:
        """The roles whose encoders' weights the head starts from."""
        return ()

    @property
    def every_role(self) -> set[str]:
        """All roles for which a stream may be named."""
        return {*self.roles, *self.training_roles, *self.prepare_roles, *self.weight_roles, *self.optional_roles}

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """The weight of each auxiliary loss by name; losses of weight 0 are not computed."""
        return {}


class Head(nn.Module, ABC):
    """A fusion head: a module from padded features to logits, and in training to auxiliary losses.

    A subclass sets `config_class`, calls ``super().__init__(config, inputs)``, and defines `forward`. It may narrow the
    type of its configuration by an annotation, ``config: MyConfig``.

    Attributes:
        config_class: class of the configuration, a frozen dataclass.
        stackable: whether a grid may train several of these heads as one stack, by `torch.func.vmap`: the forward pass
            depends on no value of a tensor (no ``if``, no ``.item()``), and drops by `fusion.nn.dropout.Dropout` alone.
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
        """Computes logits, and in training mode the auxiliary losses of `HeadConfig.loss_weights`."""

    def prepare(self, rows: TrainingRows) -> list[str]:
        """Learns from the training subset of a fold before step 0; returns notes to print."""
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
