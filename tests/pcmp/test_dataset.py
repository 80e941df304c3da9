"""Reading PCMP back: the workflow's folders and a published one give the same frames; other readers."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mlclipsim.artifacts import ArtifactError
from mlclipsim.images import decode_image
from mlclipsim.pcmp.dataset import load

KEYS = {
    "partition": ["photograph"],
    "references": ["reference_id"],
    "images": ["image_id"],
    "pairs": ["pair_id"],
    "voters": ["voter"],
    "votes": ["pair_id", "voter"],
    "labels": ["pair_id", "fold", "group"],
}


@pytest.mark.parametrize("pixels", [False, True])
def test_a_published_folder_gives_the_frames_of_the_workflow(tables, published, pixels):
    workflow, release = (load(folder, tables=KEYS, pixels=pixels) for folder in (tables, published))
    for table, key in KEYS.items():
        one, other = (frames[table].sort_values(key, ignore_index=True) for frames in (workflow, release))
        if table == "references":
            one = one[one["role"].str.startswith("pcmp_")].reset_index(drop=True)
        pd.testing.assert_frame_equal(one, other[list(one)], obj=table)
        assert ("image" in other) == (pixels and table in ("references", "images"))


def test_predictions_come_from_the_workflow_alone(published, tmp_path):
    with pytest.raises(ArtifactError, match=r"predictions\.parquet is not in"):
        load(published, tables=["predictions"])
    assert len(load(tmp_path, published)["pairs"])  # the folder that has it


def test_pixels_that_were_left_out_are_an_error_that_says_what_to_do(publish, tmp_path):
    publish(tmp_path / "pcmp", images=False)
    assert len(load(tmp_path / "pcmp", tables=["images"])["images"])
    with pytest.raises(ArtifactError, match="pcmp verify --rebuild"):
        load(tmp_path / "pcmp", tables=["images"], pixels=True)


def test_two_lines_of_pandas_read_it(published):
    images = pd.read_parquet(published / "images-00000.parquet")
    picture = Image.open(io.BytesIO(images["image"][0]["bytes"]))
    assert picture.size == (32, 32)
    pairs = pd.read_parquet(published / "pairs.parquet")
    assert pairs["label_seen_0"].between(0, 1).all()
    assert (
        pd.read_parquet(published / "recipe.parquet")["field_seed"].dtype == "int64"
    )  # 63 bits, nothing rounded


def test_hugging_face_datasets_decodes_the_pictures(published, tmp_path):
    datasets = pytest.importorskip("datasets", reason="Hugging Face datasets is not installed")
    files = [str(path) for path in sorted(published.glob("images-*.parquet"))]
    images = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path))
    assert isinstance(images.features["image"], datasets.Image)
    stored = load(published, tables=["references"], pixels=True)["references"].set_index("reference_id")
    first = images[0]
    np.testing.assert_array_equal(
        np.asarray(first["image"].convert("RGB")), decode_image(stored.at[first["reference_id"], "image"])
    )
    pairs = datasets.load_dataset(
        "parquet", data_files=str(published / "pairs.parquet"), split="train", cache_dir=str(tmp_path)
    )
    assert len(pairs) == len(load(published)["pairs"])
