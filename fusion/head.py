"""The contract of a head: its configuration, its inputs, its outputs, and the methods that training calls."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fusion.arrays import ClassIds
from fusion.head_config import HeadConfig, HeadInputs, TrainingRows


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows of several utterances, padded on the right to the longest of them and to at least one row.

    Values in the padding are undefined. An utterance that lacks a modality has no valid row of it.

    Attributes:
        features: role -> ``(batch, rows, ...)``; float32, int64 for codes, tokens and chars.
        masks: role -> True where a row is valid, bool ``(batch, rows)``.
        labels: class of each utterance, int64 ``(batch,)``; or its values, float32 ``(batch, outputs)``.
        indices: index of each utterance among all utterances of the cache, int64 ``(batch,)``.
        pooled: whether each role has a single row, which `Head.pool_role` computed from its rows.
    """

    features: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]
    labels: Tensor
    indices: Tensor
    pooled: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> Tensor:
        """The class of each utterance, int64 ``(batch,)``; of soft labels, the one with the most votes."""
        return self.labels if self.labels.dim() == 1 else self.labels.argmax(dim=1)

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
            pooled=self.pooled,
        )


@dataclass(frozen=True)
class HeadOutput:
    """Output of a head for one batch.

    Attributes:
        logits: ``(batch, classes)``.
        losses: auxiliary losses by name, unweighted scalars; empty in eval mode.
        embedding: vector of each utterance before the classifier, ``(batch, width)``, which a report draws; None for a
            head without such a vector.
    """

    logits: Tensor
    losses: Mapping[str, Tensor] = field(default_factory=dict)
    embedding: Tensor | None = None


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

    def rows_before_training(self, rows: TrainingRows, device: torch.device) -> TrainingRows:
        """Returns the training subset as `prepare` reads it; encoders in front of a head change it, on a device."""
        return rows

    @property
    def early_pooling(self) -> Mapping[str, str]:
        """Role -> text that decides what `pool_role` returns, if rows are pooled before anything random or learned.

        Training then pools the rows of each utterance once, and `forward` receives pooled batches. Empty for a head
        whose rows pass a learned layer first.
        """
        return {}

    def pool_role(self, role: str, batch: Batch) -> tuple[Tensor, Tensor]:
        """Pools the rows of a role of `early_pooling`.

        Returns:
            The vectors ``(batch, width)``, and True where an utterance has a row to pool, bool ``(batch,)``.
        """
        raise NotImplementedError(f"{type(self).__name__} pools no rows of {role} before training")

    @property
    def training_reads(self) -> set[str]:
        """Roles that training reads."""
        return {*self.config.roles, *self.config.training_roles, *self.config.optional_roles}

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that a checkpoint must share to be resumed, as plain values."""
        return {"name": type(self).__name__, **asdict(self.config)}

    def learning_rates(self, lr: float) -> list[tuple[float, list[nn.Parameter]]]:
        """Returns the parameters that learn, by their maximum learning rate.

        Args:
            lr: learning rate of the head.
        """
        return [(lr, [parameter for parameter in self.parameters() if parameter.requires_grad])]


class FittedHead(Head):
    """A head that a solver fits to pooled vectors instead of gradient steps; one candidate value takes one epoch.

    Attributes:
        candidates: values of the one setting that the development subset chooses, in the order of the epochs; of equal
            scores the first wins.
        candidate_name: name of that setting.
    """

    candidates: ClassVar[tuple[float, ...]]
    candidate_name: ClassVar[str]

    @abstractmethod
    def vectors(self, batch: Batch) -> Tensor:
        """Pools the rows of a batch, ``(batch, width)``."""

    @abstractmethod
    def fit(self, vectors: npt.NDArray[np.float64], labels: ClassIds, candidate: float, *, balanced: bool) -> None:
        """Fits the head.

        Args:
            vectors: vectors of the training subset, float64 ``(n, width)``.
            labels: class of each utterance, int64 ``(n,)``.
            candidate: value of the setting.
            balanced: weight each class by its inverse frequency.
        """
