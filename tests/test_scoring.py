"""Scoring files: the same values as the metric gives, whatever the batches; what fails is said."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from mlclipsim import scoring
from mlclipsim.images import read_image, to_tensor, write_png
from mlclipsim.metric import MLCLIPSim
from mlclipsim.pairing import Pair, pair_files

SIZES = {"a": (64, 64), "b": (48, 80), "c": (64, 64), "d": (16, 100), "e": (48, 80), "f": (64, 64)}


@pytest.fixture(scope="module")
def metric():
    return MLCLIPSim("scene-clip")


@pytest.fixture
def folders(tmp_path):
    """Six pairs of three sizes; the later, the noisier."""
    rng = np.random.default_rng(0)
    for index, (name, (height, width)) in enumerate(SIZES.items()):
        coarse = rng.integers(0, 256, (height // 8, width // 4, 3), np.uint8)
        image = coarse.repeat(8, axis=0).repeat(4, axis=1)
        noisy = np.clip(image + rng.normal(0, 5 + 20 * index, image.shape), 0, 255).astype(np.uint8)
        write_png(tmp_path / "refs" / f"{name}.png", image)
        write_png(tmp_path / "dists" / f"{name}.png", noisy)
    return tmp_path / "refs", tmp_path / "dists"


def expected(metric, pair):
    images = (to_tensor(read_image(path))[None] for path in (pair.reference, pair.distorted))
    return float(metric.score(**dict(zip(("reference", "distorted"), images, strict=True))))


def test_scores_are_the_metrics_in_order_for_every_batch_size(metric, folders, monkeypatch):
    pairs, _ = pair_files(*folders)
    wanted = [expected(metric, pair) for pair in pairs]
    for batch_size, window_bytes in ((1, 2**28), (2, 2**28), (8, 2**28), (8, 1)):
        monkeypatch.setattr(scoring, "WINDOW_BYTES", window_bytes)
        outcomes = list(scoring.score_pairs(metric, pairs, batch_size=batch_size))
        assert [outcome.pair for outcome in outcomes] == pairs
        np.testing.assert_allclose([outcome.score for outcome in outcomes], wanted, atol=1e-6)
    assert wanted[0] > wanted[-1]


def test_batches_hold_one_size_and_few_pixels(metric, folders, monkeypatch):
    seen = []
    per_layer = metric.per_layer
    monkeypatch.setattr(
        metric, "per_layer", lambda **images: seen.append(images["distorted"].shape) or per_layer(**images)
    )
    pairs, _ = pair_files(*folders)
    list(scoring.score_pairs(metric, pairs, batch_size=2))
    assert sorted(seen) == [(1, 3, 16, 100), (1, 3, 64, 64), (2, 3, 48, 80), (2, 3, 64, 64)]
    seen.clear()
    monkeypatch.setattr(scoring, "BATCH_PIXELS", 64 * 64)
    list(scoring.score_pairs(metric, pairs, batch_size=2))
    assert all(shape[0] == 1 for shape in seen)


def test_no_more_than_a_window_is_read_ahead(metric, folders, monkeypatch):
    read = []
    monkeypatch.setattr(scoring, "read_image", lambda path: read.append(path) or read_image(path))
    monkeypatch.setattr(scoring, "WINDOW_BATCHES", 1)
    pairs, _ = pair_files(*folders)
    outcomes = scoring.score_pairs(metric, pairs, batch_size=2)
    next(outcomes)
    assert len(read) == 4  # two pairs


def test_memory_that_runs_out_halves_the_batch(metric, folders, monkeypatch):
    per_layer = metric.per_layer

    def limited(*, reference, distorted):
        if len(distorted) > 1:
            raise torch.OutOfMemoryError("no room")
        return per_layer(reference=reference, distorted=distorted)

    pairs, _ = pair_files(*folders)
    wanted = [outcome.score for outcome in scoring.score_pairs(metric, pairs)]
    monkeypatch.setattr(metric, "per_layer", limited)
    scores = [outcome.score for outcome in scoring.score_pairs(metric, pairs)]
    np.testing.assert_allclose(scores, wanted, atol=1e-6)


def test_one_reference_is_read_and_encoded_once(metric, folders, monkeypatch):
    references, distorted = folders
    for name in ("b", "d", "e"):
        (distorted / f"{name}.png").unlink()
    pairs, _ = pair_files(references / "a.png", distorted)
    wanted = [expected(metric, pair) for pair in pairs]
    encoded = []
    encode = metric.encode
    monkeypatch.setattr(metric, "encode", lambda images: encoded.append(len(images)) or encode(images))
    scores = [outcome.score for outcome in scoring.score_pairs(metric, pairs, batch_size=2)]
    assert encoded == [1]
    np.testing.assert_allclose(scores, wanted, atol=1e-6)


def test_what_cannot_be_scored_has_its_reason_and_stops_nothing(metric, folders):
    references, distorted = folders
    (distorted / "a.png").write_bytes((distorted / "a.png").read_bytes()[:100])
    (references / "c.png").write_text("no image")
    write_png(distorted / "f.png", np.zeros((64, 32, 3), np.uint8))
    outcomes = list(scoring.score_pairs(metric, pair_files(references, distorted)[0]))
    assert [outcome.pair.name for outcome in outcomes if not outcome.problem] == ["b", "d", "e"]
    problems = {outcome.pair.name: outcome.problem for outcome in outcomes if outcome.problem}
    assert problems["a"].startswith(f"{distorted / 'a.png'}: truncated or damaged")
    assert problems["c"].startswith(f"{references / 'c.png'}: not an image")
    assert problems["f"].startswith(f"{distorted / 'f.png'}: 32x64 pixels, but its reference has 64x64")


def test_a_size_that_the_policy_cannot_take_is_such_a_problem(folders):
    outcomes = list(scoring.score_pairs(MLCLIPSim("scene-clip", size_policy="tile"), pair_files(*folders)[0]))
    assert [outcome.pair.name for outcome in outcomes if not outcome.problem] == ["a", "c", "f"]
    assert "d.png: tile: expected at least 64x64 pixels" in outcomes[3].problem


@pytest.mark.parametrize("form", ["csv", "jsonl"])
@pytest.mark.parametrize("per_layer", [False, True])
def test_files_parse_and_name_what_was_used(metric, folders, tmp_path, form, per_layer):
    pairs, _ = pair_files(*folders)
    path = tmp_path / "out" / f"scores.{form}"
    assert scoring.score_files(metric, pairs, output=path, form=form, per_layer=per_layer) == []
    text = path.read_text(encoding="utf-8")
    rows = (
        list(csv.DictReader(text.splitlines())) if form == "csv" else list(map(json.loads, text.splitlines()))
    )
    assert [row["name"] for row in rows] == list(SIZES)
    for row, pair in zip(rows, pairs, strict=True):
        assert float(row["score"]) == pytest.approx(expected(metric, pair), abs=2e-6)
        assert row["distorted"] == pair.distorted.as_posix()
        assert metric.identity.items() <= row.items()
        assert [name for name in row if name in metric.names] == metric.names * per_layer
        if per_layer:
            values = [float(row[name]) for name in metric.names]
            assert float(row["score"]) == pytest.approx(np.mean(values), abs=2e-6)  # uniform weights


def test_nothing_scored_leaves_a_table_of_no_rows(metric, tmp_path):
    pair = Pair("a", tmp_path / "a.png", tmp_path / "b.png")
    (problem,) = scoring.score_files(metric, [pair], output=tmp_path / "s.csv")
    assert "a.png: expected an image file, found none" in problem
    assert (tmp_path / "s.csv").read_text() == ",".join(
        ["name,reference,distorted,score", *metric.identity]
    ) + "\n"


def test_an_interrupted_run_leaves_the_old_table_and_whole_maps(metric, folders, tmp_path, monkeypatch):
    path, maps = tmp_path / "out" / "scores.csv", tmp_path / "maps"
    path.parent.mkdir()
    path.write_text("old")
    per_layer, calls = metric.per_layer, []

    def interrupted(**images):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return per_layer(**images)

    monkeypatch.setattr(metric, "per_layer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        scoring.score_files(metric, pair_files(*folders)[0], output=path, batch_size=1, maps=maps)
    assert [file.name for file in path.parent.iterdir()] == ["scores.csv"]
    assert path.read_text() == "old"
    drawn = list(maps.iterdir())
    assert drawn
    assert all(read_image(file).shape[1] >= 512 for file in drawn)


def test_maps_are_named_like_the_images(metric, folders, tmp_path):
    references, distorted = folders
    for folder in folders:
        (folder / "deep").mkdir()
        (folder / "a.png").rename(folder / "deep" / "a.png")
    pairs, _ = pair_files(references, distorted)
    outcomes = list(scoring.score_pairs(metric, pairs, maps=tmp_path / "maps"))
    assert not any(outcome.problem for outcome in outcomes)
    files = sorted(
        path.relative_to(tmp_path / "maps").as_posix() for path in (tmp_path / "maps").rglob("*.png")
    )
    assert files == ["b.png", "c.png", "d.png", "deep/a.png", "e.png", "f.png"]


def test_load_metric_by_tag_or_file(tmp_path):
    from mlclipsim.encoders import PACKAGED, WeightsError

    file = PACKAGED / "weights" / "scene-clip.safetensors"
    metric = scoring.load_metric("scene-clip", str(file), layers=[2], size_policy="native", device="cpu")
    assert (metric.encoder.name, metric.layers, metric.size_policy) == ("scene-clip", (2,), "native")
    with pytest.raises(WeightsError, match="expected a checkpoint, found none"):
        scoring.load_metric("scene-clip", str(tmp_path / "no.safetensors"))
    with pytest.raises(ValueError, match="has no pretrained tag 'openia'"):
        scoring.load_metric("ViT-B-32-quickgelu", "openia")


def test_a_device_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert scoring.load_metric("scene-clip").theta.device.type == "cpu"
    with pytest.raises(ValueError, match="expected a CUDA device for --device cuda, found none"):
        scoring.load_metric("scene-clip", device="cuda")


def test_scoring_imports_nothing_of_the_suite():
    suite = [
        "snakemake",
        "pandas",
        "pyarrow",
        "matplotlib",
        "scipy",
        "skimage",
        "sklearn",
        "jsonschema",
        "piq",
    ]
    code = f"import sys, mlclipsim.cli, mlclipsim.scoring; print([m for m in {suite} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    code = (
        "import sys, mlclipsim.cli, mlclipsim.pairing; print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False"
