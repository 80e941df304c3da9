"""YOLOX's raw output decoded by hand, preprocessing and way back, and the real one on photographs."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from mlclipsim.artifacts import sha256_of
from mlclipsim.images import read_image, to_tensor
from mlclipsim.machines import Detector, load
from mlclipsim.machines.builders import BUILDERS
from mlclipsim.machines.detector import decode_yolox, yolox_rows

CATALOG = yaml.safe_load(Path("config/catalog/machines.yaml").read_text())
ASSETS = Path(os.environ.get("MLCLIPSIM_ASSETS") or "assets")
PLAIN = {"mean": [0.0] * 3, "std": [1.0] * 3, "resize": "bilinear"}


def cells(*rows: tuple[int, list[float]], size: int = 32) -> torch.Tensor:
    raw = torch.zeros(yolox_rows(size), 8)
    for place, row in rows:
        raw[place] = torch.tensor(row)
    return raw


def test_rows_of_yolox():
    assert yolox_rows(416) == 52**2 + 26**2 + 13**2 == 3549  # its published ONNX files


def test_yolox_cells_by_hand():
    # 32 px: 4 x 4 cells of stride 8 (rows 0-15), 2 x 2 of stride 16 (16-19), one of stride 32 (20).
    raw = cells(
        (6, [0.5, 0.25, 0.0, math.log(2), 0.8, 0.1, 0.9, 0.0]),  # x 2, y 1 at stride 8
        (17, [-0.5, 0.5, math.log(0.5), 0.0, 0.5, 0.9, 0.0, 0.0]),  # x 1, y 0 at stride 16
    )
    corners, scores, labels = decode_yolox(raw, 32)
    # centre ((2 + .5) 8, (1 + .25) 8) = (20, 10), size (8, 16); centre (8, 8), size (8, 16)
    torch.testing.assert_close(corners, torch.tensor([[16.0, 2, 24, 18], [4, 0, 12, 16]]))
    torch.testing.assert_close(scores, torch.tensor([0.72, 0.45]))
    assert labels.tolist() == [1, 0]


def test_nms_suppresses_within_a_class_only():
    same = [0.5, 0.5, math.log(2), math.log(2)]
    raw = cells(
        (0, [*same, 0.9, 1, 0, 0]),
        (1, [-0.5, *same[1:], 0.8, 1, 0, 0]),
        (4, [*same[:1], -0.5, *same[2:], 0.7, 0, 1, 0]),
    )
    corners, scores, labels = decode_yolox(raw, 32)  # three times the same box
    torch.testing.assert_close(scores, torch.tensor([0.9, 0.7]))
    assert labels.tolist() == [0, 1]
    torch.testing.assert_close(corners[0], corners[1])


def test_another_number_of_cells():
    with pytest.raises(ValueError, match="expected 21 cells at 32 px, got 20"):
        decode_yolox(torch.zeros(20, 8), 32)


class Echo(nn.Module):
    """Answers each image with one box that covers the input's upper left quarter; keeps what it was given."""

    def forward(self, images):
        self.given = images
        box = torch.tensor([[0.0, 0.0, images[0].shape[-1] / 2, images[0].shape[-2] / 2]])
        return [{"boxes": box, "scores": torch.tensor([0.9]), "labels": torch.tensor([3])} for _ in images]


@pytest.mark.parametrize(
    ("fit", "given", "corners"),
    [
        ("stretch", (32, 32), [0, 0, 20, 12]),
        ("whole", (32, 53), [0, 0, 20, 12]),
        ("letterbox", (32, 32), [0, 0, 20, 16 / 19 * 24]),  # 19 rows of 24 x 32 / 40, the rest is grey
    ],
)
def test_boxes_come_back_in_pixels_of_the_image(fit, given, corners):
    echo = Echo()
    machine = Detector(echo, input_size=32, fit=fit, **PLAIN)
    (found,) = machine.predict(torch.rand(1, 3, 24, 40))
    assert echo.given[0].shape[-2:] == given
    np.testing.assert_allclose(found.corners, [corners], rtol=1e-5)
    assert (found.scores.tolist(), found.labels.tolist()) == ([pytest.approx(0.9)], [3])
    assert len(found.above(0.95)) == 0


def test_letterbox_is_yoloxs():
    """BGR in 0..255, at the top left of grey 114 (Megvii-BaseDetection/YOLOX, data_augment.preproc)."""
    echo = Echo()
    entry = CATALOG["yolox-nano"]
    keys = ("fit", "resize", "channels", "mean", "std")
    machine = Detector(echo, input_size=32, **{key: entry[key] for key in keys})
    image = torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1).expand(1, 3, 16, 32)
    machine.predict(image)
    torch.testing.assert_close(echo.given[0][:, 5, 5], torch.tensor([0.0, 127.5, 255.0]))
    torch.testing.assert_close(echo.given[0][:, 20, 5], torch.full((3,), 114.0))


def test_the_zoos_detector_votes_by_its_entry(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "w.safetensors"
    save_file(BUILDERS["zoo"]("detector", None).state_dict(), path)
    machine = load("d", CATALOG["scene-detector"] | {"weights": str(path), "sha256": sha256_of(path)})
    found = machine.predict(torch.rand(2, 3, 64, 64))
    assert len(found) == 2
    assert all(boxes.corners.shape == (len(boxes), 4) for boxes in found)


@pytest.mark.assets
@pytest.mark.slow
@pytest.mark.skipif(not ASSETS.is_dir(), reason="no assets folder")
def test_yolox_nano_reaches_its_published_accuracy(capsys):
    """Source: the assets' README, mAP50 .521 on the first 64 photographs (pycocotools); .517 when written."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    folder = ASSETS / "data" / "coco128-val"
    truth = COCO(str(folder / "instances.json"))
    category = {
        c["yolo_index"]: c["id"] for c in json.loads((folder / "instances.json").read_text())["categories"]
    }
    machine = load("yolox-nano", CATALOG["yolox-nano"])
    ids = sorted(truth.getImgIds())[:64]
    rows = []
    for image in ids:
        path = folder / "images" / truth.loadImgs(image)[0]["file_name"]
        (found,) = machine.predict(to_tensor(read_image(path))[None])
        for corners, score, label in zip(found.corners.tolist(), found.scores, found.labels, strict=True):
            left, top, right, bottom = corners
            rows.append({"image_id": image, "category_id": category[int(label)], "score": float(score),
                         "bbox": [left, top, right - left, bottom - top]})  # fmt: skip
    judged = COCOeval(truth, truth.loadRes(rows), "bbox")
    judged.params.imgIds = ids
    judged.evaluate()
    judged.accumulate()
    judged.summarize()
    assert judged.stats[1] == pytest.approx(0.521, abs=0.01)
