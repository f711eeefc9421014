"""Choice of hidden states for a stream: the encoder's output, one layer, several stacked, or their mean."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cache.errors import MmerError

ALLOWED = "a number such as 12, several such as 4,8,12, `all`, or a mean such as mean9-12"
LAST = "last"
CONV = -1  # index of the layer-normed convolutional features, which precede the hidden states
CONV_TEXT = "conv"


@dataclass(frozen=True, kw_only=True)
class LayerChoice:
    """The hidden states of one stream; index 0 is the input of the first layer, as in Hugging Face's ``hidden_states``.

    Attributes:
        text: text after ``@``, or ``last``.
        indices: hidden states to select, or `CONV`; empty for the encoder's output.
        mean: average the hidden states instead of stacking them.
    """

    text: str
    indices: tuple[int, ...] = ()
    mean: bool = False

    @property
    def stacked(self) -> int:
        """Number of layers stacked in a row, 0 for a plain vector."""
        return 0 if self.mean or (len(self.indices) < 2 and self.text != "all") else len(self.indices)

    @property
    def single(self) -> int | None:
        """Index of the hidden state that a row holds, None for the encoder's output, a mean or a stack."""
        return self.indices[0] if len(self.indices) == 1 and not self.mean and not self.stacked else None

    def stream_name(self, name: str) -> str:
        """Returns the name of the stream, ``NAME`` or ``NAME@LAYERS``."""
        return f"{name}@{self.text}" if self.indices else name

    def row_shape(self, dim: int) -> tuple[int, ...]:
        """Returns the shape of a row, ``(dim,)`` or ``(layers, dim)``."""
        return (self.stacked, dim) if self.stacked else (dim,)

    def select(self, hidden: Mapping[int, Tensor], last: Tensor) -> Tensor:
        """Selects rows ``(batch, frames, dim)``, or ``(batch, frames, layers, dim)`` if stacked.

        Args:
            hidden: hidden states by index, each ``(batch, frames, dim)``.
            last: the encoder's output, ``(batch, frames, dim)``.
        """
        if not self.indices:
            return last
        if self.stacked:
            return torch.stack([hidden[index].float() for index in self.indices], dim=2)
        return torch.stack([hidden[index].float() for index in self.indices]).mean(dim=0)


def parse_layers(text: str, *, layers: int, encoder: str, conv: bool = False) -> LayerChoice:
    """Reads the layers after ``@``.

    Args:
        text: the requested layers, or ``last``.
        layers: number of layers of the encoder; hidden states count from 0 to this number.
        encoder: name of the encoder, for the error.
        conv: whether the encoder returns its convolutional features.

    Raises:
        MmerError: if the text is invalid or names a layer that the encoder lacks.

    Example:
        >>> parse_layers("mean2-4", layers=12, encoder="a").indices
        (2, 3, 4)
    """
    if text == LAST:
        return LayerChoice(text=text)
    if text == CONV_TEXT and conv:
        return LayerChoice(text=text, indices=(CONV,))
    mean = re.fullmatch(r"mean(\d+)-(\d+)", text)
    if text == "all":
        indices = tuple(range(layers + 1))
    elif mean:
        indices = tuple(range(int(mean[1]), int(mean[2]) + 1))
    elif re.fullmatch(r"\d+(,\d+)*", text):
        indices = tuple(int(number) for number in text.split(","))
    else:
        indices = ()
    if not indices:
        raise MmerError(f"layers of {encoder} must be {ALLOWED}{', or `conv`' if conv else ''}; got {text!r}")
    if max(indices) > layers:
        raise MmerError(f"{encoder} has hidden states 0 to {layers}; got {max(indices)} in {text!r}")
    return LayerChoice(text=text, indices=indices, mean=bool(mean))


def parse_choices(texts: Sequence[str], *, layers: int, encoder: str, conv: bool = False) -> list[LayerChoice]:
    """Reads every requested choice of layers of one encoder, each as `parse_layers` does."""
    return [parse_layers(text, layers=layers, encoder=encoder, conv=conv) for text in texts]


@contextmanager
def captured_states(layers: nn.ModuleList, wanted: set[int]) -> Iterator[dict[int, Tensor]]:
    """Collects the wanted hidden states of one forward pass by hooks and keeps no others in memory."""
    hidden: dict[int, Tensor] = {}
    handles = [_capture_input(layers[0], hidden)] if 0 in wanted else []
    handles += [_capture_output(layers[index - 1], index, hidden) for index in sorted(wanted) if index]
    try:
        yield hidden
    finally:
        for handle in handles:
            handle.remove()


def _capture_input(layer: nn.Module, hidden: dict[int, Tensor]) -> torch.utils.hooks.RemovableHandle:
    def keep(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        hidden[0] = arguments[0]

    return layer.register_forward_pre_hook(keep)


def _capture_output(layer: nn.Module, index: int, hidden: dict[int, Tensor]) -> torch.utils.hooks.RemovableHandle:
    def keep(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]) -> None:
        hidden[index] = output if isinstance(output, Tensor) else output[0]

    return layer.register_forward_hook(keep)
