"""Catalog entries of all three tasks: what loads, what is refused and in which words."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from mlclipsim import spec
from mlclipsim.artifacts import ArtifactError, sha256_of
from mlclipsim.devices import forward_passes
from mlclipsim.machines import Classifier, Segmenter, load

sys.path.insert(0, str(Path(__file__).parent))
from onnx_bytes import model

CATALOG = yaml.safe_load(Path("config/catalog/machines.yaml").read_text())
PACKAGED = [name for name, entry in CATALOG.items() if str(entry.get("weights")).startswith("package:")]
IMAGE = ["n", 3, "h", "w"]


def entry(path: Path, data: bytes, **changes) -> dict:
    path.write_bytes(data)
    base = {
        "task": "classification",
        "family": "f",
        "builder": "onnx",
        "architecture": "a",
        "weights": str(path),
        "sha256": sha256_of(path),
        "input_size": 16,
        "mean": [0.0] * 3,
        "std": [1.0] * 3,
    }
    return base | changes


def test_an_onnx_classifier_gives_what_its_graph_computes(tmp_path):
    graph = model(["GlobalAveragePool", "Flatten"], [IMAGE], ["n", 3])
    machine = load("means", entry(tmp_path / "m.onnx", graph))
    images = torch.rand(5, 3, 16, 16)
    assert isinstance(machine, Classifier)
    np.testing.assert_allclose(machine.predict(images), images.mean((2, 3)), atol=1e-6)


def test_a_batch_fixed_at_one_gets_the_images_one_by_one(tmp_path):
    graph = model(["GlobalAveragePool", "Flatten"], [[1, 3, 16, 16]], [1, 3])
    machine = load("means", entry(tmp_path / "m.onnx", graph))
    images = torch.rand(3, 3, 16, 16)
    np.testing.assert_allclose(machine.predict(images), images.mean((2, 3)), atol=1e-6)


def test_an_onnx_segmenter_labels_each_pixel(tmp_path):
    graph = model(["Identity"], [IMAGE], ["n", 3, "h", "w"])
    machine = load("argmax", entry(tmp_path / "m.onnx", graph, task="segmentation", fit="stretch"))
    assert isinstance(machine, Segmenter)
    images = torch.rand(2, 3, 16, 16)
    found = machine.predict(images)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, images.argmax(1))
    assert machine.predict(torch.rand(1, 3, 24, 40)).shape == (1, 24, 40)  # the image's size, not its own


@pytest.mark.parametrize(
    ("output", "inputs", "changes", "message"),
    [
        (["n", 3, "h", "w"], [IMAGE], {}, r"a first output \(N, classes\) for classification, got \('n', 3"),
        (["n", 3, "h", "w"], [[1, 3, 32, 32]], {"task": "segmentation", "fit": "stretch"},
         r"an input \(N, 3, 16, 16\) for segmentation, got \(1, 3, 32, 32\)"),
        (["n", 3, "h", "w"], [IMAGE], {"task": "detection", "fit": "letterbox", "output": "yolox"},
         r"a first output \(N, 5, 5 \+ classes\) for detection"),
        (["n", 3, "h", "w"], [IMAGE, IMAGE], {}, r"expected one input, got \['x', 'x1'\]"),
        (["n", 3, "h", "w"], [[4, 3, 16, 16]], {}, "expected a batch that is free or 1, got 4"),
    ],
)  # fmt: skip
def test_a_graph_with_another_input_or_output_is_refused(tmp_path, output, inputs, changes, message):
    graph = model(["Identity"], inputs, output)
    with pytest.raises(ArtifactError, match=message):
        load("odd", entry(tmp_path / "m.onnx", graph, **changes))


def test_a_damaged_graph_and_one_with_another_checksum_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match="is no ONNX graph that runs here"):
        load("odd", entry(tmp_path / "m.onnx", b"no graph"))
    with pytest.raises(ArtifactError, match=f"expected {'0' * 64}; the file is damaged or another one"):
        load("odd", entry(tmp_path / "m.onnx", b"no graph", sha256="0" * 64))


def test_onnx_without_onnxruntime_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    graph = model(["Identity"], [IMAGE], IMAGE)
    with pytest.raises(ArtifactError, match=r"onnxruntime is not installed; pip install 'mlclipsim\[suite"):
        load("odd", entry(tmp_path / "m.onnx", graph))


def test_an_onnx_detector_says_how_it_answers(tmp_path):
    graph = model(["Identity"], [IMAGE], IMAGE)
    with pytest.raises(ValueError, match="'odd': expected output yolox for an ONNX detector, got None"):
        load("odd", entry(tmp_path / "m.onnx", graph, task="detection", fit="letterbox"))


def test_fit_of_a_segmenter(tmp_path):
    graph = model(["Identity"], [IMAGE], IMAGE)
    with pytest.raises(ValueError, match="fit of a segmenter: expected whole or stretch, got 'crop'"):
        load("odd", entry(tmp_path / "m.onnx", graph, task="segmentation"))


@pytest.mark.parametrize("name", PACKAGED)
def test_packaged_networks_answer_much_the_same_in_bfloat16(name):
    machine = load(name, spec.load(planning=True).entry("machines", name))
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    single = machine.predict(images)
    with forward_passes(machine.device, "bfloat16"):
        half = machine.predict(images)
    for one, other in zip(single, half, strict=True):
        if machine.task == "segmentation":
            assert (one == other).mean() > 0.9
        elif machine.task == "classification":
            assert 0 < np.abs(one - other).max() < 0.05 * np.ptp(one)
        else:
            assert other.corners.dtype == other.scores.dtype == np.float32
            assert other.scores[:1] == pytest.approx(one.scores[:1], abs=0.05)


def test_catalog_states_the_family_of_the_backbone():
    """Source: the architectures' own papers and torchvision's names."""
    backbones = {"fcos-resnet50": "resnet", "ssd-vgg16": "vgg", "deeplabv3-mobilenetv2": "mobilenetv2",
                 "lraspp-mobilenetv3": "mobilenetv3", "yolox-nano": "cspdarknet"}  # fmt: skip
    assert {name: CATALOG[name]["family"] for name in backbones} == backbones
    assert {e["task"] for e in CATALOG.values()} == {"classification", "detection", "segmentation"}
