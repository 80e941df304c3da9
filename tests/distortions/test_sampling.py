"""Resampling and pixelation against Pillow and scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from skimage import data
from skimage.measure import block_reduce

from mlclipsim.distortions import family

IMAGE = data.chelsea()[100:164, 120:184]


def distort(name: str, image: np.ndarray, parameter: float) -> np.ndarray:
    return family(name).distort(image, parameter, None)


@pytest.mark.parametrize("side", [2, 4, 16])
def test_cells_of_a_power_of_2_are_block_means(side):
    """Reference: skimage.measure.block_reduce."""
    means = block_reduce(IMAGE, (side, side, 1), np.mean)
    expected = means.repeat(side, axis=0).repeat(side, axis=1)
    assert np.abs(distort("pixelation", IMAGE, side) - expected).max() <= 0.5


def test_between_two_powers_of_2_finer_cells_are_on_their_way():
    fine, between, coarse = (distort("pixelation", IMAGE, side).astype(float) for side in (4, 5, 8))
    assert np.abs(between - (0.75 * fine + 0.25 * coarse)).max() <= 1.0


def test_cells_at_the_far_borders_are_cut():
    image = data.chelsea()[100:137, 120:173]
    pixelated = distort("pixelation", image, 8)
    assert np.abs(pixelated[32:, 48:] - image[32:, 48:].mean(axis=(0, 1))).max() <= 0.5


@pytest.mark.parametrize("factor", [2, 4])
def test_resampling_agrees_with_pillow(factor):
    """Reference: Image.resize, both ways; away from the far borders, where ours sees mirrored cells."""
    side = 64 // factor
    small = Image.fromarray(IMAGE).resize((side, side), Image.Resampling.BICUBIC)
    expected = np.array(small.resize((64, 64), Image.Resampling.BICUBIC))
    inner = np.s_[: 64 - 3 * factor, : 64 - 3 * factor]
    difference = distort("down_up_sampling", IMAGE, factor)[inner].astype(int) - expected[inner]
    assert np.abs(difference).max() <= 1  # Pillow rounds its coefficients for the box that it was given
    assert (difference != 0).mean() < 0.01


def test_resampling_does_not_shift():
    columns = np.arange(64, dtype=np.float64)
    ramp = np.rint(np.broadcast_to(20 + 3 * columns[None, :, None], (64, 64, 3))).astype(np.uint8)
    resampled = distort("down_up_sampling", ramp, 3.7)
    assert np.abs(resampled[:, 16:48].astype(int) - ramp[:, 16:48]).max() <= 1


@pytest.mark.parametrize("name", ["pixelation", "down_up_sampling"])
def test_a_factor_of_1_changes_nothing(name):
    np.testing.assert_array_equal(distort(name, IMAGE, 1.0), IMAGE)
