"""Text encoders that learn: RoBERTa, BERT, DistilBERT and DeBERTa, from token ids or from a lower layer."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.masking_utils import create_bidirectional_mask

from featurize.encoders.layers import LayerChoice
from featurize.encoders.text import text_layers
from fusion.end_to_end.learning.encoder import LearningEncoder, Part, learnable

DEBERTA = "deberta-v2"


class LearningText(LearningEncoder):
    """A text encoder that learns.

    Args:
        model: Hugging Face's base model.
        choice: hidden states that the head reads.
        first: number of frozen layers; None to start from token ids, the first column of ``(batch, tokens, 3)``.
        pieces: number of pieces in which a training batch goes through the encoder.
        checkpointing: compute activations again in the backward pass instead of keeping them.
    """

    def __init__(
        self, model: Any, choice: LayerChoice, *, first: int | None, pieces: int = 1, checkpointing: bool = False
    ) -> None:
        super().__init__(model, choice, first=first or 0, pieces=pieces, checkpointing=checkpointing)
        self.from_tokens = first is None
        self.family = model.config.model_type
        self.config = model.config
        self.layers = nn.ModuleList(self.stack[self.first : self.top])
        self.below = nn.ModuleList([model.embeddings] if self.from_tokens else [])
        # DeBERTa's layers share the embeddings of relative positions, which learn together with the first layer
        shared = (
            [getattr(model.encoder, name, None) for name in ("rel_embeddings", "LayerNorm")] if self._deberta else []
        )
        self.shared = nn.ModuleList([module for module in shared if module is not None])
        if not self.from_tokens:
            self.freeze(self.shared)

    @property
    def stack(self) -> nn.ModuleList:
        """All Transformer layers of the model."""
        return text_layers(self.model)

    @property
    def parts(self) -> Sequence[Part]:
        """The parameters that can learn, by the number of layers above them."""
        count = len(self.layers)
        layers = [(count - number, learnable(layer)) for number, layer in enumerate(self.layers, start=1)]
        return [(count, learnable(self.below, self.shared)), *layers]

    def encode(self, rows: Tensor, mask: Tensor) -> Tensor:
        """Computes ``(batch, tokens, dim)`` from the rows of a stream."""
        hidden = self._embedded(rows[..., 0], mask) if self.from_tokens else rows
        states = self.run(list(self.layers), hidden, self._arguments(hidden, mask))
        return self.choice.select(states, states[self.top])

    @property
    def _deberta(self) -> bool:
        return bool(self.family == DEBERTA)

    def _embedded(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Computes the input of the first layer from token ids ``(batch, tokens)``."""
        padded = torch.where(mask, ids, int(self.config.pad_token_id or 0))
        (embeddings,) = self.below
        embedded: Tensor = embeddings(input_ids=padded, mask=mask) if self._deberta else embeddings(input_ids=padded)
        return embedded

    def _arguments(self, hidden: Tensor, mask: Tensor) -> Mapping[str, Any]:
        """Returns the arguments of every layer."""
        if not self._deberta:
            wide = create_bidirectional_mask(config=self.config, inputs_embeds=hidden, attention_mask=mask)
            return {"attention_mask": wide}
        encoder = self.model.encoder
        return {
            "attention_mask": encoder.get_attention_mask(mask),
            "query_states": None,
            "relative_pos": encoder.get_rel_pos(hidden),
            "rel_embeddings": encoder.get_rel_embedding(),
            "output_attentions": False,
        }
