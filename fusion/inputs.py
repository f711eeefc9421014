"""What a head is built from, what it is given, and what it gives back."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Weights = Mapping[str, npt.NDArray[Any]]


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
