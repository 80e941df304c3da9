"""Abstention, dropped pairs, folds; inference once per image and network."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from mlclipsim import artifacts
from mlclipsim.artifacts import read_table, write_table
from mlclipsim.images import decode_batch, encode_image
from mlclipsim.machines import Classifier, Detector, Segmenter
from mlclipsim.pcmp import vote
from mlclipsim.pcmp.divergence import divergences

VOTES = {
    "divergence": "kl",
    "tie_log": 0.25,
    "epsilon": 0.01,
    "tie_bounded": 0.01,
    "min_families": 2,
    "min_votes": 3,
}
VOTERS = pd.DataFrame(
    [
        ("a1", "classification", "alpha"),
        ("a2", "classification", "alpha"),
        ("b1", "classification", "beta"),
        ("c1", "detection", "gamma"),
        ("h1", "classification", "eta"),
        ("h2", "classification", "theta"),
    ],
    columns=["voter", "task", "family"],
).assign(clean_accuracy=0.9, n_clean=10, temperature=1.0, sha256="")


@pytest.fixture
def tables(tmp_path):
    """Two pairs; on the second, three of four training voters made no prediction on image d."""
    predictions = []
    distance = {"a": 0.1, "b": 0.9, "c": 0.5, "d": 0.5}
    for voter in VOTERS["voter"]:
        for image, value in distance.items():
            missing = image == "d" and voter in ("a1", "a2", "b1")
            value = 1 - value if voter == "a2" else value
            value = np.nan if missing else value
            of_task = {"box_f1": value} if voter == "c1" else {"kl": value}
            predictions.append({"image_id": image, "voter": voter, **of_task})
    columns = artifacts.SCHEMAS["predictions"].names
    pairs = pd.DataFrame(
        [
            ("one", "r", "pcmp_test", 25.0, "a", "b", "jpeg", "contrast", True, 25.0, 25.0),
            ("two", "r", "pcmp_test", 25.0, "c", "d", "ringing", "jpeg", False, 25.0, 25.0),
        ],
        columns=[
            *("pair_id", "reference_id", "role", "target_db", "image_a", "image_b", "family_a", "family_b"),
            *("photometric", "psnr_a_db", "psnr_b_db"),
        ],
    )
    inputs = {name: tmp_path / f"{name}.parquet" for name in ("pairs", "predictions", "voters")}
    write_table(inputs["pairs"], pairs, "pairs")
    frame = pd.DataFrame(predictions, columns=columns)  # what a voter's task does not have is null
    write_table(inputs["predictions"], frame.assign(abstains=False), "predictions")
    write_table(inputs["voters"], VOTERS, "voters")
    return inputs, {name: tmp_path / f"{name}.parquet" for name in ("votes", "labels", "drops")}


FOLDS = [{"seen": ["a1", "a2", "b1", "c1"], "held_out": ["h1", "h2"]}]


def test_votes_labels_and_drops(tables):
    inputs, outputs = tables
    vote.cast({"votes": VOTES, "folds": FOLDS}, inputs, outputs)
    votes = read_table(outputs["votes"], "votes").set_index(["pair_id", "voter"])["vote"].unstack()
    assert votes.loc["one"].to_dict() == {"a1": 1, "a2": 0, "b1": 1, "c1": 1, "h1": 1, "h2": 1}
    assert votes.loc["two", ["a1", "a2", "b1"]].isna().all()  # abstained: missing, not 1/2
    assert votes.loc["two", "c1"] == 0.5
    labels = read_table(outputs["labels"], "labels").set_index(["pair_id", "group"])
    assert labels.at[("one", "seen"), "label"] == np.mean([np.mean([0.5, 1]), 1])
    assert labels.at[("one", "held_out"), "label"] == 1
    assert labels.at[("two", "held_out"), "label"] == 0.5
    assert ("two", "seen") not in labels.index
    drops = read_table(outputs["drops"], "drops")
    assert drops[["family", "cause", "count", "group"]].to_numpy().tolist() == [
        ["jpeg+ringing", "too_few_votes", 1, "seen"]
    ]


def test_a_family_on_both_sides_is_refused(tables):
    inputs, outputs = tables
    folds = [{"seen": ["a1", "b1"], "held_out": ["a2", "h1"]}]
    with pytest.raises(ValueError, match=r"folds\[0\]: expected disjoint families, but \['alpha'\]"):
        vote.cast({"votes": VOTES, "folds": folds}, inputs, outputs)


def test_a_voter_without_predictions_is_refused(tables):
    inputs, outputs = tables
    with pytest.raises(ValueError, match=r"names \['zoe'\]"):
        vote.cast({"votes": VOTES, "folds": [{"seen": ["zoe"], "held_out": []}]}, inputs, outputs)


class Counting(nn.Module):
    """A linear read-out of a 4 x 4 thumbnail that counts the images it sees."""

    def __init__(self, seed: int):
        super().__init__()
        self.read = nn.Linear(48, 5)
        generator = torch.Generator().manual_seed(seed)
        nn.init.normal_(self.read.weight, generator=generator)
        nn.init.zeros_(self.read.bias)
        self.seen = 0

    def forward(self, x):
        self.seen += len(x)
        return self.read(nn.functional.adaptive_avg_pool2d(x, 4).flatten(1))


@pytest.fixture
def predicted(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    roles = ["zoo_val"] * 6 + ["pcmp_train"] * 4 + ["zoo_train"] * 2
    stored = [encode_image(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)) for _ in range(24)]
    references = [
        (f"r{i}", "p", role, i % 5 if i != 7 else -1, "", stored[i]) for i, role in enumerate(roles)
    ]
    images = [
        (f"i{i}", f"r{6 + i % 4}", "pcmp_train", 25.0, "jpeg", False, 0.5, 25.0, 3, stored[12 + i])
        for i in range(12)
    ]
    inputs = {name: tmp_path / f"{name}.parquet" for name in ("references", "images")}
    names = {
        "references": ["reference_id", "photograph", "role", "label", "caption", "image"],
        "images": [
            *("image_id", "reference_id", "role", "target_db", "family", "photometric", "strength"),
            *("psnr_db", "evaluations", "image"),
        ],
    }
    write_table(inputs["references"], pd.DataFrame(references, columns=names["references"]), "references")
    write_table(inputs["images"], pd.DataFrame(images, columns=names["images"]), "images")
    machines = {
        name: Classifier(Counting(seed), input_size=16, resize="bicubic", mean=[0.5] * 3, std=[0.25] * 3)
        for seed, name in enumerate(["one", "two"])
    }
    monkeypatch.setattr(vote, "load", lambda name, entry: machines[name])
    spec = {
        "threads": torch.get_num_threads(),
        "batch_size": 5,
        "voters": {name: {"task": "classification", "family": name, "sha256": "x"} for name in machines},
    }
    outputs = {name: tmp_path / f"{name}.parquet" for name in ("predictions", "voters")}
    vote.predict(spec, inputs, outputs)
    return spec, inputs, outputs, machines, stored


def test_each_image_passes_each_network_once(predicted):
    *_, machines, _ = predicted
    # 10 references (zoo_train is not read) and 12 images.
    assert [machine.network.seen for machine in machines.values()] == [22, 22]


def test_predictions_are_divergences_from_the_own_reference(predicted):
    _, _, outputs, machines, stored = predicted
    table = read_table(outputs["predictions"], "predictions")
    voters = read_table(outputs["voters"], "voters").set_index("voter")
    assert len(table) == 24
    machine = machines["two"]
    x, y = (machine(decode_batch(pd.Series([stored[i]]))).detach().numpy() for i in (6 + 5 % 4, 12 + 5))
    row = table[(table["image_id"] == "i5") & (table["voter"] == "two")].iloc[0]
    for kind, value in divergences(x, y, voters.at["two", "temperature"]).items():
        assert row[kind] == pytest.approx(value[0], rel=1e-4, abs=1e-6)
    assert row["correct"] is None or pd.isna(row["correct"])  # r7 has no ground truth
    known = table[table["image_id"] == "i0"]
    assert known["correct"].notna().all()
    assert voters["n_clean"].tolist() == [9, 9]


def test_predicting_twice_gives_the_same_bytes_and_other_batches_nearly(predicted, tmp_path):
    spec, inputs, outputs, _, _ = predicted
    again = {name: tmp_path / f"again-{name}.parquet" for name in outputs}
    vote.predict(spec, inputs, again)
    for name in outputs:
        assert again[name].read_bytes() == outputs[name].read_bytes()
    vote.predict(spec | {"batch_size": 7}, inputs, again)
    one, other = (
        read_table(o["predictions"], "predictions").sort_values(["image_id", "voter"])
        for o in (outputs, again)
    )
    np.testing.assert_allclose(one["kl"], other["kl"], rtol=1e-4, atol=1e-6)


def test_bfloat16_moves_predictions_a_little(predicted, tmp_path):
    spec, inputs, outputs, _, _ = predicted
    again = {name: tmp_path / f"again-{name}.parquet" for name in outputs}
    vote.predict(spec | {"precision": "bfloat16"}, inputs, again)
    one, other = (read_table(o["predictions"], "predictions") for o in (outputs, again))
    assert 0 < (one["logit_cosine"] - other["logit_cosine"]).abs().max() < 0.02
    pd.testing.assert_series_equal(one["psnr_seen_db"], other["psnr_seen_db"])  # images are not rounded


def test_images_of_several_sizes_with_temperatures_from_elsewhere(predicted, tmp_path):
    """As of photographs that people judged: no labels to calibrate on, and references differ in size."""
    spec, inputs, outputs, machines, _ = predicted
    rng = np.random.default_rng(1)
    sizes = {"r1": (16, 24), "r2": (24, 16), "r3": (16, 24)}
    pixels = {
        name: [encode_image(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for _ in range(3)]
        for name, size in sizes.items()
    }
    references = read_table(inputs["references"], "references").iloc[:3]
    references = references.assign(reference_id=list(sizes), label=-1, image=[x[0] for x in pixels.values()])
    images = read_table(inputs["images"], "images").iloc[:6]
    images = images.assign(
        image_id=[f"{name}-{n}" for name in sizes for n in (1, 2)],
        reference_id=[name for name in sizes for _ in (1, 2)],
        image=[x[n] for x in pixels.values() for n in (1, 2)],
    )
    other = {name: tmp_path / f"other-{name}.parquet" for name in ("references", "images", "predictions")}
    write_table(other["references"], references, "references")
    write_table(other["images"], images, "images")
    vote.predict(spec, other | {"calibrated": outputs["voters"]}, {"predictions": other["predictions"]})
    table = read_table(other["predictions"], "predictions").set_index(["image_id", "voter"])
    temperature = read_table(outputs["voters"], "voters").set_index("voter")["temperature"]
    for name, stored in pixels.items():
        x, y = (machines["one"].predict(decode_batch([stored[place]])) for place in (0, 2))
        expected = divergences(x, y, temperature["one"])["kl"][0]
        assert table.at[(f"{name}-2", "one"), "kl"] == pytest.approx(expected, rel=1e-4, abs=1e-6)
    write_table(tmp_path / "fewer.parquet", VOTERS, "voters")
    with pytest.raises(artifacts.ArtifactError, match="expected every voter"):
        vote.predict(spec, other | {"calibrated": tmp_path / "fewer.parquet"}, other)


def test_classifiers_are_not_left_uncalibrated(predicted, tmp_path):
    spec, inputs, outputs, _, _ = predicted
    unlabelled = read_table(inputs["references"], "references").assign(label=-1).astype({"label": "int32"})
    write_table(tmp_path / "unlabelled.parquet", unlabelled, "references")
    with pytest.raises(ValueError, match="expected labelled clean images to calibrate a voter on, got none"):
        vote.predict(spec, inputs | {"references": tmp_path / "unlabelled.parquet"}, outputs)


class Bright(nn.Module):
    """A detector that finds one box where the upper left pixel is bright; counts the images."""

    def __init__(self):
        super().__init__()
        self.seen = 0

    def forward(self, images):
        self.seen += len(images)
        return [
            {
                "boxes": torch.tensor([[0.0, 0.0, 8.0, 8.0]]),
                "scores": image[0, :1, 0].clamp(max=0.95),
                "labels": torch.tensor([1]),
            }
            for image in images
        ]


class Threshold(nn.Module):
    """A segmenter: class 1 where red exceeds one half; counts the images."""

    def __init__(self):
        super().__init__()
        self.seen = 0

    def forward(self, images):
        self.seen += len(images)
        return {"out": torch.cat([torch.full_like(images[:, :1], 0.5), images[:, :1]], dim=1)}


@pytest.fixture
def three_tasks(predicted, tmp_path, monkeypatch):
    """A classifier that reads 8 px, a detector and a segmenter, on bright, dark and mixed images."""
    plain = {"resize": "bilinear", "mean": [0.0] * 3, "std": [1.0] * 3}
    machines = {
        "one": Classifier(Counting(0), input_size=8, **plain),
        "box": Detector(Bright(), input_size=16, fit="stretch", **plain),
        "map": Segmenter(Threshold(), input_size=16, fit="stretch", **plain),
    }
    _, inputs, *_ = predicted
    references = read_table(inputs["references"], "references")
    images = read_table(inputs["images"], "images")
    mixed = np.zeros((16, 16, 3), np.uint8)
    mixed[:, 4:] = 200  # dark where the detector looks
    bright, dark = np.full_like(mixed, 200), np.zeros_like(mixed)
    here = references["role"] == "pcmp_train"  # r6 .. r9
    references.loc[here, "image"] = [encode_image(p) for p in (bright, dark, mixed, bright)]
    images["image"] = [encode_image((bright, dark, mixed)[i // 4]) for i in range(12)]
    paths = {name: tmp_path / f"three-{name}.parquet" for name in ("references", "images")}
    write_table(paths["references"], references, "references")
    write_table(paths["images"], images, "images")
    monkeypatch.setattr(vote, "load", lambda name, entry: machines[name])
    spec = {
        "threads": torch.get_num_threads(),
        "batch_size": 5,
        "voters": {name: {"task": m.task, "family": name, "sha256": "x"} for name, m in machines.items()},
    }
    outputs = {name: tmp_path / f"three-{name}.parquet" for name in ("predictions", "voters")}
    vote.predict(spec, paths, outputs)
    table = read_table(outputs["predictions"], "predictions").set_index(["voter", "image_id"])
    return table, read_table(outputs["voters"], "voters").set_index("voter"), machines


def test_three_tasks_each_image_once(three_tasks):
    *_, machines = three_tasks
    assert [machine.network.seen for machine in machines.values()] == [22, 22, 22]


def test_detectors_and_segmenters_abstain_where_their_reference_is_empty(three_tasks):
    table, voters, _ = three_tasks
    # image i belongs to reference r(6 + i % 4): bright, dark, mixed, bright
    blind = {name: [bool(table.at[(name, f"i{i}"), "abstains"]) for i in range(4)] for name in voters.index}
    assert blind == {
        "one": [False, False, False, False],
        "box": [False, True, True, False],
        "map": [False, True, False, False],
    }
    assert table.loc["box", "box_f1"][["i0", "i4", "i8"]].tolist() == [0, 1, 1]  # bright, dark, mixed
    assert table.loc["map", "mean_iou"][["i0", "i4"]].tolist() == [0, 1]
    # mixed against bright: background 0 of 64 pixels, class 1 192 of 256
    assert table.at[("map", "i8"), "mean_iou"] == pytest.approx(1 - (0 + 0.75) / 2)
    assert table.loc["box", "box_f1"].isna().tolist() == table.loc["box", "abstains"].tolist()
    assert table.loc["box", ["kl", "mean_iou", "correct"]].isna().all(axis=None)
    assert voters.loc["box", ["clean_accuracy", "temperature"]].isna().all()
    assert voters.at["box", "n_clean"] == 0


def test_psnr_after_preprocessing(three_tasks):
    table, *_ = three_tasks
    assert (table.loc["box", "psnr_seen_db"] == 25.0).all()  # it reads the stored size: as stored
    # The classifier reads 8 px: i4 is dark, its reference bright, at any size.
    expected = 10 * np.log10(255**2 / 200**2)
    assert table.at[("one", "i4"), "psnr_seen_db"] == pytest.approx(expected, abs=1e-4)
    assert table.at[("one", "i0"), "psnr_seen_db"] == np.inf
