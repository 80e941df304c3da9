"""Every family: 8 bit in and out, the same bytes twice, PSNR that falls with the strength, on any image."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy.ndimage import gaussian_filter
from skimage import data
from skimage.exposure import adjust_gamma

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
# Spectra, scaled fields, nested cells and maps of values are monotone but for rounding; a motion kernel only
# nearly so (the sinc of a longer line may pass more of one frequency; so may a disc as large as the picture),
# a coarse grid may happen to sample well, and an encoder decides block by block.
SLACK = {
    "defocus_blur": 0.4,
    "motion_blur": 0.05,
    "glass_blur": 0.05,
    "down_up_sampling": 0.25,
    "jpeg": 0.4,
    "jpeg2000": 0.05,
    "webp": 0.4,
    "avif": 0.4,
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
    assert rises.max() <= SLACK.get(name, 0.01)
    assert psnr[0] > 33
    # There is little to blur in a smooth crop, and less to code coarsely.
    assert psnr[-1] < (26 if crop != "smooth" else 36 if name in ("webp", "avif") else 31)


@pytest.mark.parametrize("kind", [*HARD, *CROPS])
@pytest.mark.parametrize("name", NAMES)
def test_any_image_gives_the_same_8_bit_image_twice(name, kind):
    image = (HARD | CROPS)[kind]
    before = image.copy()
    entry = family(name)
    one, other = (entry.draw(image, generator(0, name)) for _ in range(2))
    for t in (0.0, 0.37, 1.0):
        first, second = entry.apply(image, t, one), entry.apply(image, t, other)
        assert first.dtype == np.uint8
        assert first.shape == image.shape
        np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in NAMES
        if "noise" not in name and name not in ("block_loss", "brightness", "gamma", "fog")
    ],
)
def test_nothing_to_lose_nothing_lost(name):
    """A flat image has no detail and no contrast: it stays as it is within a step or two."""
    distorted = distort(name, HARD["flat"], 0.5)
    assert np.abs(distorted.astype(int) - 117).max() <= 3


SIGNED = ("brightness", "saturation")
DRAWN = ("gaussian_noise", "shot_noise", "impulse_noise", "block_loss", "motion_blur", "glass_blur", *SIGNED)


@pytest.mark.parametrize("name", DRAWN)
def test_random_families_draw_from_their_seed(name):
    image = CROPS["chelsea"]
    images = {distort(name, image, 0.8, seed).tobytes() for seed in range(8)}
    assert len(images) == (2 if name in SIGNED else 8)  # those draw whether up or down only


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(DRAWN)))
def test_all_others_do_not_depend_on_the_seed(name):
    image = CROPS["chelsea"]
    np.testing.assert_array_equal(distort(name, image, 0.6, 0), distort(name, image, 0.6, 1))


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


def test_defocus_spreads_a_point_over_a_disc():
    image = np.zeros((65, 65, 3), np.uint8)
    image[30:35, 30:35] = 255
    entry = family("defocus_blur")
    light = entry.distort(image, 10.0, entry.draw(image, generator(0)))[..., 0].astype(float)
    rows, columns = np.mgrid[-32:33, -32:33]
    distance = np.hypot(rows, columns)
    # 25 px of white over 100 pi px, and a disc's second moment is R^2 / 4 along either axis.
    assert light[distance < 6].mean() == pytest.approx(255 * 25 / (100 * np.pi), rel=0.03)
    assert light[distance > 15].max() <= 1
    assert (light * rows**2).sum() / light.sum() == pytest.approx(100 / 4 + 2, rel=0.05)


def test_glass_looks_no_further_than_its_reach():
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, 32:] = 255
    entry = family("glass_blur")
    seen = entry.distort(image, 5.0, entry.draw(image, generator(0)))[..., 0]
    assert seen[:, :23].max() == 0  # 5 px, and 4 px of the two slight blurs
    assert seen[:, 41:].min() == 255
    assert 0.4 < (seen[:, 31:33] / 255).mean() < 0.6
    assert seen[:, 29].std() > 20  # scattered, not merely blurred


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


@pytest.mark.parametrize("name", ["webp", "avif"])
def test_webp_and_avif_take_whole_qualities_down_to_0(name):
    entry = family(name)
    assert {entry.parameter(t) for t in np.linspace(0, 1, 1001)} == set(range(96))


def test_jpeg_takes_whole_qualities():
    entry = family("jpeg")
    assert entry.discrete
    assert entry.parameter(0.0) == 95
    assert entry.parameter(1.0) == 1
    assert {entry.parameter(t) for t in np.linspace(0, 1, 1001)} == set(range(1, 96))


@pytest.mark.parametrize("name", [name for name in NAMES if FAMILIES[name].photometric])
def test_photometric_families_are_maps_of_colours(name):
    image = CROPS["astronaut"]
    both = np.concatenate([image, distort(name, image, 0.6)], axis=2).reshape(-1, 6)
    assert len(np.unique(both, axis=0)) == len(np.unique(image.reshape(-1, 3), axis=0))


@pytest.mark.parametrize("name", NAMES)
def test_grey_images_keep_their_colour(name):
    """What has no colour gets none, but from noise in the channels and from codecs' rounding."""
    grey = CROPS["astronaut"][..., :1].repeat(3, axis=2)
    distorted = distort(name, grey, 0.5).astype(int)
    if "noise" not in name:
        assert np.ptp(distorted, axis=2).max() <= (8 if name in ("webp", "avif", "jpeg", "jpeg2000") else 1)


@pytest.mark.parametrize("name", NAMES)
def test_channels_are_not_swapped(name):
    image = np.zeros((32, 32, 3), np.uint8)
    image[..., 0], image[..., 1], image[..., 2] = 200, 120, 60
    image[8:24, 8:24] //= 2
    red, green, blue = distort(name, image, 0.3).reshape(-1, 3).mean(axis=0)
    assert red > green > blue


@pytest.mark.parametrize("name", NAMES)
def test_grey_arrays_are_refused(name):
    grey = np.zeros((32, 32), np.uint8)
    with pytest.raises(ValueError, match=r"expected a uint8 image \(H, W, 3\), got uint8 \(32, 32\)"):
        family(name).apply(grey, 0.5, None)


def test_gamma_agrees_with_scikit_image():
    """Reference: skimage.exposure.adjust_gamma, on floats."""
    image = CROPS["astronaut"]
    expected = 255 * adjust_gamma(image / 255, 2.2)
    assert np.abs(expected - family("gamma").distort(image, 2.2, None)).max() <= 0.5 + 1e-9


@pytest.mark.parametrize(("direction", "factor"), [(-1, 0.5), (1, 2.0)])
def test_saturation_agrees_with_pillow(direction, factor):
    """Reference: PIL.ImageEnhance.Color, whose grey is rounded, hence a step on either side."""
    image = CROPS["astronaut"]
    expected = np.array(ImageEnhance.Color(Image.fromarray(image)).enhance(factor)).astype(int)
    found = family("saturation").distort(image, 1.0, direction)
    assert np.abs(expected - found).max() <= 2


def test_fog_leaves_airlight_alone_at_its_end():
    assert np.ptp(distort("fog", CROPS["chelsea"], 1.0)) == 0
    assert distort("fog", HARD["black"], 0.5).max() == round(230 * family("fog").parameter(0.5))


def test_strength_outside_the_range_is_refused():
    with pytest.raises(ValueError, match=r"strength of contrast: expected a number in \[0, 1\], got 1.5"):
        family("contrast").parameter(1.5)


def test_unknown_family_is_named_with_the_likely_one():
    with pytest.raises(ValueError, match="did you mean 'jpeg2000'"):
        family("jpeg200")
