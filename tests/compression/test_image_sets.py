"""Mosaics, and what is known of the images that are coded."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mlclipsim.artifacts import ArtifactError, write_table
from mlclipsim.compression.image_sets import IGNORED, ImageSet, join, load_set, split
from mlclipsim.images import encode_image
from mlclipsim.world.scenes import SHAPES

SCENES = {"source": "scenes", "entry": {"reader": "scenes"}, "count": 4, "columns": 2, "references": True}


def test_mosaics_come_apart_as_they_were():
    images = [np.full((8, 16, 3), value, np.uint8) for value in range(8)]
    mosaics = join(images, 2)
    assert [mosaic.shape for mosaic in mosaics] == [(16, 32, 3)] * 2
    assert mosaics[1][8, 16, 0] == 7  # row by row
    for image, again in zip(images, split(mosaics, 2), strict=True):
        np.testing.assert_array_equal(image, again)
    with pytest.raises(ValueError, match="multiple of 9 images, got 8"):
        join(images, 3)


def test_each_image_knows_what_it_was_coded_in():
    images = [np.full((8, 8, 3), value, np.uint8) for value in range(8)]
    mosaics = ImageSet("a", [str(i) for i in range(8)], images, columns=2)
    assert mosaics.unit_ids() == ["mosaic-000"] * 4 + ["mosaic-001"] * 4
    assert [name for name, _ in mosaics.units()] == ["mosaic-000", "mosaic-001"]
    alone = ImageSet("a", ["x", "y"], images[:2])
    assert alone.unit_ids() == ["x", "y"]
    assert alone.apart([image for _, image in alone.units()])[1] is images[1]


def test_scenes_know_classes_boxes_and_masks():
    scenes = load_set(SCENES, 5, None)
    again = load_set(SCENES, 5, None)
    assert all((a == b).all() for a, b in zip(scenes.images, again.images, strict=True))
    for label, boxes, mask in zip(*(scenes.truth[task] for task in scenes.truth), strict=True):
        assert 0 <= label < len(SHAPES)
        assert boxes.labels[0] == label  # the largest object names the scene
        left, top, right, bottom = boxes.corners[0].astype(int)
        inside = mask[top:bottom, left:right] == label + 1
        assert inside.any(axis=0).all()
        assert inside.any(axis=1).all()


def test_references_of_the_role_alone(tmp_path):
    image = encode_image(np.zeros((16, 16, 3), np.uint8))
    table = pd.DataFrame(
        {
            "reference_id": ["a", "b", "c"],
            "photograph": ["a", "b", "c"],
            "role": ["pcmp_test", "rate_task_test", "rate_task_test"],
            "label": [1, 2, -1],
            "caption": None,
            "image": [image] * 3,
        }
    )
    write_table(tmp_path / "references.parquet", table, "references")
    settings = {
        "source": "x",
        "entry": {"reader": "photographs"},
        "count": None,
        "columns": 1,
        "references": True,
    }
    found = load_set(settings, 0, tmp_path / "references.parquet")
    assert found.ids == ["b", "c"]
    assert found.truth["classification"] == [2, None]
    with pytest.raises(ArtifactError, match="expected 3 images to code, found 2"):
        load_set(settings | {"count": 3}, 0, tmp_path / "references.parquet")


def test_a_folder_with_annotations_of_coco(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "semantic_masks").mkdir()
    for name in ("one", "two"):
        Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "images" / f"{name}.png")
    mask = np.zeros((20, 30), np.uint8)
    mask[:, 10:20], mask[:, 20:] = (
        1,
        92,
    )  # a person, which is VOC's class 15, and something of no class of VOC's
    Image.fromarray(mask).save(tmp_path / "semantic_masks" / "one.png")
    annotations = {
        "images": [{"id": 7, "file_name": "two.png"}, {"id": 8, "file_name": "one.png"}],
        "categories": [{"id": 1, "name": "person"}, {"id": 13, "name": "stop sign"}],
        "annotations": [{"image_id": 7, "category_id": 13, "bbox": [2, 3, 10, 5]}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(annotations))
    settings = {
        "source": "coco",
        "entry": {"reader": "photographs", "path": str(tmp_path)},
        "count": None,
        "columns": 1,
        "references": False,
    }
    found = load_set(settings, 0, None)
    assert found.ids == ["one", "two"]
    none, box = found.truth["detection"]
    assert len(none) == 0
    np.testing.assert_array_equal(box.corners, [[2, 3, 12, 8]])
    assert box.labels.tolist() == [1]
    classes, unknown = found.truth["segmentation"]
    assert unknown is None
    assert [classes[0, 0], classes[0, 15], classes[0, 25]] == [IGNORED, 15, 0]
