"""The zoo's segmenter through its catalog entry, and the real DeepLab on photographs."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from mlclipsim.artifacts import sha256_of
from mlclipsim.images import read_image, to_tensor
from mlclipsim.machines import load
from mlclipsim.machines.builders import BUILDERS

CATALOG = yaml.safe_load(Path("config/catalog/machines.yaml").read_text())
ASSETS = Path(os.environ.get("MLCLIPSIM_ASSETS") or "assets")


def test_the_zoos_segmenter_votes_by_its_entry(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "w.safetensors"
    save_file(BUILDERS["zoo"]("segmenter", None).state_dict(), path)
    machine = load("s", CATALOG["scene-segmenter"] | {"weights": str(path), "sha256": sha256_of(path)})
    maps = machine.predict(torch.rand(2, 3, 64, 64))
    assert (maps.shape, maps.dtype) == ((2, 64, 64), np.uint8)
    assert not machine.resizes(64, 64)


@pytest.mark.assets
@pytest.mark.slow
@pytest.mark.skipif(not ASSETS.is_dir(), reason="no assets folder")
def test_deeplab_finds_people():
    """Source: the assets' README, person IoU .71 at 321 px on 100 photographs of COCO; on 12 it scatters."""
    folder = ASSETS / "data" / "coco128-val"
    machine = load("deeplab", CATALOG["deeplabv3-mobilenetv2"])
    shared = union = 0
    for mask in sorted((folder / "semantic_masks").iterdir())[:12]:
        found = machine.predict(to_tensor(read_image(folder / "images" / f"{mask.stem}.jpg"))[None])[0] == 15
        truth = np.asarray(Image.open(mask)) == 1
        shared, union = shared + (found & truth).sum(), union + (found | truth).sum()
    assert shared / union > 0.55
