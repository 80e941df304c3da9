"""The picture of all families, on a few of them, and the marks of the table."""

from __future__ import annotations

import numpy as np
import pytest
from skimage import data

from mlclipsim.distortions import FAMILIES
from mlclipsim.report import families

REFERENCE = np.ascontiguousarray(data.astronaut()[20:116, 170:266])


@pytest.fixture
def few(monkeypatch):
    names = ("gaussian_noise", "gaussian_blur", "jpeg", "fog", "saturation", "gamma", "contrast")
    monkeypatch.setattr(families, "FAMILIES", {name: FAMILIES[name] for name in names})


def test_the_sheet_holds_every_image_pixel_by_pixel(few):
    matches = families.matched(REFERENCE, 25.0, 0)
    page = np.array(families.sheet(REFERENCE, matches))
    down, across = 96 + 8 + 20, 96 + 8  # a tile, the gap, and its line of text
    tiles = [
        page[8 + row * down :, 8 + column * across :][:96, :96].tobytes()
        for row in range(3)
        for column in range(5)
    ]
    for match in matches.values():
        assert tiles.count(match.image.tobytes()) == 1
    levels = [match.psnr_db for match in matches.values()]
    assert max(levels) - min(levels) <= 0.1


def test_a_level_out_of_reach_is_refused(few):
    with pytest.raises(ValueError, match=r"expected every family at 8 dB, but .*jpeg.* do not attain it"):
        families.matched(REFERENCE, 8.0, 0)


def test_the_table_goes_between_its_marks():
    page = "a\n<!-- families -->\nold\n<!-- end of families -->\nb\n"
    once = families.with_table(page)
    assert once.startswith("a\n<!-- families -->\n\n| family")
    assert once.endswith("|\n\n<!-- end of families -->\nb\n")
    assert families.with_table(once) == once
    with pytest.raises(ValueError, match="marks"):
        families.with_table("no marks")
