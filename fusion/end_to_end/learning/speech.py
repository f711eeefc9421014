"""Speech encoders that learn: wav2vec 2.0 and its relatives, from convolutional features, a lower layer or waveforms.

From convolutional features, the convolutions are frozen, as in the papers; the layer norm in front of the feature
projection is part of the cached features and frozen as well. From waveforms, everything learns. Masking of spans of
frames and features (SpecAugment), dropout and layer drop are those of the encoder's configuration.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.masking_utils import create_bidirectional_mask

from featurize.encoders.layers import LayerChoice
from featurize.encoders.padding import conv_lengths, encode_waveforms, zeroed_padding
from fusion.end_to_end.learning.encoder import LearningEncoder, Part, learnable

WAVLM, CONFORMER = "wavlm", "wav2vec2-conformer"


class LearningSpeech(LearningEncoder):
    """A speech encoder that learns.

    Args:
        model: Hugging Face's base model.
        choice: hidden states that the head reads.
        first: number of frozen layers; None to start from convolutional features ``(batch, frames, conv_dim)``.
        wave: start from waveforms ``(batch, samples)``, prepared as the encoder needs them.
        pieces: number of pieces in which a training batch goes through the encoder.
        checkpointing: compute activations again in the backward pass instead of keeping them.
    """

    def __init__(
        self,
        model: Any,
        choice: LayerChoice,
        *,
        first: int | None,
        wave: bool = False,
        pieces: int = 1,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(model, choice, first=first or 0, pieces=pieces, checkpointing=checkpointing)
        encoder, self.from_conv, self.from_wave = model.encoder, first is None, wave
        self.family = model.config.model_type
        self.config = model.config
        self.layers = nn.ModuleList(encoder.layers[self.first : self.top])
        # with layer norm before each layer, and in conformers, a norm follows the last layer
        self.norm_is_last = bool(getattr(model.config, "do_stable_layer_norm", False)) or self.family == CONFORMER
        self.below = nn.ModuleList()  # input of the first layer
        self.norm = encoder.layer_norm if self.norm_is_last and not choice.indices else nn.Identity()
        if self.from_conv:
            projection = model.feature_projection
            positions = [] if self.family == CONFORMER else [encoder.pos_conv_embed]
            norms = [] if self.norm_is_last else [encoder.layer_norm]
            self.below.extend([projection.projection, *positions, *norms])
            if wave:
                self.convolutions = model.feature_extractor
                self.conv_norm = getattr(model.feature_projection, "layer_norm", nn.Identity())
            if self._masks:
                self.mask_embedding = model.masked_spec_embed
        self._dropouts = nn.ModuleList([model.feature_projection.dropout, encoder.dropout])
        self._positions = self._position_module()
        if self.family == WAVLM and self.first:
            self.freeze(self._positions)

    @property
    def stack(self) -> nn.ModuleList:
        """All Transformer layers of the model."""
        layers: nn.ModuleList = self.model.encoder.layers
        return layers

    @property
    def parts(self) -> Sequence[Part]:
        """The parameters that can learn, by the number of layers above them."""
        convolutions = [self.convolutions, self.conv_norm] if self.from_wave else []
        below = learnable(*convolutions, self.below) + (
            [self.mask_embedding] if hasattr(self, "mask_embedding") else []
        )
        count = len(self.layers)
        layers = [(count - number, learnable(layer)) for number, layer in enumerate(self.layers, start=1)]
        return [(count, below), *layers, (0, learnable(self.norm))]

    def encode(self, rows: Tensor, mask: Tensor) -> Tensor:
        """Computes ``(batch, frames, dim)`` from the rows of a stream."""
        if self.from_wave:
            rows, mask = self._convolved(rows, mask), self.out_mask(mask)
        hidden = self._embedded(rows, mask) if self.from_conv else rows
        states = self.run(list(self.layers), hidden, self._arguments(hidden, mask))
        return self.choice.select(states, self.norm(states[self.top]))

    def out_mask(self, mask: Tensor) -> Tensor:
        """Returns where a frame is valid, from the mask of samples if learning starts from waveforms."""
        if not self.from_wave:
            return mask
        frames = torch.tensor([lengths[-1] for lengths in self._lengths(mask)], device=mask.device)
        return torch.arange(max(1, int(frames.max())), device=mask.device) < frames[:, None]

    def _lengths(self, mask: Tensor) -> list[list[int]]:
        """Counts the rows of each utterance after every convolution."""
        kernels, strides = self.config.conv_kernel, self.config.conv_stride
        return [conv_lengths(samples, kernels, strides) for samples in mask.sum(dim=1).tolist()]

    def _convolved(self, waveforms: Tensor, mask: Tensor) -> Tensor:
        """Computes convolutional features ``(batch, frames, conv_dim)``, normed."""
        first = [lengths[0] for lengths in self._lengths(mask)]
        features = encode_waveforms(self.convolutions, waveforms.masked_fill(~mask, 0), first)
        normed: Tensor = self.conv_norm(features)
        return normed

    def call(self, layer: nn.Module, hidden: Tensor, arguments: Mapping[str, Any]) -> Tensor:
        """Computes the output of one layer; the convolution of a conformer layer reads no padding."""
        if self.family not in {CONFORMER, WAVLM}:
            return super().call(layer, hidden, arguments)
        mask = arguments["mask"]
        with zeroed_padding(layer, mask):
            return super().call(layer, hidden, {name: arguments[name] for name in arguments if name != "mask"})

    def drops(self, index: int) -> bool:
        """Draws whether training leaves out a layer; WavLM's first layer always stays."""
        rate = float(self.config.layerdrop)
        if not self.training or rate <= 0 or (self.family == WAVLM and index == 1):
            return False
        return bool(torch.rand([]) < rate)

    def _embedded(self, rows: Tensor, mask: Tensor) -> Tensor:
        """Computes the input of the first layer from convolutional features."""
        projection, *positions = self.below
        dropout_of_features, dropout = self._dropouts
        hidden = dropout_of_features(projection(rows))
        if self.training and self._masks:
            hidden = self._masked(hidden, mask)
        hidden = hidden.masked_fill(~mask[:, :, None], 0)
        if self.family != CONFORMER:
            with zeroed_padding(positions[0], mask):
                hidden = hidden + positions[0](hidden)
        if not self.norm_is_last:
            hidden = positions[-1](hidden)
        embedded: Tensor = dropout(hidden)
        return embedded

    @property
    def _masks(self) -> bool:
        shares = (self.config.mask_time_prob, self.config.mask_feature_prob)
        return bool(getattr(self.config, "apply_spec_augment", True)) and max(shares) > 0

    def _masked(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Masks spans as the model does in training; a batch shorter than a span stays as it is."""
        if hidden.shape[1] <= self.config.mask_time_length:
            return hidden
        self.model.training = True  # of the model alone: its other modules keep their mode
        try:
            masked: Tensor = self.model._mask_hidden_states(hidden.clone(), attention_mask=mask)
        finally:
            self.model.training = False
        return masked

    def _position_module(self) -> nn.Module:
        """Returns the module that all layers take their relative positions from."""
        if self.family == CONFORMER and self.model.encoder.embed_positions is not None:
            positions: nn.Module = self.model.encoder.embed_positions
            return positions
        first: Any = self.stack[0]
        attention: nn.Module = first.attention if self.family == WAVLM and self.first else nn.Identity()
        return attention

    def _arguments(self, hidden: Tensor, mask: Tensor) -> Mapping[str, Any]:
        """Returns the arguments of every layer."""
        if self.family == WAVLM:
            first: Any = self._positions if self.first else self.layers[0].attention
            rows = hidden.shape[1]
            bias = first.compute_bias(rows, rows)[None].repeat(len(hidden), 1, 1, 1)
            return {"attention_mask": mask, "position_bias": bias.flatten(end_dim=1), "mask": mask}
        wide = create_bidirectional_mask(config=self.config, inputs_embeds=hidden, attention_mask=mask)
        if self.family == CONFORMER:
            embed = self._positions
            positions = None if isinstance(embed, nn.Identity) else embed(hidden)
            return {"attention_mask": wide, "relative_position_embeddings": positions, "mask": mask}
        return {"attention_mask": wide}
