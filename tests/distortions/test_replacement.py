"""Impulses and lost blocks: what is replaced, by what, and in which order."""

from __future__ import annotations

import numpy as np
import pytest
from skimage import data

from mlclipsim.distortions import family
from mlclipsim.randomness import generator

IMAGE = np.clip(data.astronaut()[60:124, 180:244], 1, 254)


def replaced(name: str, share: float, image: np.ndarray = IMAGE) -> np.ndarray:
    entry = family(name)
    return entry.distort(image, share, entry.draw(image, generator(4, name)))


def test_impulses_are_black_or_white_and_as_many_as_named():
    noisy = replaced("impulse_noise", 0.25)
    hit = noisy != IMAGE
    assert hit.mean() == pytest.approx(0.25, abs=2e-4)
    assert set(np.unique(noisy[hit])) == {0, 255}
    assert (noisy[hit] == 255).mean() == pytest.approx(0.5, abs=0.03)
    assert hit.any(axis=2).sum() > 1.5 * hit.all(axis=2).sum()  # each channel by itself


def test_one_impulse_is_on_its_way():
    whole, half = (replaced("impulse_noise", n / IMAGE.size) for n in (10, 10.5))
    (place,) = np.argwhere(whole != half)
    before, after = int(IMAGE[tuple(place)]), int(half[tuple(place)])
    assert after == round((before + (255 if after > before else 0)) / 2)


@pytest.mark.parametrize("name", ["impulse_noise", "block_loss"])
def test_a_stronger_loss_contains_the_weaker(name):
    weak, strong = (replaced(name, share) for share in (0.1, 0.4))
    hit = weak != IMAGE
    # all but the value that was on its way
    assert (weak[hit] != strong[hit]).sum() <= 3


def test_blocks_are_lost_whole_but_one():
    image = np.where(IMAGE == 128, 127, IMAGE).astype(np.uint8)
    lost = (replaced("block_loss", 4.5 / 16, image) == 128).all(axis=2)
    shares = lost.reshape(4, 16, 4, 16).mean(axis=(1, 3))
    assert sorted(shares.ravel()) == [0.0] * 11 + [0.5] + [1.0] * 4
    (row, column) = np.argwhere(shares == 0.5)[0]
    half = lost[16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
    assert half[8:].all()  # from its last row up
    assert not half[:8].any()


@pytest.mark.parametrize("shape", [(37, 53, 3), (16, 16, 3), (16, 90, 3)])
def test_all_of_any_size_can_be_lost(shape):
    image = np.full(shape, 9, np.uint8)
    assert (replaced("block_loss", 1.0, image) == 128).all()
    assert set(np.unique(replaced("impulse_noise", 1.0, image))) == {0, 255}
