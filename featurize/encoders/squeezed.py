"""SEW: a relative of wav2vec 2.0 whose Transformer runs at half the frame rate.

Paper: SEW (Wu et al., 2021, arXiv:2109.06870). Frames are averaged in pairs before the first layer and separated again
after the last one; an odd last frame gets zeros from Hugging Face's model. In a batch, pairs that padding completes
must be masked, and the odd frame must still reach the positional convolution: neither happens with the mask of frames.
Streams of hidden states therefore have 25 rows a second, the output has 50.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.masking_utils import create_bidirectional_mask

from cache.stream import StreamSpec
from featurize.encoders.base import InputPlan
from featurize.encoders.layers import CONV, captured_states
from featurize.encoders.padding import valid_mask
from featurize.encoders.speech import SpeechEncoder
from featurize.inputs.audio import MIN_SAMPLES


class SqueezedEncoder(SpeechEncoder):
    """A frozen SEW on one device; it takes the arguments of `SpeechEncoder`."""

    frame_multiple = 2

    def plan(self, sizes: Sequence[int]) -> list[InputPlan]:
        """Computes the rows of each stream of each input; an input needs one pair of frames."""
        plans = []
        for samples in sizes:
            frames = self.count_frames(max(samples, MIN_SAMPLES))
            if frames < self._squeeze:
                plans.append(InputPlan(failure=f"too short for one frame of the Transformer ({samples} samples)"))
            else:
                plans.append(InputPlan(rows=self.row_counts(frames), cost=frames))
        return plans

    @property
    def _squeeze(self) -> int:
        config: Any = self.base.config
        return int(config.squeeze_factor)

    def row_counts(self, frames: int) -> tuple[int, ...]:
        """Returns the rows of each stream for a number of frames of the convolutions."""
        return tuple(
            frames // self._squeeze if choice.indices and choice.single != CONV else frames for choice in self.choices
        )

    def _specs(self, spec: StreamSpec, *, dim: int, conv_dim: int) -> list[StreamSpec]:
        specs = super()._specs(spec, dim=dim, conv_dim=conv_dim)
        return [
            replace(spec, rate_hz=spec.rate_hz / self._squeeze) if choice.indices and choice.single != CONV else spec
            for spec, choice in zip(specs, self.choices, strict=True)
        ]

    def _projected(self, conv: Tensor) -> tuple[Tensor, Tensor]:
        base: Any = self.base
        normed = base.layer_norm(conv)
        return (base.feature_projection(normed) if base.project_features else normed), normed

    def _transformed(
        self, projected: Tensor, frames: Sequence[int], precision: torch.dtype
    ) -> tuple[Mapping[int, Tensor], Tensor]:
        transformer: Any = self._transformers[precision]
        states = projected.to(precision)
        valid = valid_mask(frames, self.device)
        if valid is not None:
            states = states * valid[..., None]
        pairs = [count // self._squeeze for count in frames]
        states = _squeezed(transformer, states)[:, : max(pairs)]
        mask = create_bidirectional_mask(
            config=transformer.config, inputs_embeds=states, attention_mask=valid_mask(pairs, self.device)
        )
        with captured_states(transformer.layers, self._wanted) as hidden:
            for layer in transformer.layers:
                states = layer(states, attention_mask=mask)
        last = transformer.upsample(states)
        missing = projected.shape[1] - last.shape[1]
        last = nn.functional.pad(last, (0, 0, 0, missing))
        for index, (count, whole) in enumerate(zip(frames, pairs, strict=True)):
            last[index, whole * self._squeeze : count] = 0.0  # as Hugging Face pads an odd frame
        return hidden, last


def _squeezed(transformer: Any, states: Tensor) -> Tensor:
    """Averages frames in pairs and adds positions: ``(batch, frames, dim)`` to ``(batch, frames // 2, dim)``."""
    channels = states.transpose(1, 2)
    positions, pooled = transformer.pos_conv_embed(channels), transformer.pool(channels)
    length = min(positions.shape[-1], pooled.shape[-1])
    joined: Tensor = transformer.layer_norm((pooled[..., :length] + positions[..., :length]).transpose(1, 2))
    return joined
