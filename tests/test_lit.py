"""Locked-image tuning: the trunk stays as it was, captions find their images, a seed gives the same bytes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from mlclipsim import lit
from mlclipsim.artifacts import read_json, write_table
from mlclipsim.datasets.references import class_labels, image_files
from mlclipsim.encoders import WeightsError, build_clip, load_encoder, model_config
from mlclipsim.lit import Words

ASSETS = os.environ.get("MLCLIPSIM_ASSETS")
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 50, 220), "white": (240, 240, 240)}
NAMES = [*COLOURS, "red and green", "blue and white"]  # the last two have no photograph
CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 8,
        "vision_cfg": {"timm_model_name": "mobilenetv2_035", "timm_proj": "linear", "image_size": 32},
        "text_cfg": {"context_length": 8, "vocab_size": 8, "width": 16, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    "trunk_kwargs": {"pad_type": "same"},
}
SETTINGS = {
    "photographs": 24,
    "embed_dim": 8,
    "epochs": 12,
    "batch_size": 12,
    "learning_rate": 0.01,
    "weight_decay": 0.1,
}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Photographs of four colours, a random trunk with a classifier, and the step's arguments."""
    rng = np.random.default_rng(0)
    rows, folder = [], tmp_path / "photographs"
    folder.mkdir()
    for number in range(40):
        index = number % 4
        pixels = np.array(list(COLOURS.values())[index]) + rng.normal(0, 15, (32, 32, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"p{number:02d}.png")
        rows.append((f"p{number:02d}.png", index, NAMES[index]))
    table = pd.DataFrame(rows, columns=["filename", "class_index", "class_name"])
    table.to_csv(folder / "labels.csv", index=False)
    roles = ["zoo_train"] * 28 + ["zoo_val"] * 8 + ["pcmp_test"] * 4
    partition = pd.DataFrame({"photograph": [r[0][:-4] for r in rows], "sha256": "x", "role": roles})
    write_table(tmp_path / "partition.parquet", partition, "partition")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trunk = build_clip(CONFIG).get_submodule("visual.trunk")
        state = trunk.state_dict() | {
            "classifier.weight": torch.randn(len(NAMES), 1280) * 0.01,
            "classifier.bias": torch.zeros(len(NAMES)),
        }
    save_file(state, tmp_path / "trunk.safetensors")
    sha256 = hashlib.sha256((tmp_path / "trunk.safetensors").read_bytes()).hexdigest()
    monkeypatch.setattr(lit, "class_names", lambda: NAMES)
    monkeypatch.setattr(lit, "model_config", lambda name: {**CONFIG, "model_cfg": dict(CONFIG["model_cfg"])})
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    entry = {"model": "lit-tiny", "checkpoint": str(tmp_path / "trunk.safetensors"), "sha256": sha256}
    return {
        "spec": {
            "seed": 1,
            "threads": 1,
            "lit": SETTINGS,
            "encoder": {"name": "lit-tiny", "entry": entry},
            "references": {"size": 32, "dataset": {"path": str(folder), "labels": "labels.csv"}},
        },
        "inputs": {"partition": tmp_path / "partition.parquet"},
        "outputs": {"encoder": tmp_path / "encoder.safetensors", "report": tmp_path / "report.json"},
        "state": state,
    }


def run(world: dict[str, Any]) -> dict[str, Any]:
    lit.train(world["spec"], world["inputs"], world["outputs"])
    return read_json(world["outputs"]["report"])


def test_captions_find_their_images() -> None:
    """Clusters of features with the classifier rows of their centres; two classes have no photograph."""
    rng = torch.Generator().manual_seed(0)
    centres = torch.randn(6, 1280, generator=rng)
    classes = torch.arange(24) % 4
    features = centres[classes] + torch.randn(24, 1280, generator=rng)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        words = Words.of(NAMES)
        shape = CONFIG["model_cfg"] | {"text_cfg": CONFIG["model_cfg"]["text_cfg"] | {"context_length": 16}}
        shape["text_cfg"]["vocab_size"] = words.size
        model = build_clip(CONFIG | {"model_cfg": shape}).eval()
    captions = words.captions(NAMES)
    truth = torch.arange(30) % 6
    held_out = centres[truth] + torch.randn(30, 1280, generator=rng)
    assert lit.zero_shot(model, held_out, truth, captions)["top1"] < 0.5  # chance: 1 / 6
    lit.tune(model, features, classes, captions, centres, SETTINGS, seed=0)
    for chosen in (truth < 4, truth >= 4):
        found = lit.zero_shot(model, held_out[chosen], truth[chosen], captions)
        assert found["top1"] >= 0.8
        assert found["n"] == int(chosen.sum())


def test_report_and_random_state(world: dict[str, Any]) -> None:
    before = torch.random.get_rng_state()
    report = run(world)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert (report["n_train"], report["n_train_classes"], report["n_held_out"]) == (24, 4, 8)
    assert report["zero_shot"]["n"] == report["trunk_classifier"]["n"] == 8
    assert report["zero_shot_classes_without"] == {"n": 0}
    assert report["chance_top5"] == pytest.approx(5 / 6)
    assert report["passes"] is False  # nothing reaches 20 times chance with 6 classes


def test_the_trunk_is_locked_and_the_file_loads_by_itself(world: dict[str, Any]) -> None:
    run(world)
    encoder = load_encoder("lit-tiny", checkpoint=world["outputs"]["encoder"])
    trunk = encoder.visual.get_submodule("trunk")
    for key, value in trunk.state_dict().items():
        assert torch.equal(value, world["state"][key]), key
    assert type(trunk.conv_stem).__name__ == "Conv2dSame"
    assert encoder.mean.flatten().tolist() == [0.5] * 3
    tokens, embedding = encoder(torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert len(tokens) == 5
    assert embedding.shape == (1, 8)


def test_same_seed_same_bytes(world: dict[str, Any]) -> None:
    run(world)
    first = world["outputs"]["encoder"].read_bytes()
    torch.manual_seed(99)  # the global state must not matter
    run(world)
    assert world["outputs"]["encoder"].read_bytes() == first


def test_wrong_trunk(world: dict[str, Any]) -> None:
    entry = world["spec"]["encoder"]["entry"]
    good = dict(entry)
    entry["sha256"] = "0" * 64
    with pytest.raises(WeightsError, match="expected sha256"):
        run(world)
    entry |= {"checkpoint": "absent.safetensors"}
    with pytest.raises(WeightsError, match="found none; set MLCLIPSIM_ASSETS"):
        run(world)
    del world["state"]["conv_stem.weight"]
    save_file(world["state"], good["checkpoint"])
    entry |= {"checkpoint": good["checkpoint"], "sha256": None}
    with pytest.raises(WeightsError, match="not a checkpoint of this trunk"):
        run(world)
    assert not world["outputs"]["encoder"].exists()


def test_no_photographs(world: dict[str, Any]) -> None:
    partition = pd.DataFrame({"photograph": ["p00"], "sha256": "x", "role": "pcmp_test"})
    write_table(world["inputs"]["partition"], partition, "partition")
    with pytest.raises(ValueError, match="no photograph has the role zoo_train"):
        run(world)


def test_words() -> None:
    words = Words.of(["tench", "great white shark"])
    assert words.vocabulary == ["a", "great", "of", "photo", "shark", "tench", "white"]
    tokens = words(["a photo of a Tench!", "a zebra"])
    assert tokens.shape == (2, 16)
    assert tokens[0].tolist() == [1, 3, 6, 5, 3, 8, 10] + [0] * 9
    assert tokens[1].tolist()[:4] == [1, 3, 2, 10]  # an unknown word
    assert tokens.argmax(1).tolist() == [6, 3]  # where open_clip pools: the end
    assert words(["a " * 40]).argmax(1).item() == 15
    assert words.size == int(tokens.max()) + 1


def test_class_names_are_imagenets() -> None:
    """Spot checks against the official synset list (classes in the order of their WordNet ids)."""
    names = lit.class_names()
    assert len(names) == 1000
    assert [names[i] for i in (0, 388, 472, 705, 999)] == [
        "tench",
        "giant panda",
        "canoe",
        "passenger car",
        "toilet tissue",
    ]


@pytest.mark.slow
@pytest.mark.assets
@pytest.mark.skipif(
    ASSETS is None, reason="$MLCLIPSIM_ASSETS is not set: no photographs, no pretrained trunk"
)
def test_trunk_reads_photographs() -> None:
    """The checkpoint's own classifier on this trunk: 78.4 % on these 1300 photographs by the assets' README.

    Without pad_type='same' the strict load succeeds as well, and the accuracy falls.
    """
    folder = Path(str(ASSETS)) / "data" / "imagenet-val-1300"
    model = build_clip(model_config("lit-mobilenetv2")).eval()
    checkpoint = Path(str(ASSETS)) / "weights" / "mobilenetv2_100.tf_coral_q8.safetensors"
    head: nn.Linear = lit.load_trunk(model, checkpoint)
    files = image_files(folder)
    truth = torch.tensor([index for index, _ in class_labels(folder / "labels.csv", files).values()])
    with torch.no_grad():
        predicted = head(lit.features_of(model, list(files.values()), 224)).argmax(1)
    assert len(truth) == 1300
    assert (predicted == truth).double().mean() >= 0.77
