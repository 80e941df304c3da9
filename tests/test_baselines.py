"""Adapters on published metrics: published values, closed forms, and which image gets which score."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from mlclipsim import baselines
from mlclipsim.artifacts import ArtifactError, read_table, write_table
from mlclipsim.images import encode_image, read_image, to_tensor

CATALOG = yaml.safe_load(
    (Path(__file__).parents[1] / "config" / "catalog" / "metrics.yaml").read_text(encoding="utf-8")
)
NAMES = ("psnr", "ssim", "ms_ssim", "gmsd", "vif_p", "fsim", "haarpsi")


def _image(seed: int, size: int = 64) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (size // 8, size // 8, 3), np.uint8)
    return np.repeat(np.repeat(coarse, 8, axis=0), 8, axis=1)


def _noisy(image: np.ndarray, sigma: float, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, sigma, image.shape)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


def test_psnr_is_its_closed_form():
    reference = np.full((64, 64, 3), 100, np.uint8)
    metric, variant = baselines.build("psnr", CATALOG["psnr"], 64)
    value = metric(to_tensor(reference + 10)[None], to_tensor(reference)[None])
    assert variant == "rgb"
    assert value.item() == pytest.approx(
        20 * np.log10(255 / 10), abs=1e-3
    )  # 28.1308 dB; piq adds 1e-8 to the MSE


@pytest.mark.parametrize("name", NAMES)
def test_direction_is_as_the_catalog_says(name):
    reference = to_tensor(_image(0))[None]
    metric, _ = baselines.build(name, CATALOG[name], 64)
    mild, strong, same = (
        metric(to_tensor(_noisy(_image(0), sigma))[None], reference).item() for sigma in (5, 60, 0)
    )
    sign = 1 if CATALOG[name]["higher_is_better"] else -1
    assert sign * same > sign * mild > sign * strong


def test_ms_ssim_below_161_pixels_is_another_variant():
    small, name_small = baselines.build("ms_ssim", CATALOG["ms_ssim"], 160)
    large, name_large = baselines.build("ms_ssim", CATALOG["ms_ssim"], 161)
    assert (name_small, name_large) == ("ms_ssim_3", CATALOG["ms_ssim"]["variant"])
    a, b = to_tensor(_image(0, 168))[None], to_tensor(_noisy(_image(0, 168), 30))[None]
    assert small(b, a).item() != pytest.approx(large(b, a).item(), abs=1e-3)
    tiny = to_tensor(_image(1))[None]
    assert small(tiny, tiny).item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"library": "numpy"}, "expected a library"),
        ({"function": "nonsense"}, "no function"),
        ({"colour": "sepia"}, "expected colour"),
    ],
)
def test_wrong_catalog_entries_are_refused(entry, said):
    with pytest.raises(ValueError, match=said):
        baselines.build("psnr", entry, 64)


def test_torchmetrics_agrees_with_piq():
    a, b = to_tensor(np.stack([_image(0), _image(1)])), to_tensor(np.stack([_image(1), _noisy(_image(1), 9)]))
    entry = {
        "library": "torchmetrics",
        "function": "peak_signal_noise_ratio",
        "arguments": {"data_range": 1.0},
    }
    ours, _ = baselines.build("psnr", entry, 64)
    piq, _ = baselines.build("psnr", CATALOG["psnr"], 64)
    torch.testing.assert_close(ours(b, a), piq(b, a), atol=1e-3, rtol=0)


@pytest.fixture
def small(tmp_path, invented_pcmp):
    """Three test references with two images each, one training reference that no benchmark needs."""
    references, images = invented_pcmp.tables.references, invented_pcmp.tables.images
    kept = ["scene-pcmp_test-0000", "scene-pcmp_test-0001", "scene-pcmp_test-0002", "scene-pcmp_train-0000"]
    references = references[references["reference_id"].isin(kept)].copy()
    images = images[images["reference_id"].isin(kept)].groupby("reference_id").head(2).copy()
    pixels = {name: _image(number) for number, name in enumerate(kept)}
    references["image"] = [encode_image(pixels[name]) for name in references["reference_id"]]
    images["image"] = [
        encode_image(_noisy(pixels[name], 20, seed)) for seed, name in enumerate(images["reference_id"])
    ]
    paths = {name: tmp_path / f"{name}.parquet" for name in ("references", "images")}
    write_table(paths["references"], references, "references")
    write_table(paths["images"], images, "images")
    return paths, images, pixels


def _score(paths, tmp_path, **changes):
    spec = {"metrics": {name: CATALOG[name] for name in NAMES}, "threads": 1, "batch_size": 4} | changes
    baselines.score(spec, paths, {"scores": tmp_path / "scores.parquet"})
    return read_table(tmp_path / "scores.parquet", "scores")


def test_each_test_image_is_scored_once_by_each_metric(small, tmp_path):
    paths, images, pixels = small
    scores = _score(paths, tmp_path)
    assert len(scores) == 6 * len(NAMES)
    assert not scores.duplicated(["image_id", "metric"]).any()
    assert scores["image_id"].str.contains("pcmp_test").all()
    assert set(scores.loc[scores["metric"] == "ms_ssim", "variant"]) == {"ms_ssim_3"}
    assert not scores.loc[scores["metric"] == "gmsd", "higher_is_better"].any()
    # the right reference: PSNR as computed by hand from the stored pixels
    row = scores[scores["metric"] == "psnr"].iloc[4]
    stored = images.set_index("image_id").loc[row["image_id"]]
    from mlclipsim.images import decode_image

    error = decode_image(stored["image"]).astype(float) - pixels[stored["reference_id"]]
    assert row["score"] == pytest.approx(10 * np.log10(255**2 / np.mean(error**2)), abs=1e-3)


def test_scores_do_not_depend_on_the_batch(small, tmp_path):
    one, many = (_score(small[0], tmp_path, batch_size=size) for size in (1, 6))
    np.testing.assert_allclose(one["score"], many["score"], rtol=1e-5)  # float32 sums in another order


def test_a_score_that_is_no_number_stays_and_is_reported(small, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(
        baselines, "build", lambda name, entry, side: (lambda d, r: d.mean((1, 2, 3)) * torch.nan, "rgb")
    )
    scores = _score(small[0], tmp_path, metrics={"psnr": {}})
    assert scores["score"].isna().all()
    assert len(scores) == 6
    assert "psnr: 6 of 6 scores are not numbers" in caplog.text


def test_an_image_without_reference_is_refused(small, tmp_path, invented_pcmp):
    paths = small[0] | {"images": invented_pcmp.paths["images"]}
    with pytest.raises(ArtifactError, match="reference of every image"):
        _score(paths, tmp_path)


@pytest.mark.assets
@pytest.mark.skipif("MLCLIPSIM_ASSETS" not in os.environ, reason="needs $MLCLIPSIM_ASSETS")
@pytest.mark.parametrize(
    ("name", "column", "entry", "tolerance"),
    [
        ("psnr", "psnr", {}, 6e-3),  # two printed decimals
        ("ssim", "ssim", {"colour": "grey", "arguments": {"downsample": False}}, 1e-4),
        ("gmsd", "gmsd", {"colour": "grey", "higher_is_better": False}, 1e-4),
        ("fsim", "fsim", {}, 2e-4),  # on RGB: FSIMc
        ("ms_ssim", "ms_ssim", {"function": "multi_scale_ssim", "colour": "grey"}, 5e-3),
    ],
)
def test_published_values(name, column, entry, tolerance):
    """The metric authors' own code on five TID2013 pairs (metric-oracle, as IQA-PyTorch lists it)."""
    folder = Path(os.environ["MLCLIPSIM_ASSETS"]) / "data" / "metric-oracle"
    with (folder / "values.csv").open(newline="") as stream:
        values = {row["metric"]: row for row in csv.DictReader(stream)}[column]
    metric, _ = baselines.build(name, entry, 384)
    for image in ("I03", "I04", "I06", "I08", "I19"):
        distorted, reference = (
            to_tensor(read_image(folder / part / f"{image}.png"))[None] for part in ("dist", "ref")
        )
        assert metric(distorted, reference).item() == pytest.approx(float(values[image]), abs=tolerance)
