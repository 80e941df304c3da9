"""Every family: 8 bit in and out, the same bytes twice, PSNR that falls with the strength, on any image."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage import data

from mlclipsim.distortions import FAMILIES, family
from mlclipsim.pcmp.match import psnr_db
from mlclipsim.randomness import generator

NAMES = sorted(FAMILIES)
CROPS = {
    "astronaut": data.astronaut()[60:124, 180:244],
    "chelsea": data.chelsea()[100:164, 120:184],
    "smooth": data.astronaut()[0:64, 440:504],
}
HARD = {
    "flat": np.full((32, 32, 3), 117, np.uint8),
    "black": np.zeros((32, 32, 3), np.uint8),
    "white": np.full((32, 32, 3), 255, np.uint8),
    "saturated": (data.astronaut()[60:92, 180:212] > 127).astype(np.uint8) * 255,
    "odd": data.chelsea()[100:137, 120:173],
    "tiny": data.chelsea()[100:116, 120:136],
}


def distort(name: str, image: np.ndarray, t: float, seed: int = 0) -> np.ndarray:
    entry = family(name)
    return entry.apply(image, t, entry.draw(image, generator(seed, "test", name)))


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("name", NAMES)
def test_psnr_falls_with_the_strength(name, crop):
    image, entry = CROPS[crop], family(name)
    field = entry.draw(image, generator(3, name))
    psnr = np.array([psnr_db(image, entry.apply(image, t, field)) for t in np.linspace(0, 1, 41)])
    rises = np.diff(np.minimum(psnr, 100))
    # Spectra, scaled fields and contrast are monotone but for rounding; a motion kernel only nearly so (the
    # sinc of a longer line may pass more of one frequency), and an encoder decides block by block.
    slack = {"motion_blur": 0.05, "jpeg": 0.4, "jpeg2000": 0.05}.get(name, 0.01)
    assert rises.max() <= slack
    assert psnr[0] > 33
    assert psnr[-1] < (
        25 if crop != "smooth" else 31
    )  # there is little to blur or to code coarsely in a smooth crop


@pytest.mark.parametrize("kind", [*HARD, *CROPS])
@pytest.mark.parametrize("name", NAMES)
def test_any_image_gives_the_same_8_bit_image_twice(name, kind):
    image = (HARD | CROPS)[kind]
    before = image.copy()
    for t in (0.0, 0.37, 1.0):
        first, second = distort(name, image, t), distort(name, image, t)
        assert first.dtype == np.uint8
        assert first.shape == image.shape
        np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(
    "name", [n for n in NAMES if n not in ("gaussian_noise", "shot_noise", "brightness")]
)
def test_nothing_to_lose_nothing_lost(name):
    """A flat image has no detail and no contrast: it stays as it is within a step or two."""
    distorted = distort(name, HARD["flat"], 0.5)
    assert np.abs(distorted.astype(int) - 117).max() <= 3


@pytest.mark.parametrize("name", ["gaussian_noise", "shot_noise", "motion_blur", "brightness"])
def test_random_families_draw_from_their_seed(name):
    image = CROPS["chelsea"]
    images = {distort(name, image, 0.6, seed).tobytes() for seed in range(8)}
    assert len(images) == (2 if name == "brightness" else 8)  # brightness draws its sign only


def test_gaussian_noise_has_the_standard_deviation_it_names():
    image = np.full((128, 128, 3), 128, np.uint8)
    entry = family("gaussian_noise")
    sigma = entry.parameter(0.5)
    noise = distort("gaussian_noise", image, 0.5).astype(float) - 128
    assert noise.std() == pytest.approx(sigma, rel=0.02)


def test_shot_noise_grows_with_the_root_of_the_signal():
    image = (
        np.repeat(np.array([[40], [160]], np.uint8), 128, axis=0).repeat(256, axis=1)[..., None].repeat(3, 2)
    )
    noise = distort("shot_noise", image, 0.5).astype(float) - image
    assert noise[128:].std() / noise[:128].std() == pytest.approx(2.0, rel=0.04)  # sqrt(160 / 40)


def test_gaussian_blur_agrees_with_scipy():
    """Reference: scipy.ndimage.gaussian_filter, mode reflect, which is the border of a cosine spectrum."""
    image = data.astronaut()[:96, 160:256]
    entry = family("gaussian_blur")
    t = np.log(2.5 / entry.mildest) / np.log(entry.strongest / entry.mildest)
    expected = gaussian_filter(image.astype(float), (2.5, 2.5, 0), mode="reflect", truncate=8)
    # Sampled kernel there, the transfer function of the continuous one here: equal but for rounding at this
    # width.
    assert np.abs(distort("gaussian_blur", image, float(t)) - expected).max() < 0.51


@pytest.mark.parametrize("angle", [0.0, np.pi / 4, np.pi / 2, 2.5])
def test_motion_blur_runs_along_its_direction(angle):
    image = np.zeros((65, 65, 3), np.uint8)
    image[32, 32] = 255
    entry = family("motion_blur")
    t = float(np.log(15 / entry.mildest) / np.log(entry.strongest / entry.mildest))
    light = entry.apply(image, t, angle)[..., 0].astype(float)
    rows, columns = np.mgrid[-32:33, -32:33]
    weight = light / light.sum()
    assert abs((weight * rows).sum()) < 0.3
    assert abs((weight * columns).sum()) < 0.3
    # Second moments of a line of length L: L^2 / 12 along it, next to nothing across.
    along = columns * np.cos(angle) + rows * np.sin(angle)
    across = -columns * np.sin(angle) + rows * np.cos(angle)
    assert (weight * along**2).sum() == pytest.approx(16**2 / 12, rel=0.1)
    assert (weight * across**2).sum() < 0.5


def test_ringing_overshoots_at_an_edge():
    image = np.full((64, 64, 3), 60, np.uint8)
    image[:, 32:] = 180
    distorted = distort("ringing", image, 0.45)
    assert distorted.max() > 185
    assert distorted.min() < 55


def test_jpeg_takes_whole_qualities():
    entry = family("jpeg")
    assert entry.discrete
    assert entry.parameter(0.0) == 95
    assert entry.parameter(1.0) == 1
    assert {entry.parameter(t) for t in np.linspace(0, 1, 1001)} == set(range(1, 96))


def test_photometric_families_are_maps_of_values():
    image = CROPS["astronaut"]
    for name in NAMES:
        distorted = distort(name, image, 0.6)
        values = {
            (int(a), int(b)) for a, b in zip(image[..., 0].ravel(), distorted[..., 0].ravel(), strict=True)
        }
        assert (len(values) == len({a for a, _ in values})) == FAMILIES[name].photometric


def test_strength_outside_the_range_is_refused():
    with pytest.raises(ValueError, match=r"strength of contrast: expected a number in \[0, 1\], got 1.5"):
        family("contrast").parameter(1.5)


def test_unknown_family_is_named_with_the_likely_one():
    with pytest.raises(ValueError, match="did you mean 'jpeg2000'"):
        family("jpeg200")
