"""Which hidden states of an encoder a stream holds: the last, one, several stacked, or their mean."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cache.errors import MmerError

ALLOWED = "a number such as 12, several such as 4,8,12, `all`, or a mean such as mean9-12"
LAST = "last"
CONV = -1  # stands for what comes before the hidden states: the layer-normed features of the convolutions
CONV_TEXT = "conv"


@dataclass(frozen=True, kw_only=True)
class LayerChoice:
    """The hidden states of one stream; index 0 is what enters the first layer, as in Hugging Face's ``hidden_states``.

    Attributes:
        text: as written after ``@``, or ``last``.
        indices: hidden states to pick, or `CONV`; empty for the encoder's own output.
        mean: average them instead of stacking them.
    """

    text: str
    indices: tuple[int, ...] = ()
    mean: bool = False

    @property
    def stacked(self) -> int:
        """How many layers a row holds, 0 where it holds a plain vector."""
        return 0 if self.mean or (len(self.indices) < 2 and self.text != "all") else len(self.indices)

    @property
    def single(self) -> int | None:
        """The hidden state that a row is, None for the encoder's output, a mean or a stack."""
        return self.indices[0] if len(self.indices) == 1 and not self.mean and not self.stacked else None

    def stream_name(self, name: str) -> str:
        """Names its stream after the encoder's: ``NAME``, or ``NAME@LAYERS``."""
        return f"{name}@{self.text}" if self.indices else name

    def row_shape(self, dim: int) -> tuple[int, ...]:
        """Gives the shape of a row, ``(dim,)`` or ``(layers, dim)``."""
        return (self.stacked, dim) if self.stacked else (dim,)

    def select(self, hidden: Mapping[int, Tensor], last: Tensor) -> Tensor:
        """Picks from hidden states ``(batch, frames, dim)``: the same, or ``(batch, frames, layers, dim)``."""
        if not self.indices:
            return last
        if self.stacked:
            return torch.stack([hidden[index].float() for index in self.indices], dim=2)
        return torch.stack([hidden[index].float() for index in self.indices]).mean(dim=0)


def parse_layers(text: str, *, layers: int, encoder: str, conv: bool = False) -> LayerChoice:
    """Reads what is written after ``@``.

    Args:
        text: the layers asked for, or ``last``.
        layers: how many layers the encoder has; hidden states count from 0 to this number.
        encoder: its name, for the error.
        conv: whether it has features of convolutions to give.

    Raises:
        MmerError: if it is not understood or asks for a layer that the encoder lacks.

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
    """Reads all that is asked for of one encoder, each as `parse_layers` does."""
    return [parse_layers(text, layers=layers, encoder=encoder, conv=conv) for text in texts]


@contextmanager
def tapped(layers: nn.ModuleList, wanted: set[int]) -> Iterator[dict[int, Tensor]]:
    """Collects the wanted hidden states of one forward pass, and holds no other."""
    hidden: dict[int, Tensor] = {}
    handles = [_tap_input(layers[0], hidden)] if 0 in wanted else []
    handles += [_tap_output(layers[index - 1], index, hidden) for index in sorted(wanted) if index]
    try:
        yield hidden
    finally:
        for handle in handles:
            handle.remove()


def _tap_input(layer: nn.Module, hidden: dict[int, Tensor]) -> torch.utils.hooks.RemovableHandle:
    def keep(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        hidden[0] = arguments[0]

    return layer.register_forward_pre_hook(keep)


def _tap_output(layer: nn.Module, index: int, hidden: dict[int, Tensor]) -> torch.utils.hooks.RemovableHandle:
    def keep(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]) -> None:
        hidden[index] = output if isinstance(output, Tensor) else output[0]

    return layer.register_forward_hook(keep)
