"""Pre-trained Transformer layers that a head starts from, as a cache keeps them.

They are stored as ``layers.I.NAME`` under torch's own names, beside ``heads``, ``norm_eps`` and ``norm_first``; layer I
turns hidden state I into hidden state I + 1.

Patches of a log-mel image, embedded as a pre-trained ViT embeds them, from weights in the cache.

An image has 80 bands over time and is read in patches of 16 bands by 16 frames (ViT, Dosovitskiy et al., 2021,
arXiv:2010.11929). The rows of an utterance are the CLS token, then column by column in time, the five patches of a
column from the lowest band up. Bands are normalized with statistics of the training fold; what is padded is 0 after
that. Positions are fixed: they follow from the pre-trained grid for any length.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cache.errors import MmerError
from fusion.head import Weights
from fusion.nn.attention import TransformerLayer
from fusion.nn.sequences import MaskedRows

MOST_LAYERS = 12  # of ViT-base, and after the middle of a large language model
ADD_THEM = "run `mmer-featurize CORPUS --encoder roberta-large@12 --encoder vit-mel-base --start-layers {}` to add them"
PATCH, BANDS = 16, 80
ROWS = BANDS // PATCH  # patches of a column
LEAST_DEVIATION = 0.01  # of a unit-variance image: a band that was all but constant in training must not explode


def layers_from(weights: Weights, first: int) -> list[int]:
    """Gives the indices of the stored layers from one on, as far as they go without a gap.

    Example:
        >>> import numpy as np
        >>> layers_from({f"layers.{index}.norm1.bias": np.zeros(4) for index in (4, 5, 12)}, 4)
        [4, 5]
    """
    stored = {int(name.split(".")[1]) for name in weights if name.startswith("layers.")}
    found: list[int] = []
    while first + len(found) in stored:
        found.append(first + len(found))
    return found


def chosen_layers(weights: Weights, what: str, *, first: int, count: int, last: bool) -> list[int]:
    """Chooses layers to start from: those from index `first` on, or the last of the stored ones that follow it.

    Args:
        weights: what the cache holds of the encoder.
        what: whose layers they are, for the error.
        first: index of the first that may be used.
        count: how many are wanted.
        last: whether to take the last of the stored ones.

    Raises:
        MmerError: if too few are stored, or none but the first where the last are asked for.
    """
    stored = layers_from(weights, first)
    if len(stored) < count:
        raise MmerError(
            f"{count} {what} layers are needed from layer {first} on, the cache holds {len(stored)}; "
            f"{add_them(MOST_LAYERS if last else count)}"
        )
    if last and len(stored) == count < MOST_LAYERS:
        raise MmerError(f"the cache holds the first {count} {what} layers alone, not the last; {add_them(MOST_LAYERS)}")
    return stored[-count:] if last else stored[:count]


def add_them(count: int) -> str:
    """Names the command that adds so many layers of each encoder to a cache."""
    return ADD_THEM.format(count)


def layer_width(weights: Weights, index: int) -> int:
    """Gives the width of the rows that a stored layer takes."""
    return int(weights[f"layers.{index}.norm1.weight"].shape[0])


def start_layer(weights: Weights, index: int, *, dropout: float) -> TransformerLayer:
    """Builds a layer that computes what the pre-trained one does.

    Args:
        weights: what the cache holds of the encoder.
        index: of the layer, among those that `layers_from` gives.
        dropout: rate of the layer in training; the pre-trained one's is not stored.
    """
    mine = f"layers.{index}."
    state = {name.removeprefix(mine): torch.tensor(one) for name, one in weights.items() if name.startswith(mine)}
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
    """Embeds log-mel: normalization, projection of patches, CLS and positions.

    Args:
        weights: of the ViT, as the cache holds them.
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
        """How many columns of patches the stored positions reach."""
        return (len(self.positions) - 1) // ROWS

    def fit(self, images: Iterable[npt.NDArray[Any]]) -> None:
        """Learns mean and deviation of each band from log-mel images ``(frames, 80)``."""
        mean, deviation = band_statistics(images)
        self.mean.copy_(torch.from_numpy(mean))
        self.deviation.copy_(torch.from_numpy(deviation).clamp(min=LEAST_DEVIATION))

    def forward(self, mel: Tensor, mask: Tensor) -> MaskedRows:
        """Embeds the images.

        Args:
            mel: ``(batch, frames, 80)``.
            mask: True where a frame is valid, bool ``(batch, frames)``.

        Returns:
            Rows ``(batch, 1 + 5 * columns, dim)``; a patch is valid if one of its frames is.
        """
        normed = (mel.masked_fill(~mask[..., None], 0) - self.mean) / self.deviation
        image = normed.masked_fill(~mask[..., None], 0)
        missing = -mel.shape[1] % PATCH
        pixels = patch_pixels(nn.functional.pad(image, (0, 0, 0, missing)))
        columns = nn.functional.pad(mask, (0, missing)).reshape(len(mask), -1, PATCH).any(dim=2)  # (batch, columns)
        rows = torch.cat([self.cls.expand(len(mel), 1, -1), self.project(pixels)], dim=1)
        patches = columns[..., None].expand(-1, -1, ROWS).flatten(start_dim=1)
        valid = torch.cat([mask.any(dim=1, keepdim=True), patches], dim=1)
        return MaskedRows(rows + self._placed(columns), valid)

    def _placed(self, valid: Tensor) -> Tensor:
        """Gives the positions of rows, ``(1 + 5 * columns, dim)`` or one such for each utterance."""
        columns = valid.shape[1]
        if columns <= self.columns:
            return self.positions[: 1 + ROWS * columns]
        own = [self._of_length(count) for count in valid.sum(dim=1).tolist()]
        return torch.stack([nn.functional.pad(one, (0, 0, 0, 1 + ROWS * columns - len(one))) for one in own])

    def _of_length(self, columns: int) -> Tensor:
        """Gives the positions of one utterance, interpolated for it alone where the stored ones end too early."""
        if columns <= self.columns:
            return self.positions[: 1 + ROWS * columns]
        grid = self.grid.permute(2, 0, 1)[None]  # (1, dim, side, side)
        fitted = nn.functional.interpolate(grid, size=(ROWS, columns), mode="bicubic", align_corners=False)
        by_time = fitted[0].permute(2, 1, 0).flatten(end_dim=1)  # (columns * rows, dim)
        return torch.cat([self.positions[:1], by_time])


def patch_pixels(image: Tensor) -> Tensor:
    """Cuts log-mel ``(batch, 16 * columns, 80)`` into patches ``(batch, 5 * columns, 256)``, band after band."""
    cut = image.reshape(len(image), -1, PATCH, ROWS, PATCH)  # (batch, columns, frames, rows, bands)
    return cut.permute(0, 1, 3, 4, 2).reshape(len(image), -1, PATCH * PATCH)


def band_statistics(images: Iterable[npt.NDArray[Any]]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Gives mean and standard deviation of each band over the frames of all images, ``(80,)`` each.

    Args:
        images: ``(frames, 80)`` each; without a single frame, the mean is 0 and the deviation 1.
    """
    frames, total, squares = 0, np.zeros(BANDS), np.zeros(BANDS)
    for image in images:
        exact = np.asarray(image, dtype=np.float64)
        frames, total, squares = frames + len(exact), total + exact.sum(axis=0), squares + (exact**2).sum(axis=0)
    if not frames:
        return np.zeros(BANDS), np.ones(BANDS)
    mean = total / frames
    return mean, np.sqrt(np.maximum(squares / frames - mean**2, 0))
