"""The reader of images in folders and ratings in tables: what a layout can ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlclipsim.artifacts import ArtifactError
from mlclipsim.datasets import tabulated

from .judged import CATALOG, TREES


@pytest.fixture
def planted(tmp_path):
    """A function that plants a tree, and gives its entry with some of the layout changed."""

    def plant(dataset: str, **changes) -> dict:
        TREES[dataset](tmp_path)
        entry = CATALOG[dataset]
        return entry | {"path": str(tmp_path), "layout": entry["layout"] | changes}

    return plant


def references(entry: dict) -> list[str]:
    return sorted({image.reference_id[-2:] for image in tabulated.read(entry).images})


def test_only_listed_references_are_taken_and_of_these_some(planted):
    assert references(planted("miqd")) == ["12", "23"]
    assert references(planted("miqd", most_references=1)) == ["12"]
    everything = planted("miqd")
    del everything["layout"]["only"]
    assert references(everything) == ["12", "23", "31"]
    everything["layout"]["most_references"] = 2
    assert references(everything) == ["12", "23"]  # spread evenly: the first and the middle one


def test_a_list_of_other_references_is_refused(planted):
    entry = planted("miqd")
    (Path(entry["path"]) / "miqa_cls_val.csv").write_text("Image Name\nILSVRC2012_val_00000099.JPEG\n")
    with pytest.raises(ArtifactError, match="expected references of the data set in Image Name, found none"):
        tabulated.read(entry)


def test_another_column_is_another_rating(planted):
    columns = CATALOG["miqd"]["layout"]["columns"] | {"rating": "weighted_accuracy"}
    assert {image.rating for image in tabulated.read(planted("miqd", columns=columns)).images} == {0, 1}


def test_pairs_that_machines_chose_from(planted):
    where = {"table": "pairs.csv", "image_a": "first", "image_b": "second", "label": "share"}
    entry = planted("mpd", choices=where)
    table = Path(entry["path"]) / "pairs.csv"
    table.write_text("first,second,share\na_2.png,A_1.png,0.25\n")
    (pair,) = tabulated.read(entry).pairs
    assert (pair.image_a, pair.image_b, pair.label, pair.reference_id) == ("a_2", "a_1", 0.25, "a")
    table.write_text("first,second,share\na_2.png,a_1.png,25\n")
    with pytest.raises(ArtifactError, match=r"a share in \[0, 1\], got a_2.png, a_1.png, 25"):
        tabulated.read(entry)


def test_dmos_points_down(planted):
    assert tabulated.read(planted("mpd")).higher_is_better
    assert not tabulated.read(planted("mpd") | {"opinions": "dmos"}).higher_is_better


def test_a_layout_that_cannot_be_is_refused(planted):
    with pytest.raises(ValueError, match="expected a regular expression"):
        tabulated.read(planted("mpd", name="("))
    columns = {"image": "distorted", "rating": "mos"}
    with pytest.raises(ValueError, match="expected the reference in a column or in the group"):
        tabulated.read(planted("mpd", columns=columns))
    entry = planted(
        "mpd", columns=columns, name="(?P<reference>.+)_.+", references="reference/{reference}.png"
    )
    assert {image.distortion for image in tabulated.read(entry).images} == {"any"}
