"""The model in pre-training: what learns, and the losses of a batch of convolutional features or of waveforms.

From convolutional features, the convolutions and the layer norm after them are frozen: they are part of the cached
features. From waveforms everything learns. Padded frames influence no loss and no gradient: they are hidden from
attention, set to zero before convolutions, and neither masked nor drawn as negatives. Batch norms (of conformers) keep
their statistics, which would depend on padding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from featurize.encoders.padding import conv_lengths, encode_waveforms, valid_mask, zeroed_padding
from featurize.encoders.speech import HOP, RECEPTIVE_FIELD, full_float32
from featurize.inputs.audio import RATE_HZ
from fusion.end_to_end.pretraining.config import PretrainConfig
from fusion.end_to_end.pretraining.losses import PretrainingLosses, draw_mask, draw_negatives, pretraining_losses

FRAMES_PER_SECOND = RATE_HZ // HOP


@dataclass(frozen=True, kw_only=True)
class SpeechBatch:
    """A padded batch of speech.

    Attributes:
        values: convolutional features ``(batch, frames, conv_dim)``, or waveforms ``(batch, samples)``.
        lengths: valid frames or samples of each utterance.
        frames: number of frames of each utterance.
    """

    values: Tensor
    lengths: Sequence[int]
    frames: Sequence[int]

    @property
    def is_wave(self) -> bool:
        """True for waveforms."""
        return self.values.ndim == 2

    def cropped(self, most: int) -> "SpeechBatch":
        """Returns the batch with at most so many frames of each utterance, from a random position of a longer one.

        The positions are drawn from torch's generator.
        """
        if max(self.frames) <= most:
            return self
        counts = [min(frames, most) for frames in self.frames]
        firsts = [int(torch.randint(frames - most + 1, ())) if frames > most else 0 for frames in self.frames]
        hop, field = (HOP, RECEPTIVE_FIELD) if self.is_wave else (1, 1)
        lengths = [
            (count - 1) * hop + field if frames > most else length
            for count, frames, length in zip(counts, self.frames, self.lengths, strict=True)
        ]
        starts = [first * hop for first in firsts]
        parts = [row[start : start + length] for row, start, length in zip(self.values, starts, lengths, strict=True)]
        return SpeechBatch(values=pad_sequence(parts, batch_first=True), lengths=lengths, frames=counts)


class PretrainingModel(nn.Module):
    """Hugging Face's model for pre-training with the parts that learn.

    Args:
        model: ``Wav2Vec2ForPreTraining``, or that of conformers.
        wave: True if the convolutions learn too.
    """

    def __init__(self, model: Any, *, wave: bool) -> None:
        super().__init__()
        self.model, self.wave = model, wave
        self.model.requires_grad_(True)
        if not wave:
            base = model.base_model
            for frozen in (base.feature_extractor, base.feature_projection.layer_norm):
                frozen.requires_grad_(False)

    @property
    def codes(self) -> int:
        """Number of code vectors of all groups, the highest perplexity."""
        quantizer = self.model.quantizer
        return int(quantizer.num_groups * quantizer.num_vars)

    def train(self, mode: bool = True) -> "PretrainingModel":
        """Sets the mode; batch norms stay in eval mode."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def forward(self, batch: SpeechBatch, config: PretrainConfig, dtype: torch.dtype) -> PretrainingLosses:
        """Computes the losses of a batch; all draws come from the global generators.

        Args:
            batch: utterances of at least `PretrainConfig.mask_length` frames.
            config: settings.
            dtype: type in which the Transformer computes.
        """
        batch = batch.cropped(int(config.max_seconds * FRAMES_PER_SECOND))
        device = batch.values.device
        masked = draw_mask(batch.frames, share=config.mask_prob, span=config.mask_length, spans=config.mask_spans)
        negatives = draw_negatives(masked, config.negatives or self.model.config.num_negatives)
        masked, negatives = masked.to(device), negatives.to(device)
        valid = valid_mask(batch.frames, device)
        normed = self.convolved(batch)
        if valid is not None:
            normed = torch.where(valid[:, :, None], normed, 0.0)
        hidden = self.transformed(normed, masked, valid, dtype)
        return pretraining_losses(
            self.model, hidden, normed, masked, negatives, diversity_weight=config.diversity_weight
        )

    def convolved(self, batch: SpeechBatch) -> Tensor:
        """Computes the layer-normed convolutional features ``(batch, frames, conv_dim)``; cached ones stay."""
        if not batch.is_wave:
            return batch.values
        base, config = self.model.base_model, self.model.config
        first = [conv_lengths(length, config.conv_kernel, config.conv_stride)[0] for length in batch.lengths]
        with full_float32(batch.values.device):
            normed: Tensor = base.feature_projection.layer_norm(
                encode_waveforms(base.feature_extractor, batch.values, first)
            )
        return normed

    def transformed(self, normed: Tensor, masked: Tensor, valid: Tensor | None, dtype: torch.dtype) -> Tensor:
        """Computes the Transformer's output ``(batch, frames, dim)`` for features with masked frames.

        Args:
            normed: layer-normed convolutional features, ``(batch, frames, conv_dim)``.
            masked: True where a frame is masked, bool ``(batch, frames)``.
            valid: True where a frame is not padding, bool ``(batch, frames)``; None without padding.
            dtype: type of the computation.
        """
        base = self.model.base_model
        with torch.autocast(normed.device.type, dtype, enabled=dtype != torch.float32):
            projected = base.feature_projection.dropout(base.feature_projection.projection(normed))
            hidden = torch.where(masked[:, :, None], base.masked_spec_embed.to(projected.dtype), projected)
            with zeroed_padding(base.encoder, valid):
                output: Tensor = base.encoder(hidden, attention_mask=valid).last_hidden_state
        return output.float()
