"""An encoder that learns: batches in pieces, random draws that depend on (seed, step), rates by depth.

A piece of a batch goes through the encoder on its own. If there is more than one, activations are not kept: each piece
is computed again in the backward pass (GradCache, Gao et al., 2021, arXiv:2101.06983). The head and its losses, such as
contrastive ones, therefore see the whole batch, while memory holds the activations of one piece.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from featurize.encoders.layers import LayerChoice
from fusion.nn.dropout import Dropout

DRAWS = 0x7E2E  # part of the random seed: separates these draws from those of batches and modality dropout

Part = tuple[int, list[nn.Parameter]]  # number of layers above, and the parameters


class LearningEncoder(nn.Module, ABC):
    """The layers of an encoder that learn, from the rows of a stream to the rows that a head reads.

    Rows of a batch get the values, and the encoder the gradients, that each utterance gives alone, without dropout. A
    subclass registers the modules that `encode` needs; what does not learn stays in eval mode and without gradients.

    Args:
        model: Hugging Face's base model, in eval mode and float32; the modules that learn are its own.
        choice: hidden states that the head reads.
        first: number of layers below the rows, which do not learn.
        pieces: number of pieces in which a training batch goes through the encoder.
        checkpointing: compute the activations of a layer again in the backward pass instead of keeping them.
    """

    def __init__(
        self, model: Any, choice: LayerChoice, *, first: int, pieces: int = 1, checkpointing: bool = False
    ) -> None:
        super().__init__()
        self.kept = (model,)  # in a tuple, so that frozen parts are not moved to the device
        self.choice, self.first, self.pieces, self.checkpointing = choice, first, pieces, checkpointing
        self.draws = Dropout(0.0)  # holds the seed and the step
        self.frozen: list[nn.Module] = []

    @property
    def model(self) -> Any:
        """The whole model, with the weights as they are now."""
        return self.kept[0]

    @property
    def top(self) -> int:
        """Number of the last layer that is computed."""
        return max(self.choice.indices, default=len(self.stack))

    @property
    @abstractmethod
    def stack(self) -> nn.ModuleList:
        """All Transformer layers of the model."""

    @property
    @abstractmethod
    def parts(self) -> Sequence[Part]:
        """The parameters that can learn, by the number of layers above them."""

    @abstractmethod
    def encode(self, rows: Tensor, mask: Tensor) -> Tensor:
        """Computes ``(batch, rows, dim)`` from the rows of a stream, each utterance with at least one valid row."""

    def train(self, mode: bool = True) -> "LearningEncoder":
        """Sets the mode of what learns; what is frozen and batch norms, whose statistics stay, remain in eval mode."""
        super().train(mode)
        norms = [module for module in self.modules() if isinstance(module, nn.BatchNorm1d)]
        for module in (*self.frozen, *norms):
            module.eval()
        return self

    def freeze(self, *modules: nn.Module) -> None:
        """Keeps modules in eval mode and without gradients."""
        for module in modules:
            module.requires_grad_(False)
            module.eval()
            self.frozen.append(module)

    def out_mask(self, mask: Tensor) -> Tensor:
        """Returns where a row that the head reads is valid, from the mask of the rows of the stream."""
        return mask

    def forward(self, rows: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Encodes a batch.

        Args:
            rows: rows of the stream, ``(batch, rows, ...)``.
            mask: True where a row is valid, bool ``(batch, rows)``; an utterance may have none.

        Returns:
            ``(batch, rows, dim)``, 0 for an utterance without valid rows; and its mask, bool ``(batch, rows)``.
        """
        valid = self.out_mask(mask)
        present = mask.any(dim=1).nonzero()[:, 0]
        if not len(present):
            return self._empty(valid), valid
        pieces = present.chunk(min(self.pieces, len(present)) if self.training else 1)
        encoded = [self._piece(rows[piece], mask[piece], number, len(pieces)) for number, piece in enumerate(pieces)]
        joined = torch.cat([nn.functional.pad(piece, _missing(piece, valid.shape[1])) for piece in encoded])
        if len(present) == len(mask):
            return joined, valid
        whole = joined.new_zeros(len(mask), *joined.shape[1:])
        return whole.index_copy(0, present, joined), valid

    def _layer(self, layer: nn.Module, hidden: Tensor, arguments: Mapping[str, Any]) -> Tensor:
        if not self.checkpointing or not self.training or not torch.is_grad_enabled():
            return self.call(layer, hidden, arguments)
        computed: Tensor = checkpoint(self.call, layer, hidden, arguments, use_reentrant=False)
        return computed

    def _piece(self, rows: Tensor, mask: Tensor, number: int, count: int) -> Tensor:
        longest = int(mask.sum(dim=1).max())
        rows, mask = rows[:, :longest], mask[:, :longest]
        if count == 1 or not torch.is_grad_enabled():
            return self._drawn(rows, mask, number)
        encoded: Tensor = checkpoint(self._drawn, rows, mask, number, use_reentrant=False, preserve_rng_state=False)
        return encoded

    def _drawn(self, rows: Tensor, mask: Tensor, piece: int) -> Tensor:
        if not self.training:
            return self.encode(rows, mask)
        with drawn_from(int(self.draws.seed), int(self.draws.step), self.draws.site, piece, device=rows.device):
            return self.encode(rows, mask)

    def _empty(self, valid: Tensor) -> Tensor:
        dim = int(self.model.config.hidden_size)
        return torch.zeros(*valid.shape, *self.choice.row_shape(dim), device=valid.device)

    def run(self, layers: Sequence[nn.Module], hidden: Tensor, arguments: Mapping[str, Any]) -> dict[int, Tensor]:
        """Runs layers above `first`; returns the input and every output by the index of the hidden state."""
        states = {self.first: hidden}
        for index, layer in enumerate(layers, start=self.first + 1):
            if not self.drops(index):
                hidden = self._layer(layer, hidden, arguments)
            states[index] = hidden
        return states

    def call(self, layer: nn.Module, hidden: Tensor, arguments: Mapping[str, Any]) -> Tensor:
        """Computes the output of one layer."""
        output = layer(hidden, **arguments)
        computed: Tensor = output if isinstance(output, Tensor) else output[0]
        return computed

    def drops(self, index: int) -> bool:
        """Draws whether training leaves out a layer, counted from 1."""
        return False


@contextmanager
def drawn_from(*seed: int, device: torch.device) -> Iterator[None]:
    """Draws all random numbers inside from a seed; the generators outside keep their state.

    Hugging Face's masks are drawn by numpy's global generator, its dropout by torch's.
    """
    gpus = [device.index or 0] if device.type == "cuda" else []
    key, number = (int(word) for word in np.random.SeedSequence([DRAWS, *seed]).generate_state(2))
    state = np.random.get_state()  # noqa: NPY002 - the generator of Hugging Face's masks
    with torch.random.fork_rng(devices=gpus):
        torch.default_generator.manual_seed(key)
        for gpu in gpus:
            torch.cuda.default_generators[gpu].manual_seed(key)
        np.random.seed(number)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002


def learnable(*modules: nn.Module) -> list[nn.Parameter]:
    """Returns the parameters of modules that require gradients."""
    return [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]


def _missing(rows: Tensor, width: int) -> list[int]:
    """Returns the padding of `torch.nn.functional.pad` that brings ``(batch, rows, ...)`` to a width."""
    return [0, 0] * (rows.ndim - 2) + [0, width - rows.shape[1]]
