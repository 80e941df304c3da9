"""What check says of data sets that are absent, incomplete or damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlclipsim.datasets.check import check

from .judged import CATALOG, TREES, picture


def entry_of(name: str, path: Path) -> dict:
    """The catalog's, for a tiny tree."""
    return CATALOG[name] | {"path": str(path), "tree": {}}


@pytest.fixture
def tid2013(tmp_path) -> dict:
    TREES["tid2013"](tmp_path)
    tree = {"reference_images/*.[bB][mM][pP]": 2, "distorted_images/*": 3, "mos_with_names.txt": 1}
    return entry_of("tid2013", tmp_path) | {"tree": tree}


@pytest.mark.parametrize("name", TREES)
def test_a_sound_tree_has_no_problem(name, tmp_path):
    TREES[name](tmp_path)
    assert check(name, entry_of(name, tmp_path)) == []


def test_counts_and_checksums(tid2013):
    assert check("tid2013", tid2013) == []
    tid2013["sha256"] = {"mos_with_names.txt": "0" * 64, "readme": "0" * 64}
    tid2013["tree"]["metrics_values/*.txt"] = 2
    problems = check("tid2013", tid2013)
    assert len(problems) == 3
    assert "expected 2 files, found 0" in problems[0]
    assert "expected 0000" in problems[1]
    assert problems[2].endswith("readme is not there")


def test_absent_damaged_and_misfit_images_are_named(tid2013):
    folder = Path(tid2013["path"]) / "distorted_images"
    (folder / "i01_08_1.bmp").unlink()
    whole = (folder / "i01_08_3.bmp").read_bytes()
    (folder / "i01_08_3.bmp").write_bytes(whole[:100])
    picture(folder / "i02_10_1.bmp", 0, (20, 20))
    problems = check("tid2013", tid2013)
    assert len(problems) == 4
    assert "expected 3 files, found 2" in problems[0]
    assert problems[1].endswith("I01_08_1.bmp is not there")
    assert "i01_08_3.bmp: truncated or damaged image" in problems[2]
    assert "i02_10_1 has the shape (20, 20, 3), its reference (24, 32, 3)" in problems[3]


def test_an_absent_data_set_says_where_it_is_and_what_it_asks(tmp_path):
    entry = {"reader": "live", "path": str(tmp_path / "x"), "address": "https://live", "needs": "a form"}
    assert check("live", entry) == [
        f"{tmp_path / 'x'} is not there; get live from https://live (needs: a form)"
    ]


def test_an_absent_data_set_that_can_be_fetched_says_so(tmp_path):
    entry = entry_of("kadid10k", tmp_path / "x")
    assert check("kadid10k", entry) == [f"{tmp_path / 'x'} is not there; `mlclipsim fetch kadid10k` gets it"]


def test_long_lists_are_cut(tmp_path):
    TREES["kadid10k"](tmp_path)
    lines = [f"I01_01_{number:02d}.png,I01.png,3,0.1" for number in range(2, 12)]
    (tmp_path / "dmos.csv").write_text("\n".join(["dist_img,ref_img,dmos,var", *lines]))
    problems = check("kadid10k", entry_of("kadid10k", tmp_path))
    assert len(problems) == 6
    assert problems[-1] == "... and 5 more"
