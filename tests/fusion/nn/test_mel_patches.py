"""Patches of log-mel are those of the encoder whose weights they start from, whatever stands in the padding."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from featurize.encoders.acoustic import logmel80
from featurize.encoders.start_weights import vit_start_weights
from fusion.nn.pretrained import MelPatches, band_statistics, patch_pixels
from tests.support.heads import PATCH, vit_weights
from tests.support.images import mel_encoder, vit_model
from tests.support.models import waveforms

COLUMN = 16  # frames


def masked(images: list[Tensor], extra: int = 0) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(one) for one in images])
    padded = 1e3 * torch.randn(len(images), int(lengths.max()) + extra, 80)
    for place, one in enumerate(images):
        padded[place, : len(one)] = one
    return padded, torch.arange(padded.shape[1]) < lengths[:, None]


def images_of(*lengths: int) -> list[Tensor]:
    made = torch.Generator().manual_seed(0)
    return [torch.randn(length, 80, generator=made) for length in lengths]


@pytest.mark.parametrize("seconds", [(1.0,), (0.5, 2.3, 0.04), (16.0, 1.0, 17.5)])
def test_rows_are_those_of_the_encoder(seconds: tuple[float, ...]) -> None:
    weights, _ = vit_start_weights(vit_model(), 0)
    waves = waveforms([int(16_000 * one) for one in seconds])
    expected = [rows[0] for rows in mel_encoder(vit_model(), "0").encode(waves)]
    found = MelPatches(weights)(*masked([torch.from_numpy(logmel80(wave)) for wave in waves]))
    for rows, mask, one in zip(*found, expected, strict=True):
        assert int(mask.sum()) == len(one)
        np.testing.assert_allclose(rows[mask].detach(), one, atol=1e-5)


@settings(max_examples=30)
@given(st.lists(st.integers(1, 100), min_size=1, max_size=4), st.integers(0, 60))
def test_what_is_in_the_padding_and_how_much_changes_nothing(lengths: list[int], extra: int) -> None:
    patches, images = MelPatches(vit_weights()), images_of(*lengths)
    patches.fit(image.numpy() for image in images_of(50, 20))
    rows, mask = patches(*masked(images, extra))
    for place, image in enumerate(images):
        alone, valid = patches(*masked([image]))
        assert valid.all()
        torch.testing.assert_close(rows[place][mask[place]], alone[0], atol=1e-5, rtol=0)


def test_positions_of_long_and_short_stand_side_by_side() -> None:
    patches = MelPatches(vit_weights())
    images = images_of(94 * COLUMN, 94 * COLUMN + 1, 100 * COLUMN, 5)
    rows, mask = patches(*masked(images, extra=40))
    for place, image in enumerate(images):
        torch.testing.assert_close(rows[place][mask[place]], patches(*masked([image]))[0][0], atol=1e-5, rtol=0)
    assert patches.columns == 94


@pytest.mark.parametrize(("frames", "columns"), [(1, 1), (16, 1), (17, 2), (32, 2)])
def test_a_patch_is_valid_if_one_of_its_frames_is(frames: int, columns: int) -> None:
    _, mask = MelPatches(vit_weights())(*masked(images_of(frames, 48)))
    assert mask.shape == (2, 1 + 5 * 3)
    assert mask[0].sum() == 1 + 5 * columns
    assert mask[0, : 1 + 5 * columns].all()


def test_an_utterance_without_a_frame_has_no_valid_row() -> None:
    patches = MelPatches(vit_weights())
    rows, mask = patches(torch.randn(2, 20, 80), torch.zeros(2, 20, dtype=torch.bool))
    assert not mask.any()
    assert torch.isfinite(rows).all()
    rows, mask = patches(torch.randn(2, 0, 80), torch.zeros(2, 0, dtype=torch.bool))
    assert (rows.shape, mask.tolist()) == ((2, 1, PATCH), [[False], [False]])


def test_pixels_of_a_patch_are_its_bands_one_after_another() -> None:
    image = torch.arange(32 * 80.0).view(1, 32, 80)  # frame by frame
    pixels = patch_pixels(image).view(2, 5, 16, 16)  # (columns, rows, bands, frames)
    assert pixels[1, 2, 3, 4] == image[0, 16 + 4, 2 * 16 + 3]


def test_bands_are_normalized_and_what_is_padded_is_the_mean() -> None:
    images = [3 * one + torch.arange(80.0) for one in images_of(33, 47)]
    patches = MelPatches(vit_weights())
    patches.fit(image.numpy() for image in images)
    together = torch.cat(images)
    torch.testing.assert_close(patches.mean, together.mean(dim=0), atol=1e-4, rtol=0)
    torch.testing.assert_close(patches.deviation, together.std(dim=0, correction=0), atol=1e-4, rtol=0)
    normed = [(image - patches.mean) / patches.deviation for image in images]
    plain = MelPatches(vit_weights())
    torch.testing.assert_close(patches(*masked(images))[0], plain(*masked(normed))[0], atol=1e-4, rtol=0)


def test_statistics_of_no_frame_and_of_a_constant_band_are_usable() -> None:
    mean, deviation = band_statistics([])
    assert (mean == 0).all()
    assert (deviation == 1).all()
    patches = MelPatches(vit_weights())
    patches.fit([np.full((9, 80), 2.0, dtype=np.float16)])
    torch.testing.assert_close(patches.mean, torch.full((80,), 2.0))
    torch.testing.assert_close(patches.deviation, torch.full((80,), 0.01))


def test_projection_and_cls_learn_and_positions_do_not() -> None:
    patches = MelPatches(vit_weights())
    assert {name for name, _ in patches.named_parameters()} == {"cls", "project.weight", "project.bias"}
    assert {"positions", "grid", "mean", "deviation"} <= set(patches.state_dict())
