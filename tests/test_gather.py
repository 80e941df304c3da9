"""What shards made, put together: the bytes of one job, and a part that is not sound is named."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from mlclipsim import baselines, provenance, similarities, spec
from mlclipsim.artifacts import (
    SCHEMAS,
    ArtifactError,
    read_json,
    read_table,
    row_group_sizes,
    write_json,
    write_table,
)
from mlclipsim.gather import gather
from mlclipsim.images import encode_image
from mlclipsim.machines import Classifier
from mlclipsim.pcmp import build, vote
from mlclipsim.shards import RECORD, Shard, names
from mlclipsim.steps import STEPS

N_REFERENCES = 40  # three row groups of images
PCMP = {
    "families": ["gaussian_noise", "contrast", "jpeg"],
    "targets_db": [25.0],
    "families_per_block": 3,
    "tolerance_db": 0.05,
    "pair_tolerance_db": 0.1,
}
VOTES = {"divergence": "kl", "tie_log": 0.25, "epsilon": 0.01, "tie_bounded": 0.01}
VOTERS = ["ada", "bob", "cyd", "dan"]
ENCODER = """{"embed_dim": 16,
 "vision_cfg": {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 32},
 "text_cfg": {"context_length": 8, "vocab_size": 32, "width": 16, "heads": 2, "layers": 1}}"""
SPECS: dict[str, dict[str, Any]] = {
    "pcmp_images": {"seed": 5, "threads": 1, "pcmp": PCMP},
    "pcmp_pairs": {"seed": 5, "threads": 1, "pcmp": PCMP},
    "predictions": {
        "threads": 1,
        "batch_size": 7,
        "voters": {name: {"task": "classification", "family": name} for name in VOTERS},
    },
    "votes": {
        "votes": VOTES | {"min_families": 1, "min_votes": 1},
        "folds": [{"seen": VOTERS[:2], "held_out": VOTERS[2:]}],
    },
    "baselines": {
        "metrics": {"psnr": spec.load(planning=True).metric("psnr")},
        "roles": ["pcmp_test"],
        "batch_size": 4,
        "threads": 1,
    },
    "channel_similarities": {
        "encoder": {
            "name": "tiny",
            "entry": {"source": "untrained", "model": "tiny", "family": "vit", "seed": 3},
        },
        "batch_size": 4,
        "threads": 1,
    },
}
FUNCTIONS = {
    "pcmp_images": build.distort,
    "pcmp_pairs": build.pair,
    "predictions": vote.predict,
    "votes": vote.cast,
    "baselines": baselines.score,
    "channel_similarities": similarities.build,
}
READS = {
    "pcmp_images": {"references": "references"},
    "pcmp_pairs": {"images": "images", "drops_in": "pcmp_images/drops"},
    "predictions": {"references": "references", "images": "images"},
    "votes": {
        "pairs": "pcmp_pairs/pairs",
        "predictions": "predictions/predictions",
        "voters": "predictions/voters",
    },
    "baselines": {"references": "references", "images": "images"},
    "channel_similarities": {"references": "references", "images": "images"},
}


def references() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    ids = [f"r{number:02d}" for number in range(N_REFERENCES)]
    coarse = rng.integers(60, 190, (N_REFERENCES, 8, 8, 3), dtype=np.uint8)
    return pd.DataFrame(
        {
            "reference_id": ids,
            "photograph": ids,
            "role": ["pcmp_train"] * 20 + ["pcmp_test"] * 20,
            "label": [number % 5 for number in range(N_REFERENCES)],
            "caption": "",
            "image": [encode_image(image.repeat(4, 0).repeat(4, 1)) for image in coarse],
        }
    )


def machine(name: str) -> Classifier:
    """Logits that are linear in a thumbnail, drawn by name."""
    read = nn.Linear(48, 5)
    nn.init.normal_(read.weight, generator=torch.Generator().manual_seed(VOTERS.index(name)))
    nn.init.zeros_(read.bias)
    network = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), read)
    return Classifier(network, input_size=32, resize="bicubic", mean=[0.5] * 3, std=[0.25] * 3)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Every step done by one job, in a folder each."""
    root = tmp_path_factory.mktemp("whole")
    (root / "models").mkdir()
    (root / "models" / "tiny.json").write_text(ENCODER)
    write_table(root / "references.parquet", references(), "references")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mlclipsim.encoders.PACKAGED", root)
        patch.setattr(torch, "set_num_threads", lambda n: None)  # global: not a test's to change
        patch.setattr(vote, "load", lambda name, entry: machine(name))
        for step in SPECS:
            (root / step).mkdir()
            FUNCTIONS[step](SPECS[step], inputs(root, step), outputs(root / step, step))
            if step == "pcmp_images":
                (root / "images.parquet").symlink_to(root / step / "images.parquet")
        yield root


def inputs(root: Path, step: str) -> dict[str, Path]:
    return {name: root / f"{path}.parquet" for name, path in READS[step].items()}


def outputs(folder: Path, step: str) -> dict[str, Path]:
    return {name: folder / f"{name}.parquet" for name in STEPS[step].shards}


def make(root: Path, folder: Path, step: str, shard: str) -> Path:
    """One part, with the least that its record must say."""
    part, read = folder / shard, inputs(root, step)
    if step == "predictions":
        read["calibrated"] = folder / "calibrated.parquet"
        if not read["calibrated"].exists():
            vote.calibrate(SPECS[step], read, {"calibrated": read["calibrated"]})
    FUNCTIONS[step](SPECS[step], read, outputs(part, step), Shard.parse(shard))
    write_record(part, step)
    return part


def write_record(part: Path, step: str) -> None:
    made_from = {"step": step, "spec_sha256": provenance.digest(SPECS[step])}
    made_from |= {"outputs": provenance.hashes(outputs(part, step))}
    write_json(part / RECORD, {"made_from": made_from, "measured": {"seconds": 1.5}})


def test_the_tables_have_several_row_groups(whole):
    """Else there would be nothing to share."""
    for step, name, number in (
        ("pcmp_images", "images", 3),
        ("votes", "votes", 3),
        ("baselines", "scores", 2),
    ):
        schema = STEPS[step].shards[name]
        assert len(row_group_sizes(whole / step / f"{name}.parquet", schema)) == number


@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.parametrize("step", SPECS)
def test_any_number_of_shards_gives_the_bytes_of_one_job(whole, tmp_path, step, count):
    parts = [make(whole, tmp_path, step, shard) for shard in names(count)]
    gather(step, SPECS[step], parts, outputs(tmp_path, step))
    for name, path in outputs(tmp_path, step).items():
        assert path.read_bytes() == (whole / step / f"{name}.parquet").read_bytes(), name
    record = read_json(provenance.beside(outputs(tmp_path, step)))
    assert record["measured"]["shards"] == count
    assert record["measured"]["seconds"] >= 1.5 * count
    assert set(record["made_from"]["outputs"]) == set(STEPS[step].shards)


@pytest.fixture
def paired(whole, tmp_path):
    parts = [make(whole, tmp_path, "pcmp_pairs", shard) for shard in names(3)]
    return SimpleNamespace(
        parts=parts,
        gather=lambda: gather("pcmp_pairs", SPECS["pcmp_pairs"], parts, outputs(tmp_path, "pcmp_pairs")),
        pairs=tmp_path / "pairs.parquet",
    )


@pytest.mark.parametrize("fault", ["lost", "cut", "flipped", "emptied", "a folder"])
def test_a_part_that_is_not_sound_is_named_and_made_again_alone(whole, tmp_path, paired, fault):
    broken = paired.parts[1] / "pairs.parquet"
    stored = broken.read_bytes()
    broken.unlink()
    if fault == "cut":
        broken.write_bytes(stored[: len(stored) // 2])
    elif fault == "emptied":
        broken.touch()
    elif fault == "a folder":
        broken.mkdir()
    elif fault == "flipped":
        place = len(stored) // 2
        broken.write_bytes(stored[:place] + bytes([stored[place] ^ 1]) + stored[place + 1 :])
    with pytest.raises(ArtifactError, match=str(broken)):
        paired.gather()
    assert not paired.pairs.exists()
    if fault == "a folder":
        broken.rmdir()
    make(whole, tmp_path, "pcmp_pairs", "2-of-3")
    paired.gather()
    assert paired.pairs.read_bytes() == (whole / "pcmp_pairs/pairs.parquet").read_bytes()


def test_a_part_of_another_schema_is_named(paired):
    other = paired.parts[1] / "pairs.parquet"
    write_table(other, SCHEMAS["votes"].empty_table(), "votes")
    write_record(paired.parts[1], "pcmp_pairs")
    with pytest.raises(ArtifactError, match=f"{other} is not a 'pairs' table of this version"):
        paired.gather()


def test_parts_without_any_row_make_no_result(paired):
    for part in paired.parts:
        write_table(part / "pairs.parquet", SCHEMAS["pairs"].empty_table(), "pairs")
        write_record(part, "pcmp_pairs")
    with pytest.raises(ArtifactError, match="expected rows, its 3 parts have none"):
        paired.gather()


@pytest.mark.parametrize("text", ["{}", "[]", '{"made_from": 1}'])
def test_a_record_that_is_none_is_named(paired, text):
    (paired.parts[1] / RECORD).write_text(text)
    with pytest.raises(
        ArtifactError, match=f"{paired.parts[1] / RECORD} is (no record of a part|not of this version)"
    ):
        paired.gather()


def test_parts_of_other_settings_are_refused(paired):
    record = read_json(paired.parts[2] / RECORD)
    record["made_from"]["spec_sha256"] = "0"
    write_json(paired.parts[2] / RECORD, record)
    with pytest.raises(ArtifactError, match=f"{paired.parts[2]}: expected a part of this pcmp_pairs"):
        paired.gather()


def test_accuracies_of_voters_are_over_all_references(whole):
    voters = read_table(whole / "predictions/voters.parquet", "voters").set_index("voter")
    assert voters["n_clean"].tolist() == [N_REFERENCES] * 4
    right = read_table(whole / "predictions/predictions.parquet", "predictions")
    right = right.assign(reference=right["image_id"].str.split(".").str[0]).drop_duplicates(
        ["voter", "reference"]
    )
    expected = right.groupby("voter")["reference_correct"].mean()
    assert voters["clean_accuracy"].to_dict() == pytest.approx(expected.astype(float).to_dict())
