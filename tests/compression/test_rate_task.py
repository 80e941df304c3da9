"""Small random codecs judged by two machines: rates are checked, rows complete, workers change nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from mlclipsim import provenance, spec
from mlclipsim.artifacts import ArtifactError, read_json, read_table, sha256_of, write_json, write_table
from mlclipsim.compression import codecs
from mlclipsim.compression.bitstream import Bitstream
from mlclipsim.compression.rate_task import Coder, check_payload, code, coders
from mlclipsim.compression.reconstructions import at_equal_rate
from mlclipsim.gather import gather
from mlclipsim.shards import RECORD, WHOLE, Shard

JUDGES = ["scene-repvgg", "scene-segmenter"]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A base of two points, one arm of two seeds trained from it, and JPEG."""
    folder = tmp_path_factory.mktemp("study")
    torch.manual_seed(0)
    entry = {
        "id": 1,
        "library": "compressai",
        "model": "bmshj2018-factorized",
        "channels": [4, 6],
        "points": {},
    }
    manifest = {"codecs": {}}
    for point in ("q1", "q2"):
        model = codecs.build(entry["model"], entry["channels"])
        codecs.save(model, folder / f"base-{point}.safetensors")
        entry["points"][point] = {"lambda": 0.01, "weights": str(folder / f"base-{point}.safetensors")}
        for seed in (0, 1):
            path = folder / f"mse-{point}-s{seed}.safetensors"
            codecs.save(model, path)
            record = {"arm": "mse", "point": point, "seed": seed, "sha256": sha256_of(path), "loss": {}}
            manifest["codecs"][path.stem] = record
    write_json(folder / "manifest.json", manifest)
    voters = pd.DataFrame(
        {
            "voter": JUDGES,
            "task": ["classification", "segmentation"],
            "family": "any",
            "clean_accuracy": 0.9,
            "n_clean": 5,
            "temperature": [1.0, np.nan],
            "sha256": "",
        }
    )
    write_table(folder / "voters.parquet", voters, "voters")
    plan = spec.load({"preset": "ci"}, planning=True)
    read = plan.slice("rate_task") | {
        "threads": 1,
        "arms": ["mse", "ms_ssim"],
        "codec": {"name": "tiny", "entry": entry},
        "codecs": {"jpeg": {"id": 9, "library": "pillow", "model": "jpeg", "qualities": [20, 60]}},
        "judges": {name: plan.entry("machines", name) for name in JUDGES},
    }
    inputs = {
        "references": folder / "none.parquet",
        "voters": folder / "voters.parquet",
        "manifest": folder / "manifest.json",
    }
    return read, inputs


def _code(study, folder, shard=WHOLE, **changed):
    read, inputs = study
    outputs = {name: folder / f"{name}.parquet" for name in ("codes", "scores", "truth")}
    outputs["not_run"] = folder / "not_run.json"
    code(read | changed, inputs, outputs, shard)
    return outputs


@pytest.fixture(scope="module")
def coded(study, tmp_path_factory):
    return _code(study, tmp_path_factory.mktemp("coded"))


def test_every_codec_codes_every_mosaic_and_every_judge_reads_every_scene(coded):
    codes = read_table(coded["codes"], "rate_task_codes")
    assert codes.groupby("arm").size().to_dict() == {"base": 2, "jpeg": 2, "mse": 4}  # of one mosaic each
    assert (codes["payload_bytes"] > 0).all()
    assert (codes["container_bytes"] == 16).all()  # one string each
    assert (codes.loc[codes["arm"] == "jpeg", "constant_bytes"] > 100).all()
    assert codes.loc[codes["arm"] == "jpeg", "estimated_bits"].isna().all()
    scores = read_table(coded["scores"], "rate_task_scores")
    assert len(scores) == 8 * 16 * len(JUDGES)
    assert set(scores["unit_id"]) == {"mosaic-000"}
    assert scores["score"].dropna().between(0, 1).all()
    better = scores[scores["arm"] == "jpeg"].groupby("quality")["score"].mean()
    assert better[60] > better[20]


def test_the_truth_is_measured_on_originals_too(coded):
    truth = read_table(coded["truth"], "rate_task_truth")
    assert set(truth["measure"]) == {"top1", "miou"}
    original = truth[truth["arm"] == "original"]
    assert len(original) == len(JUDGES)
    assert (original["value"] > 0.5).all()


def test_missing_arms_are_named(coded):
    assert read_json(coded["not_run"]) == {"ms_ssim": "no trained weights"}


def test_equal_weights_give_equal_rates(coded):
    codes = read_table(coded["codes"], "rate_task_codes").set_index(["arm", "quality", "seed"])[
        "payload_bytes"
    ]
    assert codes["mse", 1, 0] == codes["mse", 1, 1] == codes["base", 1, -1]


@pytest.mark.slow
def test_any_number_of_workers_gives_the_same_bytes(study, coded, tmp_path):
    again = _code(study, tmp_path, threads=2)
    for name in ("codes", "scores", "truth"):
        assert again[name].read_bytes() == coded[name].read_bytes()


def test_a_payload_that_entropy_does_not_explain_is_refused():
    streams = [Bitstream((bytes(1000),), (4, 4), (64, 64))] * 10
    check_payload("good", streams, 8 * 10_000)
    check_payload("good", streams, 8 * 9_650)  # 2 % are 193 bytes, the ends of 10 strings 160
    with pytest.raises(ArtifactError, match="its probability tables are not those of its weights"):
        check_payload("bad", streams, 8 * 9_500)
    with pytest.raises(ArtifactError, match=r"q1: expected 12,000 \+- 400 bytes"):
        check_payload("mse q1", streams, 8 * 12_000)


def test_a_wrong_table_is_caught(study, tmp_path, monkeypatch):
    """Twice the entropy stands for tables of other weights."""
    from mlclipsim.compression import rate_task

    true = rate_task.estimate_bits
    monkeypatch.setattr(rate_task, "estimate_bits", lambda model, image: 2 * true(model, image) + 8_000)
    with pytest.raises(ArtifactError, match="base q1: expected"):
        _code(study, tmp_path)
    assert not (tmp_path / "codes.parquet").exists()


def test_damaged_weights_are_refused(study, tmp_path):
    read, inputs = study
    manifest = read_json(inputs["manifest"])
    manifest["codecs"]["mse-q1-s0"]["sha256"] = "0" * 64
    write_json(inputs["manifest"].with_name("other.json"), manifest)
    entries = {"tiny": read["codec"]["entry"]}
    with pytest.raises(ArtifactError, match="expected the weights that"):
        coders("tiny", inputs["manifest"].with_name("other.json"), [], entries)


def test_reconstructions_stand_at_the_anchors_rate():
    rates = {("mse", 1): 0.1, ("mse", 2): 0.2, ("mse", 4): 0.4, ("ours", 1): 0.15, ("ours", 2): 0.25}
    codes = pd.DataFrame(
        [
            {"arm": arm, "quality": quality, "seed": 0, "payload_bytes": round(rate * 8192), "pixels": 65536}
            for (arm, quality), rate in rates.items()
        ]
    )
    known = [Coder("tiny", arm, quality, 0) for arm, quality in rates]
    chosen = {coder.arm: coder.quality for coder in at_equal_rate(known, codes)}
    assert chosen == {"mse": 2, "ours": 2}


@pytest.mark.slow
def test_any_number_of_shards_gives_the_same_bytes(study, coded, tmp_path):
    read, _ = study
    parts = [tmp_path / str(number) for number in (1, 2)]
    for number, part in enumerate(parts, start=1):
        _record(part, read, _code(study, part, Shard(number, 2)))
    outputs = {name: tmp_path / path.name for name, path in coded.items()}
    gather("rate_task", read, parts, outputs)
    for name, path in outputs.items():
        assert path.read_bytes() == coded[name].read_bytes(), name
    write_json(parts[1] / "not_run.json", {"mse": "no trained weights"})
    _record(parts[1], read, {name: parts[1] / path.name for name, path in coded.items()})
    with pytest.raises(ArtifactError, match=r"2/not_run\.json and .* do not agree"):
        gather("rate_task", read, parts, outputs)


def _record(part, read, outputs):
    made_from = {"step": "rate_task", "spec_sha256": provenance.digest(read)}
    made_from |= {"outputs": provenance.hashes(outputs)}
    write_json(part / RECORD, {"made_from": made_from, "measured": {"seconds": 1.0}})
