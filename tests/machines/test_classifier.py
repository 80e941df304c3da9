"""Machines from the catalog: verified, strict, preprocessing inside; the real ones reach their accuracy."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from mlclipsim.artifacts import ArtifactError, sha256_of
from mlclipsim.datasets.references import square
from mlclipsim.images import read_image, to_tensor
from mlclipsim.machines import Classifier, load
from mlclipsim.machines.builders import BUILDERS

CATALOG = yaml.safe_load(Path("config/catalog/machines.yaml").read_text())
ASSETS = Path(os.environ.get("MLCLIPSIM_ASSETS") or "assets")


def entry(path: Path, **changes) -> dict:
    base = {
        "task": "classification",
        "family": "squeezenet",
        "builder": "torchvision",
        "architecture": "squeezenet1_1",
        "arguments": {"num_classes": 7},
        "weights": str(path),
        "sha256": sha256_of(path) if path.is_file() else "0" * 64,
        "input_size": 48,
        "resize": "bicubic",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
        "world": "test",
    }
    return base | changes


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    network = BUILDERS["torchvision"]("squeezenet1_1", None, num_classes=7)
    path = tmp_path_factory.mktemp("weights") / "squeezenet.safetensors"
    save_file({key: value.half() for key, value in network.state_dict().items()}, path)
    return path


def test_half_precision_weights_are_evaluated_in_float32(weights):
    machine = load("test", entry(weights))
    logits = machine(torch.rand(2, 3, 48, 48))
    assert logits.shape == (2, 7)
    assert logits.dtype == torch.float32
    assert not machine.training
    assert not any(p.requires_grad for p in machine.parameters())


def test_normalisation_and_resize_are_inside():
    machine = Classifier(
        nn.Identity(), input_size=32, resize="bicubic", mean=[0.2, 0.4, 0.6], std=[0.5, 0.25, 0.1]
    )
    image = torch.full((1, 3, 64, 80), 0.6)
    out = machine(image)
    assert out.shape == (1, 3, 32, 32)
    torch.testing.assert_close(out.mean((0, 2, 3)), torch.tensor([0.8, 0.8, 0.0]), atol=1e-5, rtol=0)
    same = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(machine.preprocess(same), same, rtol=0, atol=0)
    bilinear = Classifier(nn.Identity(), input_size=32, resize="bilinear", mean=[0.0] * 3, std=[1.0] * 3)
    torch.testing.assert_close(bilinear(image), torch.full((1, 3, 32, 32), 0.6))


def test_another_checksum_is_refused(weights):
    with pytest.raises(ArtifactError, match=f"has sha256 {sha256_of(weights)}, expected {'f' * 64}"):
        load("test", entry(weights, sha256="f" * 64))


def test_a_file_without_a_checksum_is_refused(weights):
    with pytest.raises(ArtifactError, match="no sha256"):
        load("test", entry(weights, sha256=None))


def test_damaged_weights_are_refused(weights, tmp_path):
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ArtifactError, match="does not fit the architecture"):
        load("test", entry(path))


def test_weights_of_another_architecture_are_refused(weights):
    with pytest.raises(ArtifactError, match="does not fit the architecture"):
        load("test", entry(weights, arguments={"num_classes": 8}))


def test_missing_weights(tmp_path):
    with pytest.raises(ArtifactError, match="are not there"):
        load("test", entry(tmp_path / "none.safetensors"))


def test_unknown_builder_and_other_tasks(weights):
    with pytest.raises(ValueError, match="builder 'keras' is unknown, expected one of zoo, timm"):
        load("test", entry(weights, builder="keras"))
    with pytest.raises(ValueError, match="task 'captioning' is unknown, expected one of classification, det"):
        load("test", entry(weights, task="captioning"))
    with pytest.raises(ValueError, match=r"'test': fit of a detector: expected whole, .* got 'crop'"):
        load("test", entry(weights, task="detection"))


@pytest.mark.parametrize("name", [n for n, e in CATALOG.items() if e["builder"].startswith("timm_")])
def test_the_special_builders_fit_their_catalog_entries(name):
    network = BUILDERS[CATALOG[name]["builder"]](
        CATALOG[name]["architecture"], None, **CATALOG[name]["arguments"]
    )
    with torch.inference_mode():
        assert network.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)


# Top-1 on all 1300 photographs, from the assets' README. On 150 of them the standard error is 3 to 4 points.
PUBLISHED = {"mobilenetv1-025": 0.635, "squeezenet1-1": 0.698, "mcunet": 0.741, "mobilenetv3-minimal": 0.781}


@pytest.mark.assets
@pytest.mark.slow
@pytest.mark.skipif(not ASSETS.is_dir(), reason="no assets folder")
@pytest.mark.parametrize("name", PUBLISHED)
def test_real_voters_read_real_photographs(name):
    folder = ASSETS / "data" / "imagenet-val-1300"
    table = pd.read_csv(folder / "labels.csv").iloc[::9][:144]
    images = np.stack([square(read_image(folder / "images" / f), 224) for f in table["filename"]])
    machine = load(name, CATALOG[name])
    with torch.inference_mode():
        found = np.concatenate([machine(to_tensor(batch)).argmax(1).numpy() for batch in np.split(images, 9)])
    assert abs((found == table["class_index"].to_numpy()).mean() - PUBLISHED[name]) < 0.11
