"""Colour quantisation: as many colours as named, each the mean of its pixels, nested."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from skimage import data

from mlclipsim.distortions import family
from mlclipsim.pcmp.match import psnr_db
from mlclipsim.randomness import generator

IMAGE = data.chelsea()[100:196, 120:216]
ENTRY = family("colour_quantisation")
TREE = ENTRY.draw(IMAGE, generator(0))


def colours(image: np.ndarray) -> np.ndarray:
    return np.unique(image.reshape(-1, 3), axis=0)


@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_as_many_colours_as_named_each_the_mean_of_its_pixels(count):
    quantised = ENTRY.distort(IMAGE, float(count), TREE)
    found = colours(quantised)
    assert len(found) == count
    for colour in found[:8]:
        members = IMAGE[(quantised == colour).all(axis=2)]
        assert np.abs(members.mean(axis=0) - colour).max() <= 0.5 + 1e-6


def test_between_two_counts_one_pair_of_colours_is_on_its_way():
    three, half, four = (ENTRY.distort(IMAGE, count, TREE).astype(float) for count in (3.0, 3.5, 4.0))
    assert np.abs(half - (three + four) / 2).max() <= 1.0
    assert (three == four).all(axis=2).any()  # the other colours stay


def test_no_further_from_the_image_than_median_cut():
    """Reference: Pillow's median cut."""
    for count in (4, 16, 64):
        cut = np.array(Image.fromarray(IMAGE).quantize(count, Image.Quantize.MEDIANCUT).convert("RGB"))
        assert psnr_db(IMAGE, ENTRY.distort(IMAGE, float(count), TREE)) > psnr_db(IMAGE, cut)


def test_an_image_of_few_colours_keeps_them():
    image = IMAGE[::24, ::24].repeat(8, axis=0).repeat(8, axis=1)
    tree = ENTRY.draw(image, generator(0))
    np.testing.assert_array_equal(ENTRY.distort(image, 512.0, tree), image)
    assert len(colours(ENTRY.distort(image, 1.0, tree))) == 1
