"""Pre-trained weights from a cache that a head starts from: Transformer layers and the patch embedding of a ViT.

Layers are stored as ``layers.I.NAME`` under the names of torch, together with ``heads``, ``norm_eps`` and
``norm_first``. Layer I turns hidden state I into hidden state I + 1.

The patch embedding reads a log-mel image of 80 bands over time in patches of 16 bands by 16 frames (ViT, Dosovitskiy et
al., 2021, arXiv:2010.11929). The rows of an utterance are the CLS token and then, column by column in time, the five
patches of a column from the lowest band up. Bands are normalized with statistics of the training subset; padding is 0
after normalization. Positions are not trained: they are interpolated from the pre-trained grid for any length.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cache.errors import MmerError
from fusion.head_config import Weights
from fusion.nn.attention import TransformerLayer
from fusion.nn.sequences import MaskedRows

MOST_LAYERS = 12  # layers of ViT-base, and of the second half of a large language model
ADD_THEM = (
    "add them by running mmer-featurize for this cache with --encoder roberta-large@12 --encoder vit-mel-base "
    "--start-layers {}"
)
PATCH, BANDS = 16, 80
ROWS = BANDS // PATCH  # patches of a column
LEAST_DEVIATION = 0.01  # keeps a band that is nearly constant in training, in an image of variance 1, from exploding


def layers_from(weights: Weights, first: int) -> list[int]:
    """Returns the consecutive indices of stored layers from `first` on.

    Example:
        >>> import numpy as np
        >>> layers_from({f"layers.{index}.norm1.bias": np.zeros(4) for index in (4, 5, 12)}, 4)
        [4, 5]
    """
    stored = {int(name.split(".")[1]) for name in weights if name.startswith("layers.")}
    indices: list[int] = []
    while first + len(indices) in stored:
        indices.append(first + len(indices))
    return indices


def select_layers(weights: Weights, what: str, *, first: int, count: int, last: bool) -> list[int]:
    """Selects the pre-trained layers that a head starts from.

    Args:
        weights: pre-trained weights of the encoder, as stored in the cache.
        what: kind of the layers, for the error.
        first: index of the first layer that may be used.
        count: number of layers.
        last: whether to select the last of the consecutive stored layers instead of the first.

    Returns:
        Indices of the layers.

    Raises:
        MmerError: if too few layers are stored, or only the first `count` layers if the last are needed.
    """
    stored = layers_from(weights, first)
    if len(stored) < count:
        raise MmerError(
            f"{count} {what} layers are needed from layer {first} on, the cache holds {len(stored)}; "
            f"{featurize_hint(MOST_LAYERS if last else count)}"
        )
    if last and len(stored) == count < MOST_LAYERS:
        needed = f"the last {count} {what} layers are needed, the cache holds only the first {count}"
        raise MmerError(f"{needed}; {featurize_hint(MOST_LAYERS)}")
    return stored[-count:] if last else stored[:count]


def featurize_hint(count: int) -> str:
    """Returns a text with the command that adds layers to a cache.

    Args:
        count: number of layers of each encoder.
    """
    return ADD_THEM.format(count)


def layer_width(weights: Weights, index: int) -> int:
    """Returns the width of the input rows of a stored layer."""
    return int(weights[f"layers.{index}.norm1.weight"].shape[0])


def start_layer(weights: Weights, index: int, *, dropout: float) -> TransformerLayer:
    """Builds a layer with the weights and the settings of a pre-trained layer.

    Args:
        weights: pre-trained weights of the encoder, as stored in the cache.
        index: index of the layer, from `layers_from`.
        dropout: dropout rate in training; the rate of the pre-trained layer is not stored.
    """
    prefix = f"layers.{index}."
    state = {
        name.removeprefix(prefix): torch.tensor(values) for name, values in weights.items() if name.startswith(prefix)
    }
    feedforward, dim = state["linear1.weight"].shape
    layer = TransformerLayer(
        dim=dim,
        heads=int(weights["heads"]),
        feedforward=feedforward,
        dropout=dropout,
        norm_first=bool(weights["norm_first"]),
        eps=float(weights["norm_eps"]),
    )
    layer.load_state_dict(state, assign=True)
    return layer


class MelPatches(nn.Module):
    """Embedding of log-mel images: normalization, projection of patches, CLS token and positions.

    Args:
        weights: pre-trained weights of the ViT, as stored in the cache.
    """

    mean: Tensor
    deviation: Tensor
    positions: Tensor
    grid: Tensor

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        kernel = torch.tensor(weights["patch.weight"]).flatten(start_dim=1)  # (dim, bands * frames)
        self.project = nn.Linear(kernel.shape[1], kernel.shape[0])
        self.project.weight = nn.Parameter(kernel)
        self.project.bias = nn.Parameter(torch.tensor(weights["patch.bias"]))
        self.cls = nn.Parameter(torch.tensor(weights["cls"]))
        self.register_buffer("positions", torch.tensor(weights["positions"]))  # (1 + 5 * columns, dim)
        self.register_buffer("grid", torch.tensor(weights["position_grid"]))  # (side, side, dim)
        self.register_buffer("mean", torch.zeros(BANDS))
        self.register_buffer("deviation", torch.ones(BANDS))

    @property
    def columns(self) -> int:
        """The number of columns of patches that the stored positions cover."""
        return (len(self.positions) - 1) // ROWS

    def fit(self, images: Iterable[npt.NDArray[Any]]) -> None:
        """Computes mean and standard deviation of each band.

        Args:
            images: log-mel images, ``(frames, 80)`` each.
        """
        mean, deviation = band_statistics(images)
        self.mean.copy_(torch.from_numpy(mean))
        self.deviation.copy_(torch.from_numpy(deviation).clamp(min=LEAST_DEVIATION))

    def forward(self, mel: Tensor, mask: Tensor) -> MaskedRows:
        """Returns embedded log-mel images.

        Args:
            mel: log-mel frames, ``(batch, frames, 80)``.
            mask: True where a frame is valid, bool ``(batch, frames)``.

        Returns:
            Rows ``(batch, 1 + 5 * columns, dim)``; a patch is valid if one of its frames is valid.
        """
        normed = (mel.masked_fill(~mask[..., None], 0) - self.mean) / self.deviation
        image = normed.masked_fill(~mask[..., None], 0)
        missing = -mel.shape[1] % PATCH
        pixels = patch_pixels(nn.functional.pad(image, (0, 0, 0, missing)))
        columns = nn.functional.pad(mask, (0, missing)).reshape(mask.shape[0], -1, PATCH).any(dim=2)  # (batch, columns)
        rows = torch.cat([self.cls.expand(mel.shape[0], 1, -1), self.project(pixels)], dim=1)
        patches = columns[..., None].expand(-1, -1, ROWS).flatten(start_dim=1)
        valid = torch.cat([mask.any(dim=1, keepdim=True), patches], dim=1)
        return MaskedRows(rows + self._batch_positions(columns), valid)

    def _batch_positions(self, valid: Tensor) -> Tensor:
        """Returns the positions of the rows of a batch.

        Args:
            valid: True for valid columns, bool ``(batch, columns)``.

        Returns:
            ``(1 + 5 * columns, dim)``, or ``(batch, 1 + 5 * columns, dim)`` if the stored positions are too few.
        """
        columns = valid.shape[1]
        if columns <= self.columns:
            return self.positions[: 1 + ROWS * columns]
        by_utterance = [self._utterance_positions(count) for count in valid.sum(dim=1).tolist()]
        rows = 1 + ROWS * columns
        return torch.stack([nn.functional.pad(x, (0, 0, 0, rows - len(x))) for x in by_utterance])

    def _utterance_positions(self, columns: int) -> Tensor:
        """Returns the positions of one utterance, ``(1 + 5 * columns, dim)``.

        They are interpolated to its length if the stored positions are too few.
        """
        if columns <= self.columns:
            return self.positions[: 1 + ROWS * columns]
        grid = self.grid.permute(2, 0, 1)[None]  # (1, dim, side, side)
        fitted = nn.functional.interpolate(grid, size=(ROWS, columns), mode="bicubic", align_corners=False)
        by_time = fitted[0].permute(2, 1, 0).flatten(end_dim=1)  # (columns * rows, dim)
        return torch.cat([self.positions[:1], by_time])


def patch_pixels(image: Tensor) -> Tensor:
    """Splits log-mel images into patches, band after band.

    Args:
        image: ``(batch, 16 * columns, 80)``.

    Returns:
        ``(batch, 5 * columns, 256)``.
    """
    patches = image.reshape(image.shape[0], -1, PATCH, ROWS, PATCH)  # (batch, columns, frames, rows, bands)
    return patches.permute(0, 1, 3, 4, 2).reshape(image.shape[0], -1, PATCH * PATCH)


def band_statistics(images: Iterable[npt.NDArray[Any]]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Computes mean and standard deviation of each band over all frames.

    Args:
        images: log-mel images, ``(frames, 80)`` each.

    Returns:
        Mean and standard deviation, ``(80,)`` each; 0 and 1 without any frame.
    """
    frames, total, squares = 0, np.zeros(BANDS), np.zeros(BANDS)
    for image in images:
        exact = np.asarray(image, dtype=np.float64)
        frames, total, squares = frames + len(exact), total + exact.sum(axis=0), squares + (exact**2).sum(axis=0)
    if not frames:
        return np.zeros(BANDS), np.ones(BANDS)
    mean = total / frames
    return mean, np.sqrt(np.maximum(squares / frames - mean**2, 0))
