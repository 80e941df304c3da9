"""Maps as pictures: the scale, the place and the file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from mlclipsim import heatmap
from mlclipsim.images import ImageError


def test_colours_are_magma_over_three_decades():
    from matplotlib import colormaps

    difference = np.geomspace(1e-3, 1, 256)
    expected = np.array(colormaps["magma"].colors) * 255
    assert np.abs(heatmap.colours(1 - difference).astype(float) - expected).max() < 4.5


def test_colours_outside_the_scale():
    dark, light = heatmap.colours(np.array([0.999, 0.0]))
    rgb = heatmap.colours(np.array([[1.0, 1 - 1e-6], [-0.5, np.nan]]))
    assert rgb.dtype == np.uint8
    assert (rgb[0] == dark).all()
    assert (rgb[1, 0] == light).all()
    assert (rgb[1, 1] == heatmap.UNSEEN).all()


@pytest.mark.parametrize(("height", "width"), [(16, 16), (64, 48), (300, 200), (100, 700)])
def test_picture_holds_the_image_the_map_and_a_legible_legend(tmp_path, height, width):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    heatmap.write(tmp_path / "deep" / "a.png", image, torch.ones(height, width), 0.5)
    with Image.open(tmp_path / "deep" / "a.png") as stored:
        picture = np.asarray(stored)
    zoom = -(-256 // width)
    assert picture.shape[1] == 2 * width * zoom
    assert (picture[: height * zoom : zoom, : width * zoom : zoom] == image).all()
    assert (picture[: height * zoom, width * zoom :] == heatmap.colours(np.ones(1))[0]).all()
    legend = picture[height * zoom :]
    assert (legend == heatmap.colours(np.zeros(1))[0]).all(axis=-1).any()  # the bar's light end
    assert (legend[:, : width * zoom // 2].min(axis=-1) < 64).any()  # ink of the score
    assert (legend[:, -1] == 255).all()  # nothing is cut off at the edge
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.png"]


def test_unwritable_place_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ImageError, match="cannot be written"):
        heatmap.write(tmp_path / "file" / "a.png", np.zeros((16, 16, 3), np.uint8), torch.ones(16, 16), 1.0)
