"""Batches of speech that give what each utterance would give alone.

Three remedies together are exact: the first layer's group norm takes its statistics over the valid samples only,
the Transformer gets the boolean mask of valid frames, and padded frames are zero where they enter a convolution after
the feature encoder: those for positions, several in data2vec, and one in each layer of a conformer.
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
    """Gives True where a frame is valid, bool ``(batch, frames)``, or None where nothing is padded."""
    if min(lengths) == max(lengths):
        return None
    positions = torch.arange(max(lengths), device=device)
    return positions < torch.tensor(lengths, device=device)[:, None]


def conv_lengths(samples: int, kernels: Sequence[int], strides: Sequence[int]) -> list[int]:
    """Gives the length after each convolution without padding.

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
    """Runs the convolutional feature encoder of wav2vec 2.0 or a relative, exact for every utterance of a batch.

    Args:
        feature_encoder: Hugging Face's, with its ``conv_layers``.
        waveforms: ``(batch, samples)``, zeros on the right.
        first_lengths: valid length of each utterance after the first convolution.

    Returns:
        ``(batch, frames, dim)``; frames beyond an utterance's own are meaningless.
    """
    hidden = waveforms[:, None]  # (batch, 1, samples)
    for layer in feature_encoder.conv_layers:  # type: ignore[union-attr]
        if isinstance(getattr(layer, "layer_norm", None), nn.GroupNorm):
            hidden = layer.activation(_valid_group_norm(layer.layer_norm, layer.conv(hidden), first_lengths))
        else:
            hidden = layer(hidden)
    return hidden.transpose(1, 2)


@contextmanager
def padding_kept_out(transformer: nn.Module, mask: Tensor | None) -> Iterator[None]:
    """Zeroes padded frames where they enter a convolution of a Transformer, whatever came before it.

    The encoders zero them by the mask once, before the first layer; HuBERT's batch norm, the layers of data2vec's
    positions and those of a conformer make them non-zero again.

    Args:
        transformer: Hugging Face's ``encoder``.
        mask: True where a frame is valid, ``(batch, frames)``, or None where nothing is padded.
    """
    handles = []
    if mask is not None:
        valid = mask[:, None]  # (batch, 1, frames)
        wide = [one for one in transformer.modules() if isinstance(one, nn.Conv1d) and one.kernel_size[0] > 1]
        handles = [one.register_forward_pre_hook(lambda module, inputs: (inputs[0] * valid,)) for one in wide]
    try:
        with warnings.catch_warnings():
            # WavLM's boolean mask meets its float position bias; torch handles both and warns
            warnings.filterwarnings("ignore", message="Support for mismatched key_padding_mask")
            yield
    finally:
        for handle in handles:
            handle.remove()


def _valid_group_norm(norm: nn.GroupNorm, hidden: Tensor, lengths: Sequence[int]) -> Tensor:
    """Normalizes each utterance over its own samples, ``(batch, channels, samples)``."""
    if min(lengths) == max(lengths):
        whole: Tensor = norm(hidden)
        return whole
    normed = torch.zeros_like(hidden)
    for index, length in enumerate(lengths):  # sliced, not weighted: the very kernel that one utterance alone runs
        normed[index : index + 1, :, :length] = norm(hidden[index : index + 1, :, :length])
    return normed
