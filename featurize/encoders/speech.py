"""wav2vec 2.0 and its relatives: frames, hidden layers and quantizer codes in one pass, long recordings in pieces.

Papers: wav2vec 2.0 (Baevski et al., 2020, arXiv:2006.11477), HuBERT (Hsu et al., 2021, arXiv:2106.07447), WavLM (Chen
et al., 2022, arXiv:2110.13900), XLS-R (Babu et al., 2022, arXiv:2111.09296), data2vec (Baevski et al., 2022,
arXiv:2202.03555), wav2vec 2.0 with conformer layers (Wang et al., 2020, arXiv:2010.05171). The convolutions of the
feature encoder and the quantizer always run in float32: bfloat16 flips 6% of codes. A recording in pieces gets as many
frames as in one piece; each piece is encoded independently.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from cache.rows import Rows
from cache.stream import Scalar, StreamSpec
from featurize.encoders.base import InputPlan, Waveform
from featurize.encoders.layers import CONV, LayerChoice, captured_states
from featurize.encoders.padding import conv_lengths, encode_waveforms, pad_waveforms, valid_mask, zeroed_padding
from featurize.inputs.audio import MIN_SAMPLES, RATE_HZ

PREPROCESSING: Mapping[str, Scalar] = {"rate_hz": RATE_HZ, "resampler": "soxr HQ", "min_samples": MIN_SAMPLES}
HOP, RECEPTIVE_FIELD = 320, 400  # stride and receptive field of the wav2vec 2.0 feature encoder, in samples


class SpeechEncoder:
    """A frozen speech encoder on one device.

    Attributes:
        frame_multiple: a piece of a recording must hold a multiple of so many frames.

    Args:
        base: Hugging Face's base model, in eval mode and float32.
        quantizer: its quantizer if codes are wanted, None otherwise.
        quantizer_weights: digest of all weights that determine codes and start weights.
        start_weights: pre-trained weights that heads start from, by name.
        spec: spec that all streams share; name, layers and shape are set for each choice.
        choices: hidden states of each stream of frames.
        normalize: zero mean and unit variance per utterance, as the checkpoint's feature extractor does.
        device: device on which the encoder runs.
        precision: type in which the Transformer computes.
    """

    frame_multiple: ClassVar[int] = 1

    def __init__(
        self,
        *,
        base: nn.Module,
        quantizer: nn.Module | None,
        start_weights: Mapping[str, npt.NDArray[Any]],
        quantizer_weights: str = "",
        spec: StreamSpec,
        choices: Sequence[LayerChoice],
        normalize: bool,
        device: torch.device,
        precision: torch.dtype,
    ) -> None:
        self.base = base.to(device).eval()
        _fold_weight_norm(self.base)
        self.start_weights = start_weights
        self.normalize = normalize
        self.device = device
        self._quantizer_weights = quantizer_weights
        self._quantizer = None if quantizer is None else quantizer.to(device).eval()
        self.choices = choices
        self._wanted = {index for choice in choices for index in choice.indices} - {CONV}
        self._precision = precision
        self._transformers = {torch.float32: self.base.encoder}
        if precision != torch.float32:
            self._transformers[precision] = _in_precision(self.base.encoder, precision)
        config: Any = self.base.config
        self._kernels, self._strides = tuple(config.conv_kernel), tuple(config.conv_stride)
        self.specs = self._specs(spec, dim=int(config.hidden_size), conv_dim=int(config.conv_dim[-1]))

    def plan(self, sizes: Sequence[int]) -> list[InputPlan]:
        """Computes the number of frames and codes of each input from its number of samples."""
        frames = [self.count_frames(max(samples, MIN_SAMPLES)) for samples in sizes]
        return [InputPlan(rows=self.row_counts(count), cost=count) for count in frames]

    def encode(self, inputs: Sequence[Waveform], *, precise: bool = False) -> list[tuple[Rows, ...]]:
        """Encodes 16 kHz waveforms ``(samples,)``: ``(frames, ...)`` per choice, then codes ``(frames, groups)``."""
        waveforms = [self.prepare(waveform) for waveform in inputs]
        lengths = [self._lengths(len(waveform)) for waveform in waveforms]
        frames = [length[-1] for length in lengths]
        with torch.inference_mode(), full_float32(self.device):
            conv = encode_waveforms(
                self.base.feature_extractor,  # type: ignore[arg-type]
                pad_waveforms(waveforms, self.device),
                [length[0] for length in lengths],
            )
            projected, normed = self._projected(conv)
            hidden, last = self._transformed(projected, frames, torch.float32 if precise else self._precision)
            outputs = [choice.select({**hidden, CONV: normed}, last) for choice in self.choices]
            if self._quantizer is not None:
                outputs.append(quantizer_codes(self._quantizer, normed))
            arrays = [_as_rows(output) for output in outputs]
        return [
            tuple(array[index, :rows] for array, rows in zip(arrays, self.row_counts(count), strict=True))
            for index, count in enumerate(frames)
        ]

    def prepare(self, waveform: Waveform) -> Waveform:
        """Normalizes a waveform over its own samples, then pads it to one frame."""
        return prepare_waveform(waveform, normalize=self.normalize)

    def _specs(self, spec: StreamSpec, *, dim: int, conv_dim: int) -> list[StreamSpec]:
        specs = []
        for choice in self.choices:
            shape = choice.row_shape(conv_dim if choice.single == CONV else dim)
            specs.append(replace(spec, name=choice.stream_name(spec.name), layers=choice.text, shape=shape))
        if self._quantizer is not None:
            groups = int(self._quantizer.num_groups)  # type: ignore[arg-type]
            codes = replace(spec, name=f"{spec.name}.codes", role="codes", layers="quantizer", shape=(groups,))
            specs.append(replace(codes, weights=self._quantizer_weights, dtype="uint16", precision="float32"))
        return specs

    def count_frames(self, samples: int) -> int:
        """Returns the number of frames of the convolutions."""
        return self._lengths(samples)[-1]

    def row_counts(self, frames: int) -> tuple[int, ...]:
        """Returns the rows of each stream for a number of frames of the convolutions."""
        return (frames,) * len(self.specs)

    def _projected(self, conv: Tensor) -> tuple[Tensor, Tensor]:
        """Computes the Transformer's input and the layer-normed convolutional features from the features."""
        base: Any = self.base
        projection = base.feature_projection
        normed = projection.layer_norm(conv) if hasattr(projection, "layer_norm") else conv  # HuBERT may have no norm
        return projection.dropout(projection.projection(normed)), normed

    def _lengths(self, samples: int) -> list[int]:
        return conv_lengths(samples, self._kernels, self._strides)

    def _transformed(
        self, projected: Tensor, frames: Sequence[int], precision: torch.dtype
    ) -> tuple[Mapping[int, Tensor], Tensor]:
        """Computes the wanted hidden states by index, and the output, each ``(batch, frames, dim)``."""
        transformer: Any = self._transformers[precision]
        mask = valid_mask(frames, self.device)
        with captured_states(transformer.layers, self._wanted) as hidden, zeroed_padding(transformer, mask):
            last = transformer(projected.to(precision), attention_mask=mask).last_hidden_state
        return hidden, last


def prepare_waveform(waveform: Waveform, *, normalize: bool) -> Waveform:
    """Normalizes a waveform over its own samples if requested, then pads it to one frame.

    Args:
        waveform: 16 kHz mono, ``(samples,)``.
        normalize: zero mean and unit variance.
    """
    if normalize:
        # the same values as Wav2Vec2FeatureExtractor, whose 1e-7 prevents a division by zero for silence
        waveform = (waveform - waveform.mean()) / np.sqrt(waveform.var() + 1e-7)
    missing = MIN_SAMPLES - len(waveform)
    return np.pad(waveform, (0, missing)) if missing > 0 else waveform


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Switches off TF32 for convolutions on a GPU: it is on by default and flips codes as bfloat16 does."""
    if device.type != "cuda":
        yield
        return
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def quantizer_codes(quantizer: nn.Module, normed: Tensor) -> Tensor:
    """Selects the code vector of each group as the quantizer does in eval mode.

    Args:
        quantizer: Hugging Face's ``Wav2Vec2GumbelVectorQuantizer``.
        normed: layer-normed convolutional features, ``(batch, frames, dim)``.

    Returns:
        Indices within each group, int64 ``(batch, frames, groups)``.
    """
    scores = quantizer.weight_proj(normed)  # type: ignore[operator]
    return scores.unflatten(-1, (quantizer.num_groups, quantizer.num_vars)).argmax(dim=-1)  # type: ignore[no-any-return]


class ChunkedEncoder:
    """A speech encoder that encodes recordings longer than a limit in pieces, all others unchanged.

    Args:
        encoder: a speech encoder of 50 frames a second.
        max_samples: maximum length of a piece, in samples.
    """

    def __init__(self, encoder: SpeechEncoder, *, max_samples: int) -> None:
        if max_samples < RECEPTIVE_FIELD:
            raise ValueError(f"pieces must hold at least {RECEPTIVE_FIELD} samples, one frame; got {max_samples}")
        self.specs = encoder.specs
        self.start_weights: Mapping[str, npt.NDArray[Any]] = encoder.start_weights
        self.encoder = encoder
        self._max_samples = max_samples

    def plan(self, sizes: Sequence[int]) -> list[InputPlan]:
        """Computes the frames of whole recordings; a long one costs as much of a batch as its longest piece."""
        whole = self.encoder.plan(sizes)
        longest = self.encoder.plan([min(samples, self._max_samples) for samples in sizes])
        return [
            InputPlan(rows=recording.rows, cost=piece.cost, note=self._note(samples), failure=recording.failure)
            for recording, piece, samples in zip(whole, longest, sizes, strict=True)
        ]

    def encode(self, inputs: Sequence[Waveform], *, precise: bool = False) -> list[tuple[Rows, ...]]:
        """Encodes 16 kHz waveforms ``(samples,)``, long ones piece by piece."""
        if all(len(waveform) <= self._max_samples for waveform in inputs):
            return self.encoder.encode(inputs, precise=precise)
        return [self._encode_in_pieces(waveform, precise) for waveform in inputs]

    def _encode_in_pieces(self, waveform: Waveform, precise: bool) -> tuple[Rows, ...]:
        joined: tuple[Rows, ...] = ()  # filled piece by piece, so that a long recording is not held twice
        for start, piece in self._pieces(waveform):
            encoded = self.encoder.encode([piece], precise=precise)[0]
            if not joined:
                totals = self.encoder.row_counts(max(1, _frames(len(waveform))))
                joined = tuple(
                    np.empty((total, *rows.shape[1:]), rows.dtype) for total, rows in zip(totals, encoded, strict=True)
                )
            for held, rows, first in zip(joined, encoded, self.encoder.row_counts(start), strict=True):
                held[first : first + len(rows)] = rows
        return joined

    def _pieces(self, waveform: Waveform) -> Iterator[tuple[int, Waveform]]:
        """Yields the pieces of a waveform, each with the number of its first frame."""
        if len(waveform) <= self._max_samples:
            yield 0, waveform
            return
        total, per_piece = _frames(len(waveform)), self._frames_of_piece()
        for start in range(0, total, per_piece):
            end = min(start + per_piece, total)
            yield start, waveform[start * HOP : (end - 1) * HOP + RECEPTIVE_FIELD]

    def _frames_of_piece(self) -> int:
        multiple = self.encoder.frame_multiple
        return max(1, _frames(self._max_samples) // multiple) * multiple

    def _note(self, samples: int) -> str:
        pieces = 1 if samples <= self._max_samples else -(-_frames(samples) // self._frames_of_piece())
        return f"encoded in {pieces} pieces" if pieces > 1 else ""


def _in_precision(transformer: Any, precision: torch.dtype) -> Any:
    """Copies a Transformer into another type, except the frequencies of rotary positions.

    The conformer computes angles in the type of its frequencies, once per length; bfloat16 represents consecutive whole
    numbers only up to 256.
    """
    copied = copy.deepcopy(transformer).to(precision)
    rotary: Any = getattr(copied, "embed_positions", None)
    if hasattr(rotary, "inv_freq"):
        rotary.inv_freq = transformer.embed_positions.inv_freq
        rotary.cached_sequence_length = None
    return copied


def _fold_weight_norm(base: nn.Module) -> None:
    """Computes the weights of the positional convolution once instead of in every call, with identical bits."""
    embedding: Any = base.encoder.pos_conv_embed  # type: ignore[union-attr]
    normed: Any = getattr(embedding, "conv", None)
    if normed is None or not parametrize.is_parametrized(normed, "weight"):
        return
    # A new module, because removing a parametrization in place breaks deep copies: they share the class.
    folded = nn.Conv1d(
        normed.in_channels,
        normed.out_channels,
        normed.kernel_size,
        stride=normed.stride,
        padding=normed.padding,
        groups=normed.groups,
    )
    folded.weight = nn.Parameter(normed.weight.detach(), requires_grad=False)
    folded.bias = normed.bias
    embedding.conv = folded


def _as_rows(output: Tensor) -> Rows:
    return (output.float() if output.is_floating_point() else output).cpu().numpy()


def _frames(samples: int) -> int:
    return (samples - RECEPTIVE_FIELD) // HOP + 1
