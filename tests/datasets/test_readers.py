"""The data sets that people or machines judged, from tiny trees in their authors' layouts."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from mlclipsim.artifacts import ArtifactError, read_table
from mlclipsim.datasets import human_images
from mlclipsim.images import decode_image, read_image
from mlclipsim.pcmp.match import psnr_db

from .judged import CATALOG, SIDE, TREES, picture


@pytest.fixture
def tree(tmp_path):
    """A function that plants the tree of a data set, and gives its catalog entry with the path there."""

    def plant(name: str) -> dict:
        TREES[name](tmp_path / name)
        return CATALOG[name] | {"path": str(tmp_path / name)}

    return plant


COCO = "000000000139"
EXPECTED = {  # image -> reference, distortion, rating
    "live": {
        "jpeg/img001": ("ocean", "jpeg", 61.5),
        "jpeg/img003": ("buildings", "jpeg", 20.25),
        "wn/img002": ("ocean", "wn", 33.0),
    },
    "csiq": {
        "1600.AWGN.2": ("1600", "noise", 0.062),
        "1600.jpeg2000.2": ("1600", "jpeg 2000", 0.5),
        "1600.BLUR.2": ("1600", "blur", 0.91),
    },
    "tid2013": {
        "i01_08_1": ("i01", "gaussian_blur", 5.51429),
        "i01_08_3": ("i01", "gaussian_blur", 3.25),
        "i02_10_1": ("i02", "jpeg", 4.1),
    },
    "kadid10k": {
        "I01_01_01": ("I01", "gaussian_blur", 4.57),
        "I01_25_05": ("I01", "contrast", 1.2),
    },
    "pipal": {
        f"{reference}_{kind}_07": (reference, kind, rating)
        for reference in ("A0001", "A0002")
        for kind, rating in (("00", 1466.8), ("01", 1301.2))
    },
    "mpd": {"a_1": ("a", "lens blur", 3.5), "a_2": ("a", "lens blur", 1.25)},
    "miqd": {
        f"ILSVRC2012_val_{reference}_{name}": (f"ILSVRC2012_val_{reference}", distortion, rating)
        for reference, rating in (("00000012", 0.5), ("00000023", 0.625))
        for name, distortion in (
            ("contrast_1", "contrast"),
            ("gaussian_noise_fg_stronger_fg5_bg3", "gaussian_noise"),
        )
    },
    **{
        part: {f"{COCO}_jpeg_compression_bg_stronger_fg2_bg5": (COCO, "jpeg_compression", 0.75)}
        for part in ("miqd-det", "miqd-ins")
    },
}


@pytest.mark.parametrize("name", EXPECTED)
def test_ratings_references_and_types(name, tree):
    opinions = human_images.load(name, tree(name))
    assert {
        image.image_id: (image.reference_id, image.distortion, image.rating) for image in opinions.images
    } == EXPECTED[name]
    assert all(path.is_file() for path in opinions.files())


@pytest.mark.parametrize("name", TREES)
def test_the_catalog_knows_which_way_ratings_point(name, tree):
    opinions = human_images.load(name, tree(name))
    kind = "2afc" if opinions.pairs else "mos" if opinions.higher_is_better else "dmos"
    assert kind == CATALOG[name]["opinions"]


def test_readers_are_those_of_the_catalog():
    ours = human_images.READERS.keys() - {"plugin"}
    assert {entry["reader"] for entry in CATALOG.values() if "opinions" in entry} == ours


def test_bapps_shares_are_of_image_a(tree):
    """judge is the share that took p1; A is p0."""
    opinions = human_images.load("bapps", tree("bapps"))
    label = {pair.pair_id: pair.label for pair in opinions.pairs}
    assert label["traditional/000000"] == 1
    assert label["frameinterp/000000"] == 0
    assert label["cnn/000000"] == pytest.approx(0.8)
    assert opinions.pairs[0].image_a == "traditional/000000/p0"
    assert all(math.isnan(image.rating) for image in opinions.images)


def test_live_refuses_matrices_that_contradict_its_folders(tree):
    entry = tree("live")
    (Path(entry["path"]) / "wn" / "info.txt").write_text("buildings.bmp img2.bmp 0.5\n")
    with pytest.raises(ArtifactError, match=r"img2\.bmp is of ocean\.bmp, info\.txt of buildings\.bmp"):
        human_images.load("live", entry)


def test_live_without_realigned_scores_takes_the_first_ones(tree):
    entry = tree("live")
    (Path(entry["path"]) / "dmos_realigned.mat").unlink()
    assert human_images.load("live", entry).images[0].rating == 62.5


def test_csiq_without_its_workbook_says_what_was_expected(tree):
    entry = tree("csiq")
    book = Path(entry["path"]) / "csiq.DMOS.xlsx"
    book.write_bytes(book.read_bytes()[:100])
    with pytest.raises(ArtifactError, match="expected a workbook with the sheet all_by_image"):
        human_images.load("csiq", entry)
    book.unlink()
    with pytest.raises(ArtifactError, match="expected a workbook with the sheet all_by_image"):
        human_images.load("csiq", entry)


@pytest.mark.parametrize(
    ("name", "file", "text", "expected"),
    [
        (
            "tid2013",
            "mos_with_names.txt",
            "5.5 I01_08_1.bmp\nx I01_08_3.bmp\n",
            "expected a table of name, mos",
        ),
        (
            "tid2013",
            "mos_with_names.txt",
            "5.5 I01_99_1.bmp\n",
            "expected a type of distortion from 1 to 24, got 99",
        ),
        ("kadid10k", "dmos.csv", "dist_img,dmos\nI01_01_01.png,1\n", "expected a table of dist_img, ref_img"),
        ("kadid10k", "dmos.csv", "dist_img,ref_img,dmos\nI01_01_01.png,I01.png,\n", "row 1 is not"),
        ("pipal", "Train_Label/A0001.txt", "A1.bmp,1400\n", "expected images named like"),
    ],
)
def test_tables_of_another_layout_are_refused(name, file, text, expected, tree):
    entry = tree(name)
    (Path(entry["path"]) / file).write_text(text)
    with pytest.raises(ArtifactError, match=expected):
        human_images.load(name, entry)


@pytest.mark.parametrize("name", TREES)
def test_without_its_table_a_data_set_is_one_sentence(name, tmp_path):
    with pytest.raises(ArtifactError, match=r"expected .* found"):
        human_images.load(name, CATALOG[name] | {"path": str(tmp_path)})


def outputs(folder: Path) -> dict[str, Path]:
    return {name: folder / f"{name}.parquet" for name in ("references", "images", "ratings", "comparisons")}


def build(name: str, entry: dict, folder: Path) -> dict[str, Path]:
    made = outputs(folder)
    human_images.build({"dataset": {"name": name, "entry": entry}, "threads": 1}, {}, made)
    return made


@pytest.mark.parametrize("name", ["live", "tid2013", "miqd"])
def test_the_step_pairs_by_name(name, tree, tmp_path):
    entry = tree(name)
    made = build(name, entry, tmp_path / "made")
    images, references = (read_table(made[key], key) for key in ("images", "references"))
    known = {image.image_id: image for image in human_images.load(name, entry).images}
    assert list(images["image_id"]) == sorted(known, key=lambda key: (known[key].reference_id, key))
    stored = references.set_index("reference_id")["image"]
    for row in images.itertuples():
        distorted, reference = known[row.image_id].distorted, known[row.image_id].reference
        np.testing.assert_array_equal(decode_image(row.image), read_image(distorted))
        np.testing.assert_array_equal(decode_image(stored[row.reference_id]), read_image(reference))
        assert row.psnr_db == pytest.approx(psnr_db(read_image(reference), read_image(distorted)))
    assert set(images["role"]) == set(references["role"]) == {name}
    ratings = read_table(made["ratings"], "ratings")
    assert dict(zip(ratings["image_id"], ratings["rating"], strict=True)) == {
        image: rating for image, (_, _, rating) in EXPECTED[name].items()
    }
    assert not len(read_table(made["comparisons"], "human_comparisons"))


def test_the_step_on_compared_pairs(tree, tmp_path):
    made = build("bapps", tree("bapps"), tmp_path / "made")
    assert len(read_table(made["images"], "images")) == 12
    assert len(read_table(made["ratings"], "ratings")) == 0
    assert len(read_table(made["comparisons"], "human_comparisons")) == 6


def test_missing_images_are_counted_and_named(tree, tmp_path):
    entry = tree("tid2013")
    (Path(entry["path"]) / "distorted_images" / "i01_08_3.bmp").unlink()
    with pytest.raises(ArtifactError, match=r"1 images are not there, e\.g\. .*I01_08_3\.bmp"):
        build("tid2013", entry, tmp_path / "made")


def test_an_image_of_another_size_than_its_reference_is_refused(tree, tmp_path):
    entry = tree("tid2013")
    picture(Path(entry["path"]) / "distorted_images" / "i01_08_3.bmp", 0, SIDE[::-1])
    with pytest.raises(ArtifactError, match="expected i01_08_3 in the size of its reference"):
        build("tid2013", entry, tmp_path / "made")
