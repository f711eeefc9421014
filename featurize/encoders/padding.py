"""Exact batching of speech: padding that leaves the features of each utterance as they are without a batch.

Three remedies together are exact: the group norm of the first layer computes its statistics over the valid samples
only, the Transformer receives the boolean mask of valid frames, and padded frames are set to zero before every
convolution after the feature encoder: the positional ones (several in data2vec) and one in each conformer layer.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn


def pad_waveforms(waveforms: Sequence[npt.NDArray[np.float32]], device: torch.device) -> Tensor:
    """Stacks waveforms into ``(batch, samples)``, zeros on the right."""
    batch = torch.zeros(len(waveforms), max(len(waveform) for waveform in waveforms))
    for row, waveform in zip(batch, waveforms, strict=True):
        row[: len(waveform)] = torch.from_numpy(waveform)
    return batch.to(device)


def valid_mask(lengths: Sequence[int], device: torch.device) -> Tensor | None:
    """Builds the mask of valid frames, bool ``(batch, frames)``, or returns None if nothing is padded."""
    if min(lengths) == max(lengths):
        return None
    positions = torch.arange(max(lengths), device=device)
    return positions < torch.tensor(lengths, device=device)[:, None]


def conv_lengths(samples: int, kernels: Sequence[int], strides: Sequence[int]) -> list[int]:
    """Computes the length after each convolution without padding.

    Example:
        >>> conv_lengths(72_000, (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2))[-1]
        224
    """
    lengths = []
    for kernel, stride in zip(kernels, strides, strict=True):
        samples = max(0, (samples - kernel) // stride + 1)
        lengths.append(samples)
    return lengths


def encode_waveforms(feature_encoder: nn.Module, waveforms: Tensor, first_lengths: Sequence[int]) -> Tensor:
    """Computes the convolutional features of wav2vec 2.0 and its relatives, exact for each utterance of a batch.

    Args:
        feature_encoder: the feature encoder of Hugging Face's model, with ``conv_layers``.
        waveforms: ``(batch, samples)``, zeros on the right.
        first_lengths: valid length of each utterance after the first convolution.

    Returns:
        ``(batch, frames, dim)``; frames after the end of an utterance are meaningless.
    """
    hidden = waveforms[:, None]  # (batch, 1, samples)
    for layer in feature_encoder.conv_layers:  # type: ignore[union-attr]
        if isinstance(getattr(layer, "layer_norm", None), nn.GroupNorm):
            hidden = layer.activation(_valid_group_norm(layer.layer_norm, layer.conv(hidden), first_lengths))
        else:
            hidden = layer(hidden)
    return hidden.transpose(1, 2)


@contextmanager
def zeroed_padding(transformer: nn.Module, mask: Tensor | None) -> Iterator[None]:
    """Sets padded frames to zero before every convolution of a Transformer.

    Hugging Face's encoders set them to zero once, before the first layer; HuBERT's batch norm, data2vec's positional
    layers and conformer layers make them non-zero again.

    Args:
        transformer: the ``encoder`` of Hugging Face's model.
        mask: True where a frame is valid, ``(batch, frames)``, or None if nothing is padded.
    """
    handles = []
    if mask is not None:
        valid = mask[:, None]  # (batch, 1, frames)
        convolutions = [module for module in transformer.modules() if isinstance(module, nn.Conv1d)]
        wide = [module for module in convolutions if module.kernel_size[0] > 1]
        handles = [module.register_forward_pre_hook(lambda _, inputs: (inputs[0] * valid,)) for module in wide]
    try:
        with warnings.catch_warnings():
            # WavLM combines a boolean mask with a float position bias; torch handles this correctly, but warns
            warnings.filterwarnings("ignore", message="Support for mismatched key_padding_mask")
            yield
    finally:
        for handle in handles:
            handle.remove()


def _valid_group_norm(norm: nn.GroupNorm, hidden: Tensor, lengths: Sequence[int]) -> Tensor:
    """Normalizes each utterance of ``(batch, channels, samples)`` over its valid samples."""
    if min(lengths) == max(lengths):
        whole: Tensor = norm(hidden)
        return whole
    normed = torch.zeros_like(hidden)
    for index, length in enumerate(lengths):  # slices, not weights: the same kernel runs as for a single utterance
        normed[index : index + 1, :, :length] = norm(hidden[index : index + 1, :, :length])
    return normed
