import numpy as np
import pytest
import torch
from torch import nn

from featurize.encoders.tiny import build_vit_mel_tiny
from featurize.encoders.vit_mel import (
    COLUMNS,
    count_columns,
    patch_kernel,
    patch_pixels,
    patch_positions,
    position_grid,
)
from tests.support.images import VIT_SIDE, vit_model


@pytest.mark.parametrize(("frames", "columns"), [(1, 1), (16, 1), (17, 2), (1501, COLUMNS), (1505, COLUMNS + 1)])
def test_every_frame_has_a_column(frames: int, columns: int) -> None:
    assert count_columns(frames) == columns
    assert patch_pixels(torch.ones(frames, 80)).shape == (5 * columns, 256)


def test_fifteen_seconds_are_as_many_columns_as_there_are_positions() -> None:
    assert count_columns(1 + 15 * 100) == COLUMNS


def test_patches_come_column_by_column_from_the_lowest_band_up() -> None:
    frames = torch.arange(40)[:, None] * 1000.0 + torch.arange(80)  # tells frame and band
    patches = patch_pixels(frames).reshape(3, 5, 16, 16)  # (columns, rows, bands, frames)
    np.testing.assert_array_equal(patches[1, 3], (torch.arange(16, 32) * 1000.0 + torch.arange(48, 64)[:, None]))
    np.testing.assert_array_equal(patches[2, 0, 0], [*range(32_000, 40_000, 1000), *[0] * 8])  # padded on the right


def test_a_linear_layer_over_patches_is_the_convolution_over_the_image() -> None:
    projection = nn.Conv2d(3, 8, kernel_size=16, stride=16)
    frames = torch.randn(45, 80, generator=torch.Generator().manual_seed(0))
    found = nn.functional.linear(patch_pixels(frames), patch_kernel(projection).flatten(1), projection.bias)
    grey = nn.functional.pad(frames, (0, 0, 0, 3)).T.expand(1, 3, -1, -1) / 3
    expected = projection(grey)[0]  # (dim, rows, columns)
    torch.testing.assert_close(found.reshape(3, 5, 8).permute(2, 1, 0), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("columns", [1, 30, COLUMNS, COLUMNS + 20])
def test_positions_are_those_that_hugging_face_interpolates(columns: int) -> None:
    embeddings = vit_model().embeddings
    width = max(columns, COLUMNS)
    with torch.inference_mode():
        plain = embeddings.interpolate_pos_encoding(torch.empty(1, 1 + 5 * width, 32), 80, 16 * width)[0]
    found = patch_positions(embeddings, columns)
    by_rows = found[1:].reshape(columns, 5, -1).transpose(0, 1)  # (rows, columns, dim)
    assert torch.equal(found[0], plain[0])
    assert torch.equal(by_rows, plain[1:].reshape(5, width, -1)[:, :columns])


def test_positions_do_not_depend_on_the_length_up_to_15_s_and_do_beyond() -> None:
    embeddings = build_vit_mel_tiny().embeddings
    whole = patch_positions(embeddings, COLUMNS)
    assert torch.equal(patch_positions(embeddings, 7), whole[: 1 + 5 * 7])
    longer = patch_positions(embeddings, COLUMNS + 10)[: len(whole)]
    assert not torch.allclose(longer, whole, atol=1e-4)


def test_the_grid_is_the_table_without_cls() -> None:
    embeddings = vit_model().embeddings
    grid = position_grid(embeddings)
    assert grid.shape == (VIT_SIDE, VIT_SIDE, 32)
    assert torch.equal(grid[1, 2], embeddings.position_embeddings[0, 1 + VIT_SIDE + 2])
