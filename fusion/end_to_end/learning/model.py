"""Encoders and a head as one model, which trains and predicts like a head."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fusion.arrays import ClassIds
from fusion.end_to_end.learning.encoder import LearningEncoder
from fusion.end_to_end.learning.image import LearningPatches
from fusion.end_to_end.learning.source import LoadedEncoder
from fusion.end_to_end.learning.speech import LearningSpeech
from fusion.end_to_end.learning.start import Start
from fusion.end_to_end.learning.text import LearningText
from fusion.end_to_end.learning.tune import PATCHES
from fusion.head import Batch, Head, HeadOutput
from fusion.head_config import AUDIO, TEXT, HeadConfig, TrainingRows, view_role
from fusion.training.config import TrainConfig

LEARNERS: Mapping[str, type[Any]] = {AUDIO: LearningSpeech, TEXT: LearningText, PATCHES: LearningPatches}
HEAD_PREFIX = "head."


class TunedModel(Head):
    """A head on encoders that learn.

    Batches hold the rows of start streams for the roles of the encoders; the head reads what the encoders make of them.

    Args:
        head: built head.
        encoders: role -> encoder.
        loaded: role -> whole model that the encoder is part of.
        starts: role -> where its learning starts.
        config: training configuration with the learning rates of the encoders.
    """

    config_class = HeadConfig

    def __init__(
        self,
        head: Head,
        encoders: Mapping[str, LearningEncoder],
        loaded: Mapping[str, LoadedEncoder],
        starts: Mapping[str, Start],
        config: TrainConfig,
    ) -> None:
        super().__init__(head.config, head.inputs)
        self.head = head  # first, so that its dropout draws as without encoders
        self.encoders = nn.ModuleDict(encoders)
        self.loaded, self.starts = loaded, starts
        self.training_config = config
        for role, encoder in encoders.items():
            if not encoder_rate(config, role):
                encoder.requires_grad_(False)

    def forward(self, batch: Batch) -> HeadOutput:
        """Computes logits and auxiliary losses from the rows of start streams."""
        features, masks = dict(batch.features), dict(batch.masks)
        for role, encoder in self.encoders.items():
            for read in {role, view_role(role)} & features.keys():
                rows, masks[read] = encoder(features[read], masks[read])
                features[read] = rows.float()
        return self.head(replace(batch, features=features, masks=masks))

    def prepare(self, rows: TrainingRows) -> list[str]:
        """Learns from the training subset before step 0; returns notes to print."""
        return self.head.prepare(rows)

    def rows_before_training(self, rows: TrainingRows, device: torch.device) -> TrainingRows:
        """Returns the training subset as the encoders see it before step 0, on the device that will train them."""
        self.encoders.to(device)
        encoders: dict[str, Any] = dict(self.encoders.items())
        return EncodedRows(rows, encoders, device)

    def over_limits(self, lengths: Mapping[str, npt.NDArray[np.int64]]) -> npt.NDArray[np.bool_]:
        """Returns True for each utterance that is longer than the head can read in full."""
        return self.head.over_limits(lengths)

    @property
    def training_reads(self) -> set[str]:
        """Roles that training reads."""
        return self.head.training_reads

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that a checkpoint must share to be resumed."""
        return {**self.head.settings, **{f"tune {role}": start.tune.text for role, start in self.starts.items()}}

    def learning_rates(self, lr: float) -> list[tuple[float, list[nn.Parameter]]]:
        """Returns the parameters that learn, by their learning rate; that of a layer falls with the layers above it."""
        rates = self.head.learning_rates(lr)
        for role, encoder in self.encoders.items():
            assert isinstance(encoder, LearningEncoder)
            rate, decay = encoder_rate(self.training_config, role), self.training_config.layer_decay
            parts = [
                (rate * decay**above, [weight for weight in part if weight.requires_grad])
                for above, part in encoder.parts
            ]
            by_rate: dict[float, list[nn.Parameter]] = {}
            for share, weights in parts:
                by_rate.setdefault(share, []).extend(weights)
            rates += [(share, weights) for share, weights in by_rate.items() if weights]
        return rates


class EncodedRows:
    """The training subset of a fold as encoders at step 0 see it, a `fusion.head_config.TrainingRows`.

    Args:
        rows: training subset with the rows of start streams.
        encoders: role -> encoder, on `device`.
        device: device of the encoders.
    """

    def __init__(self, rows: TrainingRows, encoders: Mapping[str, LearningEncoder], device: torch.device) -> None:
        self._rows, self._encoders, self._device = rows, encoders, device
        self.labels: ClassIds = rows.labels

    def __len__(self) -> int:
        return len(self._rows)

    def text(self, index: int) -> str:
        """Returns the transcript of one utterance of the subset, as stored."""
        return self._rows.text(index)

    def length(self, role: str, index: int) -> int:
        """Returns the number of rows of one utterance of the subset."""
        return self._rows.length(role, index)

    def rows(self, role: str, index: int) -> npt.NDArray[Any]:
        """Returns the rows of one utterance of the subset that the head reads, ``(rows, ...)``."""
        stored = self._rows.rows(role, index)
        if role not in self._encoders or not len(stored):
            return stored
        tensor = torch.from_numpy(np.array(stored)).to(self._device)[None]
        tensor = tensor.float() if tensor.is_floating_point() else tensor.long()
        encoder = self._encoders[role].eval()
        with torch.no_grad():
            encoded, _ = encoder(tensor, torch.ones(tensor.shape[:2], dtype=torch.bool, device=self._device))
        array: npt.NDArray[Any] = encoded[0].float().cpu().numpy()
        return array


def encoder_rate(config: TrainConfig, role: str) -> float:
    """Returns the learning rate of the encoder of a role."""
    return config.text_lr if role == TEXT else config.audio_lr


def learning_encoder(start: Start, model: Any, config: TrainConfig) -> LearningEncoder:
    """Builds the encoder that learns from a start."""
    wave = {"wave": True} if start.tune.wave else {}
    learner: LearningEncoder = LEARNERS[start.role](
        model, start.choice, first=start.first, pieces=config.accumulate, checkpointing=config.checkpointing, **wave
    )
    return learner
