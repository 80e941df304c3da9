"""Four distortions of TID2013 drawn anew: the operators by hand, and all of them against published PSNRs."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import yaml

from mlclipsim.artifacts import ArtifactError
from mlclipsim.datasets import tid2013_rederived
from mlclipsim.datasets.human_images import pixels
from mlclipsim.images import write_png

CATALOG = yaml.safe_load(
    (Path(__file__).resolve().parents[2] / "config" / "catalog" / "datasets.yaml").read_text(encoding="utf-8")
)
render = tid2013_rederived.render


def test_an_impulse_is_blurred_into_eleven_normalised_taps_each_way():
    image = np.zeros((31, 31, 3), np.uint8)
    image[15, 15] = 255
    taps = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.7**2))
    taps /= taps.sum()
    expected = np.floor(255 * np.outer(taps, taps) + 0.5)
    blurred = render(image, "gblur", 1.7)
    np.testing.assert_array_equal(blurred[10:21, 10:21, 1], expected)
    assert not blurred[:10].any()


def test_blur_is_dark_at_the_border():
    """The genuine level 5 has a dark frame: zeros lie beyond the border."""
    blurred = render(np.full((40, 40, 3), 200, np.uint8), "gblur", 4.0)
    assert blurred[20, 20, 0] == 200
    assert blurred[0, 20, 0] < 125
    assert blurred[0, 0, 0] < 80


def test_mean_shift_and_contrast_round_half_up_and_clip():
    image = np.array([[[0, 100, 250]]], np.uint8).repeat(2, axis=0)
    np.testing.assert_array_equal(render(image, "mean_shift", 10)[0, 0], [10, 110, 255])
    np.testing.assert_array_equal(render(image, "mean_shift", -40)[0, 0], [0, 60, 210])
    mean = 350 / 3
    expected = [np.floor(mean + 0.75 * (value - mean) + 0.5) for value in (0, 100, 250)]
    np.testing.assert_array_equal(render(image, "contrast", 0.75)[0, 0], expected)


def test_jpeg_tables_follow_the_ijg_beyond_255():
    """First entries by jpeg_set_quality(cinfo, quality, FALSE): (16 * scale + 50) / 100."""
    luma, chroma = tid2013_rederived.jpeg_tables(80)
    assert luma[:4] == [6, 4, 4, 6]
    assert chroma[:2] == [7, 7]
    luma, chroma = tid2013_rederived.jpeg_tables(4)  # scale 1250
    assert (luma[0], max(luma), chroma[-1]) == (200, 1513, 1238)


def planted(folder: Path, psnr: float) -> dict:
    """A data set of one row over a grey photograph."""
    write_png(folder / "kodim01.png", np.full((40, 60, 3), 100, np.uint8))
    (folder / "labels.csv").write_text(
        "tid_name,kodak,crop_y,crop_x,width,height,distortion,param,mos,psnr_published\n"
        f"i01_16_2.bmp,kodim01.png,2,3,32,24,mean_shift,10,5.5,{psnr}\n"
    )
    return {"reader": "tid2013_rederived", "path": str(folder), "photographs": str(folder)}


def test_every_image_is_checked_when_it_is_drawn(tmp_path):
    (image,) = tid2013_rederived.read(planted(tmp_path, 10 * np.log10(255**2 / 100) + 0.0005)).images
    assert (image.image_id, image.reference_id, image.distortion, image.rating) == (
        "i01_16_2",
        "i01",
        "mean_shift",
        5.5,
    )
    assert pixels(image.reference).shape == (24, 32, 3)
    assert (pixels(image.distorted) == 110).all()
    (image,) = tid2013_rederived.read(planted(tmp_path, 30.0)).images
    with pytest.raises(ArtifactError, match=r"drawn at 28\.1308 dB, expected the published 30\.0000 dB"):
        pixels(image.distorted)


@pytest.mark.assets
@pytest.mark.parametrize("reference", ["i03", "i19"])
def test_real_rows_meet_their_published_psnr(reference, capfd):
    """Twenty of the 480; `snakemake check_tid2013_rederived` draws all. pixels() raises where one misses."""
    if "MLCLIPSIM_ASSETS" not in os.environ:
        pytest.skip("needs the photographs of MLCLIPSIM_ASSETS")
    opinions = tid2013_rederived.read(CATALOG["tid2013-rederived"])
    assert len(opinions.images) == 480
    mine = [image for image in opinions.images if image.reference_id == reference]
    assert len(mine) == 20
    for image in mine:
        assert pixels(image.distorted).shape == (384, 512, 3)
    capfd.readouterr()  # libjpeg says that tables are too coarse for baseline JPEG: they are meant to be
