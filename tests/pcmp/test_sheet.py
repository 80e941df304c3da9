"""The sheet of pairs: drawn by lot, the same bytes for the same seed, and no image needed twice."""

from __future__ import annotations

import pytest
from PIL import Image

from mlclipsim import cli
from mlclipsim.artifacts import ArtifactError
from mlclipsim.pcmp.release import Description
from mlclipsim.pcmp.sheet import choose, draw


def test_the_lot_spreads_over_references_and_distortions(published):
    description = Description.read(published)
    pairs = choose(published, description, 3, seed=0)
    assert {pair["role"] for pair in pairs} == {"pcmp_test"}
    assert len({pair["reference_id"] for pair in pairs}) == 3
    assert len({frozenset((pair["family_a"], pair["family_b"])) for pair in pairs}) == 3
    assert choose(published, description, 3, seed=0) == pairs
    assert choose(published, description, 3, seed=1) != pairs
    assert len(choose(published, description, 1000, seed=0)) == description.counts["pairs"]["pcmp_test"]


def test_the_sheet_is_a_picture_of_fixed_bytes(published, tmp_path):
    for name in ("one", "two"):
        arguments = [
            "pcmp",
            "sample",
            str(published),
            "--output",
            str(tmp_path / f"{name}.png"),
            "--pairs",
            "1",
        ]
        assert cli.main(arguments) == 0
    with Image.open(tmp_path / "one.png") as picture:
        assert picture.width > 1000
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_what_cannot_be_drawn_is_one_sentence(published, publish, tmp_path, capsys):
    with pytest.raises(ValueError, match=r"expected a file ending in \.png"):
        draw(published, tmp_path / "sheet.jpg")
    publish(tmp_path / "pcmp", images=False)
    with pytest.raises(ArtifactError, match="build it with"):
        draw(tmp_path / "pcmp", tmp_path / "sheet.png")
