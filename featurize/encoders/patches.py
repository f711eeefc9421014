"""Patches of a log-mel image as ViT takes them: their projection, their order and their positions.

A patch covers 16 of the 80 bands and 16 frames (160 ms). The rows of an utterance are the CLS token, then column by
column in time, the five patches of a column from the lowest band up: what is padded stands on the right.
"""

from typing import Any

import torch
from torch import Tensor, nn

PATCH, BANDS = 16, 80
ROWS = BANDS // PATCH  # patches of a column
COLUMNS = 94  # 15 s, so that positions do not depend on how long an utterance is


def columns_of(frames: int) -> int:
    """Gives how many columns of patches that many frames make, the last one padded."""
    return -(-frames // PATCH)


def patch_pixels(frames: Tensor) -> Tensor:
    """Cuts log-mel ``(frames, 80)`` into patches ``(patches, 256)``, time padded with zeros, the mean of an utterance.

    The pixels of a patch are its 16 bands one after another, 16 frames each.
    """
    columns = columns_of(len(frames))
    padded = nn.functional.pad(frames, (0, 0, 0, columns * PATCH - len(frames)))
    cut = padded.reshape(columns, PATCH, ROWS, PATCH)  # (columns, frames, rows, bands)
    return cut.permute(0, 2, 3, 1).reshape(columns * ROWS, PATCH * PATCH)


def patch_kernel(projection: Any) -> Tensor:
    """Gives the projection of one channel, ``(dim, 16, 16)``: the mean of those of red, green and blue."""
    kernel: Tensor = projection.weight.detach().mean(dim=1)
    return kernel


def patch_positions(embeddings: Any, columns: int) -> Tensor:
    """Gives the positions of an utterance of that many columns, ``(1 + 5 * columns, dim)``, CLS first.

    The pre-trained grid is interpolated once to 5 x 94 as Hugging Face does, and cut; only what is longer gets an
    interpolation of its own. It is done on the CPU: the same numbers wherever the model is.
    """
    table: Tensor = embeddings.position_embeddings.detach()[0].cpu()  # (1 + side * side, dim)
    grid = position_grid(embeddings).cpu().permute(2, 0, 1)[None]  # (1, dim, side, side)
    size = (ROWS, max(columns, COLUMNS))
    fitted = nn.functional.interpolate(grid, size=size, mode="bicubic", align_corners=False)
    by_time = fitted[0, :, :, :columns].permute(2, 1, 0)  # (columns, rows, dim)
    return torch.cat([table[:1], by_time.flatten(end_dim=1)])


def position_grid(embeddings: Any) -> Tensor:
    """Gives the pre-trained positions of the patches of a square image, ``(side, side, dim)``."""
    table: Tensor = embeddings.position_embeddings.detach()[0, 1:]
    side = round(len(table) ** 0.5)
    return table.reshape(side, side, -1)
