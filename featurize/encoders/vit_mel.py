"""ViT over log-mel: an utterance as an image of 80 bands over time, read in patches of 16 by 16.

Paper: ViT (Dosovitskiy et al., 2021, arXiv:2010.11929), pre-trained on RGB photographs. The image has one channel, so
the patch projection is the mean of those of red, green and blue. Patches are projected in float32 regardless of the
precision.

A patch covers 16 of the 80 bands and 16 frames (160 ms). The rows of an utterance, 31.25 a second, are the CLS token
and then the patches, column by column in time, the five patches of a column from the lowest band to the highest.
Padding is therefore on the right.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers.masking_utils import create_bidirectional_mask

from cache.rows import Rows
from cache.stream import Scalar, StreamSpec
from featurize.encoders.base import InputPlan, Waveform, WaveformEncoder
from featurize.encoders.layers import LayerChoice, captured_states
from featurize.encoders.options import in_precisions
from featurize.encoders.padding import valid_mask

PATCH, BANDS = 16, 80
ROWS = BANDS // PATCH  # patches of a column
COLUMNS = 94  # 15 s, so that positions do not depend on the duration of an utterance
PREPROCESSING: Mapping[str, Scalar] = {
    "image": "logmel80, time padded with 0",
    "patches": "16 x 16, CLS, then by time, low bands first",
    "positions": f"bicubic to {ROWS} x {COLUMNS}, cut",
    "channels": "rgb mean",
}


def count_columns(frames: int) -> int:
    """Returns the number of columns of patches for a number of frames, the last column padded."""
    return -(-frames // PATCH)


def patch_pixels(frames: Tensor) -> Tensor:
    """Splits log-mel ``(frames, 80)`` into patches ``(patches, 256)``; time is padded with 0, the utterance's mean.

    The pixels of a patch are ordered by band, 16 frames for each of the 16 bands.
    """
    columns = count_columns(len(frames))
    padded = nn.functional.pad(frames, (0, 0, 0, columns * PATCH - len(frames)))
    cut = padded.reshape(columns, PATCH, ROWS, PATCH)  # (columns, frames, rows, bands)
    return cut.permute(0, 2, 3, 1).reshape(columns * ROWS, PATCH * PATCH)


def patch_kernel(projection: nn.Conv2d) -> Tensor:
    """Computes the projection of one channel, ``(dim, 16, 16)``: the mean of those of red, green and blue."""
    kernel: Tensor = projection.weight.detach().mean(dim=1)
    return kernel


def patch_positions(embeddings: Any, columns: int) -> Tensor:
    """Computes the positions of an utterance with a number of columns, ``(1 + 5 * columns, dim)``, CLS first.

    The pre-trained grid is interpolated to 5 x 94 as Hugging Face does, and cut; only a longer utterance gets an
    interpolation to its own length. It runs on the CPU, so that the numbers do not depend on the model's device.
    """
    table: Tensor = embeddings.position_embeddings.detach()[0].cpu()  # (1 + side * side, dim)
    grid = position_grid(embeddings).cpu().permute(2, 0, 1)[None]  # (1, dim, side, side)
    size = (ROWS, max(columns, COLUMNS))
    fitted = nn.functional.interpolate(grid, size=size, mode="bicubic", align_corners=False)
    by_time = fitted[0, :, :, :columns].permute(2, 1, 0)  # (columns, rows, dim)
    return torch.cat([table[:1], by_time.flatten(end_dim=1)])


def position_grid(embeddings: Any) -> Tensor:
    """Returns the pre-trained positions of the patches of a square image, ``(side, side, dim)``."""
    table: Tensor = embeddings.position_embeddings.detach()[0, 1:]
    side = round(len(table) ** 0.5)
    return table.reshape(side, side, -1)


class MelEncoder:
    """A frozen ViT on one device.

    Args:
        model: Hugging Face's ``ViTModel``, in eval mode and float32.
        mel: encoder of its input, ``logmel80``.
        start_weights: pre-trained weights that heads start from, by name.
        spec: spec that all streams share; name, layers and shape are set for each choice.
        choices: hidden states of each stream of patches.
        device: device on which the encoder runs.
        precision: type in which the layers compute.
    """

    def __init__(
        self,
        *,
        model: Any,
        mel: WaveformEncoder,
        start_weights: Mapping[str, npt.NDArray[Any]],
        spec: StreamSpec,
        choices: Sequence[LayerChoice],
        device: torch.device,
        precision: torch.dtype,
    ) -> None:
        self.model = model.to(device).eval()
        self.mel = mel
        self.start_weights = start_weights
        self.device = device
        self.choices = choices
        self._wanted = {index for choice in choices for index in choice.indices}
        self._precision = precision
        self._models = in_precisions(self.model, precision)
        projection = self.model.embeddings.patch_embeddings.projection
        self._kernel, self._bias = patch_kernel(projection).flatten(start_dim=1), projection.bias.detach()
        self._positions = patch_positions(self.model.embeddings, COLUMNS).to(device)
        dim = int(self.model.config.hidden_size)
        self.specs = [
            replace(spec, name=choice.stream_name(spec.name), layers=choice.text, shape=choice.row_shape(dim))
            for choice in choices
        ]

    def plan(self, sizes: Sequence[int]) -> list[InputPlan]:
        """Computes the number of rows, patches and CLS, of each input from its number of samples."""
        columns = [count_columns(planned.rows[0]) for planned in self.mel.plan(sizes)]
        return [self._plan_columns(count) for count in columns]

    def encode(self, inputs: Sequence[Waveform], *, precise: bool = False) -> list[tuple[Rows, ...]]:
        """Encodes 16 kHz waveforms ``(samples,)``: CLS and patches ``(1 + 5 * columns, ...)`` per choice."""
        images = [torch.from_numpy(rows) for (rows,) in self.mel.encode(inputs)]
        with torch.inference_mode():
            embedded = [self._embed(image.to(self.device)) for image in images]
            outputs = self._outputs(embedded, torch.float32 if precise else self._precision)
            arrays = [output.float().cpu().numpy() for output in outputs]
        return [tuple(array[index, : len(rows)] for array in arrays) for index, rows in enumerate(embedded)]

    def _plan_columns(self, columns: int) -> InputPlan:
        rows = 1 + ROWS * columns
        note = "longer than 15 s: positions interpolated" if columns > COLUMNS else ""
        return InputPlan(rows=(rows,) * len(self.specs), cost=rows, note=note)

    def _embed(self, image: Tensor) -> Tensor:
        """Computes patches and CLS of an image ``(frames, 80)`` with positions added, ``(1 + 5 * columns, dim)``."""
        patches = nn.functional.linear(patch_pixels(image), self._kernel, self._bias)
        rows = torch.cat([self.model.embeddings.cls_token[0], patches])
        if len(rows) > len(self._positions):
            return rows + patch_positions(self.model.embeddings, count_columns(len(image))).to(self.device)
        return rows + self._positions[: len(rows)]

    def _outputs(self, embedded: Sequence[Tensor], precision: torch.dtype) -> list[Tensor]:
        model = self._models[precision]
        states = nn.utils.rnn.pad_sequence(list(embedded), batch_first=True).to(precision)  # (batch, rows, dim)
        # the form of the mask depends on the attention implementation: some would add a boolean mask as numbers
        mask = create_bidirectional_mask(
            config=model.config,
            inputs_embeds=states,
            attention_mask=valid_mask([len(rows) for rows in embedded], self.device),
        )
        with captured_states(model.layers, self._wanted) as hidden:
            for layer in model.layers:
                states = layer(states, mask)
        return [choice.select(hidden, model.layernorm(states)) for choice in self.choices]
