"""Whisper's encoder: windows of 30 s, of which the frames of the utterance itself are kept.

Paper: Whisper (Radford et al., 2022, arXiv:2212.04356). The model was trained on windows padded with silence to 30 s
and reads no mask; without the padding its features are others. Every window has the same length, so a batch changes
nothing, and what counts for a batch is the number of windows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cache.rows import Rows
from cache.stream import Scalar, StreamSpec
from featurize.encoders.base import InputPlan, Waveform
from featurize.encoders.layers import LayerChoice, captured_states
from featurize.encoders.options import in_precisions
from featurize.inputs.audio import RATE_HZ

HOP = 320  # samples between frames
PREPROCESSING: Mapping[str, Scalar] = {"rate_hz": RATE_HZ, "resampler": "soxr HQ", "frames": "ceil(samples / 320)"}


def count_frames(samples: int) -> int:
    """Returns the number of frames that are kept of an utterance, at least one."""
    return max(1, -(-samples // HOP))


class WhisperEncoder:
    """Whisper's frozen encoder on one device.

    Args:
        model: Hugging Face's ``WhisperEncoder``, in eval mode and float32.
        extractor: its ``WhisperFeatureExtractor``.
        spec: spec that all streams share; name, layers and shape are set for each choice.
        choices: hidden states of each stream of frames; the last one is normalized, as in Hugging Face's
            ``hidden_states``.
        chunk_samples: length of the pieces of a longer recording, in samples; None to fail it.
        device: device on which the encoder runs.
        precision: type in which the encoder computes.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        extractor: Any,
        spec: StreamSpec,
        choices: Sequence[LayerChoice],
        chunk_samples: int | None,
        device: torch.device,
        precision: torch.dtype,
    ) -> None:
        self.model = model.to(device).eval()
        self.extractor = extractor
        self.choices = choices
        self.device = device
        self.start_weights: Mapping[str, npt.NDArray[Any]] = {}
        self.window_samples = int(extractor.n_samples)
        # pieces are whole frames, so that a recording has as many frames in pieces as in one
        self._piece = None if chunk_samples is None else max(HOP, min(chunk_samples, self.window_samples) // HOP * HOP)
        self._precision = precision
        self._models = in_precisions(self.model, precision)
        config: Any = self.model.config
        self._top = int(config.encoder_layers)
        self._wanted = {index for choice in choices for index in choice.indices} - {self._top}
        self.specs = [
            replace(
                spec,
                name=choice.stream_name(spec.name),
                layers=choice.text,
                shape=choice.row_shape(int(config.d_model)),
            )
            for choice in choices
        ]

    def plan(self, sizes: Sequence[int]) -> list[InputPlan]:
        """Computes the number of frames of each input; each costs a whole window of a batch, whatever its length."""
        return [self._plan_input(samples) for samples in sizes]

    def encode(self, inputs: Sequence[Waveform], *, precise: bool = False) -> list[tuple[Rows, ...]]:
        """Encodes 16 kHz waveforms ``(samples,)``: ``(frames, ...)`` per choice."""
        pieces = [self._pieces(waveform) for waveform in inputs]
        if all(len(parts) == 1 for parts in pieces):
            return self._encode_windows([parts[0] for parts in pieces], precise)
        return [self._joined(parts, precise) for parts in pieces]

    def log_mel(self, windows: Sequence[Waveform]) -> Tensor:
        """Computes the log-mel of windows, each padded to 30 s: float32 ``(windows, bands, frames)``."""
        features: Tensor = self.extractor(list(windows), sampling_rate=RATE_HZ, return_tensors="pt").input_features
        return features

    def _plan_input(self, samples: int) -> InputPlan:
        count = count_frames(samples)
        if self._piece is None and samples > self.window_samples:
            window_s = self.window_samples / RATE_HZ
            return InputPlan(
                failure=f"{samples / RATE_HZ:g} s, longer than the {window_s:g} s that Whisper reads; pass --chunk"
            )
        pieces = 1 if self._piece is None else -(-samples // self._piece)
        note = f"encoded in {pieces} pieces" if pieces > 1 else ""
        return InputPlan(rows=(count,) * len(self.specs), cost=self.window_samples // HOP, note=note)

    def _pieces(self, waveform: Waveform) -> list[Waveform]:
        if self._piece is None or len(waveform) <= self._piece:
            return [waveform]
        return [waveform[start : start + self._piece] for start in range(0, len(waveform), self._piece)]

    def _joined(self, parts: Sequence[Waveform], precise: bool) -> tuple[Rows, ...]:
        encoded = [self._encode_windows([part], precise)[0] for part in parts]
        return tuple(np.concatenate(rows) for rows in zip(*encoded, strict=True))

    def _encode_windows(self, windows: Sequence[Waveform], precise: bool) -> list[tuple[Rows, ...]]:
        precision = torch.float32 if precise else self._precision
        model: Any = self._models[precision]
        features = self.log_mel(windows).to(self.device, precision)
        with torch.inference_mode(), captured_states(model.layers, self._wanted) as hidden:
            last = model(features).last_hidden_state
            outputs = [choice.select({**hidden, self._top: last}, last) for choice in self.choices]
            arrays = [output.float().cpu().numpy() for output in outputs]
        counts = [count_frames(len(window)) for window in windows]
        return [tuple(array[index, :count] for array in arrays) for index, count in enumerate(counts)]
