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
    windows = np.lib.stride_tricks.sliding_window_view(page, REFERENCE.shape)[::4, ::4, 0]
    for match in matches.values():
        assert (windows == match.image).all(axis=(2, 3, 4)).sum() == 1
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
