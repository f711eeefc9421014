"""The ViT over log-mel that learns: its layers, from embedded patches or from a lower layer.

The patch projection is the mean of three pre-trained ones and stays frozen, like the convolutions of speech encoders.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from transformers.masking_utils import create_bidirectional_mask

from featurize.encoders.layers import LayerChoice
from fusion.end_to_end.learning.encoder import LearningEncoder, Part, learnable


class LearningPatches(LearningEncoder):
    """A ViT over log-mel that learns.

    Args:
        model: Hugging Face's ``ViTModel``.
        choice: hidden states that the head reads.
        first: number of frozen layers; 0 to start from embedded patches.
        pieces: number of pieces in which a training batch goes through the encoder.
        checkpointing: compute activations again in the backward pass instead of keeping them.
    """

    def __init__(
        self, model: Any, choice: LayerChoice, *, first: int, pieces: int = 1, checkpointing: bool = False
    ) -> None:
        super().__init__(model, choice, first=first, pieces=pieces, checkpointing=checkpointing)
        self.layers = nn.ModuleList(self.stack[self.first : self.top])
        self.norm = nn.Identity() if choice.indices else model.layernorm

    @property
    def stack(self) -> nn.ModuleList:
        """All Transformer layers of the model."""
        layers: nn.ModuleList = self.model.layers
        return layers

    @property
    def parts(self) -> Sequence[Part]:
        """The parameters that can learn, by the number of layers above them."""
        count = len(self.layers)
        layers = [(count - number, learnable(layer)) for number, layer in enumerate(self.layers, start=1)]
        return [*layers, (0, learnable(self.norm))]

    def encode(self, rows: Tensor, mask: Tensor) -> Tensor:
        """Computes ``(batch, patches, dim)`` from the rows of a stream."""
        wide = create_bidirectional_mask(config=self.model.config, inputs_embeds=rows, attention_mask=mask)
        states = self.run(list(self.layers), rows, {"attention_mask": wide})
        return self.choice.select(states, self.norm(states[self.top]))
