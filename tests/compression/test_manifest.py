"""What ships: a manifest that says what each codec was trained for, and which runs it no longer fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlclipsim.artifacts import ArtifactError, read_json, sha256_of, write_json

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")

SPEC: dict[str, Any] = {
    "compression": {"fold": 1},
    "encoder": {"name": "tower", "entry": {"sha256": "a"}},
    "teacher": {"name": "ada", "entry": {"sha256": "b"}},
    "feature_network": {"name": "bob", "entry": {"sha256": "c"}},
}
ARMS = ("mse", "ml_clipsim", "clip_global", "deep_features", "task_kl")


def fitted(path: Path, weight: float = 0.25) -> Path:
    folds = [{"fold": 0, "weights": [1.0, 0.0]}, {"fold": 1, "weights": [weight, 1 - weight]}]
    write_json(path, {"layers": ["layer_01", "global"], "folds": folds})
    return path


@pytest.fixture
def manifest(tmp_path: Path) -> dict[str, Any]:
    from mlclipsim.compression.arms import identity
    from mlclipsim.compression.manifest import collect

    inputs: dict[str, Any] = {"codecs": [], "records": [], "choices": []}
    for name in ARMS:
        weights, record, choice = (tmp_path / f"{name}{end}" for end in ("-q1-s0.bin", "-r.json", ".json"))
        weights.write_text(name)
        loss = identity(name, SPEC, {"weights": fitted(tmp_path / "weights.json")})
        write_json(record, {"arm": name, "point": "q1", "seed": 0, "loss": loss})
        write_json(choice, {"arm": name, "chosen": {}})
        for key, path in zip(inputs, (weights, record, choice), strict=True):
            inputs[key].append(path)
    collect({"preset": "ci"}, inputs, {"manifest": tmp_path / "out" / "manifest.json"})
    return read_json(tmp_path / "out" / "manifest.json")


def test_lists_every_training(manifest: dict[str, Any], tmp_path: Path) -> None:
    assert list(manifest["codecs"]) == sorted(f"{name}-q1-s0" for name in ARMS)
    assert manifest["codecs"]["mse-q1-s0"]["sha256"] == sha256_of(tmp_path / "mse-q1-s0.bin")
    assert manifest["codecs"]["ml_clipsim-q1-s0"]["loss"] == {
        "encoder": "tower",
        "sha256": "a",
        "weights": {"layer_01": 0.25, "global": 0.75},
    }
    assert set(manifest["choices"]) == set(ARMS)
    assert manifest["command"] == "snakemake codecs --config preset=ci retrain_codecs=true"


def test_fits_the_run_that_trained_it_and_refits_within_rounding(
    manifest: dict[str, Any], tmp_path: Path
) -> None:
    from mlclipsim.compression.manifest import stale

    for weight in (0.25, 0.2501):
        assert stale(manifest, SPEC, {"weights": fitted(tmp_path / "w.json", weight)}) == {}


@pytest.mark.parametrize(
    ("change", "arms", "what"),
    [
        ({}, {"ml_clipsim"}, "weights"),
        ({"encoder": {"name": "tower", "entry": {"sha256": "z"}}}, {"ml_clipsim", "clip_global"}, "sha256"),
        ({"teacher": {"name": "eve", "entry": {"sha256": "b"}}}, {"task_kl"}, "network"),
    ],
)
def test_other_networks_or_weights_make_arms_stale(
    change: dict[str, Any], arms: set[str], what: str, manifest: dict[str, Any], tmp_path: Path
) -> None:
    from mlclipsim.compression.manifest import stale

    weights = fitted(tmp_path / "w.json", 0.25 if change else 0.5)
    found = stale(manifest, SPEC | change, {"weights": weights})
    assert set(found) == arms
    assert all(what in reason and "needs retrain_codecs=true" in reason for reason in found.values())


def test_the_check_refuses_other_weights_and_leaves_stale_ones(
    manifest: dict[str, Any], tmp_path: Path
) -> None:
    from mlclipsim.compression.manifest import check

    shipped = tmp_path / "out" / "task_kl-q1-s0.safetensors"
    inputs = {"manifest": tmp_path / "out" / "manifest.json"}
    outputs = {"report": tmp_path / "check.json"}
    spec = SPEC | {"arm": "task_kl", "point": "q1", "training_seed": 0}
    shipped.write_text("other weights")
    with pytest.raises(ArtifactError, match=r"expected sha256 .*; fetch it again"):
        check(spec, inputs, outputs)
    shipped.write_text("task_kl")
    check(spec | {"teacher": {"name": "eve", "entry": {"sha256": "b"}}}, inputs, outputs)
    report = read_json(outputs["report"])
    assert report["ran"] is False
    assert "trained for another network" in report["reason"]
