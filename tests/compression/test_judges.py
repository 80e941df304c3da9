"""Consistency by hand, in every task, and who is a judge."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from mlclipsim import spec
from mlclipsim.artifacts import ArtifactError, write_table
from mlclipsim.compression.judges import Judge, consistency, load_judges
from mlclipsim.images import to_tensor
from mlclipsim.machines import load
from mlclipsim.machines.detector import Boxes


class Reader:
    """Stands for a machine: its logits are the mean colour of an image."""

    task = "classification"

    def __init__(self) -> None:
        self.batches: list[int] = []

    def answers(self, images: Tensor) -> list[np.ndarray]:
        self.batches.append(len(images))
        return list(images.mean(dim=(2, 3)).numpy())


def test_a_classifier_by_hand():
    original, decoded = np.log([[0.5, 0.5], [0.9, 0.1]]), np.log([[0.5, 0.5], [0.1, 0.9]])
    found = consistency("classification", original, decoded)
    divergence = 0.8 * np.log(9)  # .9 ln(.9 / .1) + .1 ln(.1 / .9)
    np.testing.assert_allclose(found["score"], [1, np.exp(-divergence)])
    assert list(found["top1"]) == [1, 0]


def test_the_temperature_enters():
    logits = [np.array([2.0, 0.0])], [np.array([0.0, 2.0])]
    cold, warm = (consistency("classification", *logits, t)["score"].item() for t in (1.0, 10.0))
    assert cold < 0.3 < 0.98 < warm


def test_detectors_and_segmenters_abstain_where_the_original_holds_nothing():
    box = Boxes(np.array([[0.0, 0, 10, 10]]), np.array([0.9]), np.array([1]))
    none = Boxes(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
    found = consistency("detection", [box, box, none], [box, none, box])["score"]
    np.testing.assert_array_equal(found, [1, 0, np.nan])
    empty, full = np.zeros((4, 4), np.uint8), np.ones((4, 4), np.uint8)
    half = np.repeat(np.array([0, 1], np.uint8), 8).reshape(4, 4)
    found = consistency("segmentation", [full, full, empty], [full, half, full])
    np.testing.assert_array_equal(found["score"], [1, 0.25, np.nan])  # of the two classes: 0 and 1/2
    assert found["top1"].isna().all()


def test_the_originals_are_read_once_and_in_batches_of_one_size():
    images = [np.full((16, 16, 3), value, np.uint8) for value in range(5)]
    images.insert(3, np.zeros((16, 32, 3), np.uint8))
    machine = Reader()
    judge = Judge("reader", machine, 1.0, images, batch_size=2)
    assert machine.batches == [2, 1, 1, 2]
    assert (judge.consistency(judge.predict(images))["score"] == 1).all()
    assert len(machine.batches) == 8


def test_judges_are_those_of_the_config_and_read_as_their_machines(tmp_path):
    plan = spec.load({})
    names = ["scene-repvgg", "scene-vovnet", "scene-detector"]
    entries = {name: plan.entry("machines", name) for name in names}
    voters = pd.DataFrame(
        {
            "voter": names,
            "task": ["classification"] * 2 + ["detection"],
            "family": "any",
            "clean_accuracy": 0.9,
            "n_clean": 10,
            "temperature": [1.5, 0.7, np.nan],
            "sha256": "",
        }
    )
    write_table(tmp_path / "voters.parquet", voters, "voters")
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    read = load_judges(entries, tmp_path / "voters.parquet", [image], 8, ["classification"])
    assert [judge.name for judge in read] == names[:2]
    logits = load(names[0], entries[names[0]]).predict(to_tensor(image)[None])
    torch.testing.assert_close(torch.tensor(read[0].originals[0]), torch.tensor(logits[0]))
    write_table(tmp_path / "few.parquet", voters.iloc[1:], "voters")
    with pytest.raises(ArtifactError, match="temperature of the judge 'scene-repvgg'"):
        load_judges(entries, tmp_path / "few.parquet", [image], 8, ["classification"])
