"""Adapters on published metrics: closed forms, directions, what is missing, and which image gets which score.

Against published values: test_baselines_published.py.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mlclipsim import baselines, spec
from mlclipsim.artifacts import ArtifactError, read_table, write_table
from mlclipsim.images import decode_image, encode_image, to_tensor

PLAN = spec.load(planning=True)
CATALOG = {name: PLAN.metric(name) for name in PLAN.catalogs["metrics"]}
NAMES = (*(name for name, entry in CATALOG.items() if entry["needs"] == "nothing"), "deep_features")
SOME = ("psnr", "ms_ssim", "gmsd")


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
    low, high = CATALOG[name]["range"]
    for value in (mild, strong, same):
        assert low is None or value >= low - 1e-5  # float32 sums
        assert high is None or value <= high + 1e-5


def test_what_runs_without_more_and_what_needs_weights():
    assert set(NAMES) == {
        *("psnr", "ssim", "ms_ssim", "iw_ssim", "vif_p", "fsim", "gmsd", "ms_gmsd", "vsi", "haarpsi"),
        *("mdsi", "dss", "sr_ssim", "deep_features"),
    }
    assert set(CATALOG) - set(NAMES) == {
        *("lpips", "lpips_vgg", "lpips_squeeze", "dists", "pieapp", "dreamsim", "topiq_fr", "afine")
    }


@pytest.mark.parametrize("name", ["ms_ssim", "iw_ssim"])
def test_five_scales_become_three_below_161_pixels_and_the_variant_says_so(name):
    small, name_small = baselines.build(name, CATALOG[name], 160)
    large, name_large = baselines.build(name, CATALOG[name], 161)
    assert (name_small, name_large) == (f"{name}_3", CATALOG[name]["variant"])
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
        (CATALOG["deep_features"] | {"function": "nonsense"}, "mlclipsim.deep_features has no function"),
    ],
)
def test_wrong_catalog_entries_are_refused(entry, said):
    with pytest.raises(ValueError, match=said):
        baselines.build("psnr", entry, 64)


def test_torchmetrics_agrees_with_piq():
    a, b = to_tensor(np.stack([_image(0), _image(1)])), to_tensor(np.stack([_image(1), _noisy(_image(1), 9)]))
    entry = {
        "library": "torchmetrics",
        "function": "image.PeakSignalNoiseRatio",
        "arguments": {"data_range": 1.0},
    }
    ours, _ = baselines.build("psnr", entry, 64)
    piq, _ = baselines.build("psnr", CATALOG["psnr"], 64)
    torch.testing.assert_close(ours(b, a), piq(b, a), atol=1e-3, rtol=0)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of weights."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub"


@pytest.mark.parametrize(
    "name", [name for name, entry in CATALOG.items() if entry["library"] in ("piq", "torchmetrics")]
)
def test_what_the_catalog_names_is_in_the_installed_library(name):
    assert callable(baselines._named(CATALOG[name]["library"], CATALOG[name]["function"]))


def test_what_a_metric_lacks_is_said(hub, monkeypatch):
    assert [name for name in CATALOG if baselines.lacks(CATALOG[name]) is None] == list(NAMES)
    none = spec.load({"feature_network": None}, planning=True).metric("deep_features")
    assert baselines.lacks(none) == "no feature_network is chosen"
    weights = hub / "checkpoints" / "alexnet-owt-7be5be79.pth"
    assert baselines.lacks(CATALOG["lpips"]) == f"{weights} is not there"
    weights.write_bytes(b"half a download")
    assert "does not begin with 7be5be79" in baselines.lacks(CATALOG["lpips"])
    monkeypatch.setattr(baselines.importlib.util, "find_spec", lambda name: None)
    assert baselines.lacks(CATALOG["afine"]) == "the package pyiqa is not installed"


def test_lpips_runs_once_its_backbone_is_there(hub):
    """A SqueezeNet with random weights: a distance all the same, one per image, 0 at identity."""
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    network = torchvision.models.squeezenet1_1(weights=None)
    torch.save(network.state_dict(), hub / "checkpoints" / "squeezenet1_1-b8a52dc0.pth")
    metric, variant = baselines.build("lpips_squeeze", CATALOG["lpips_squeeze"], 64)
    x, y = to_tensor(np.stack([_image(0), _image(1)])), to_tensor(np.stack([_image(0), _image(2)]))
    same, other = metric(x, y).tolist()
    assert (same, variant) == (0, "squeeze")
    assert other > 0


@pytest.mark.parametrize("name", ["topiq_fr", "dreamsim"])
def test_libraries_that_are_not_installed_are_called_as_they_document(name, hub, monkeypatch):
    """Stand-ins with the documented signatures: pyiqa.create_metric(name) and dreamsim.dreamsim(...) give
    something that takes two batches, values in [0, 1]; DreamSim 224 px, the reference first.
    """
    called = []

    def distance(first, second):
        called.append((first.shape[-1], first.mean().item(), second.mean().item()))
        return (first - second).abs().mean((1, 2, 3))[:, None]

    modules = {
        "pyiqa": SimpleNamespace(create_metric=lambda name, device: distance),
        "dreamsim": SimpleNamespace(dreamsim=lambda pretrained, device, cache_dir: (distance, None)),
    }
    monkeypatch.setitem(sys.modules, CATALOG[name]["library"], modules[CATALOG[name]["library"]])
    metric, _ = baselines.build(name, CATALOG[name], 64)
    white, black = torch.ones(2, 3, 64, 64), torch.zeros(2, 3, 64, 64)
    assert metric(white, black).reshape(-1).tolist() == [1, 1]  # distorted, reference
    assert called == [{"topiq_fr": (64, 1, 0), "dreamsim": (224, 0, 1)}[name]]


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
    spec = {"metrics": {name: CATALOG[name] for name in SOME}, "threads": 1, "batch_size": 4} | changes
    baselines.score(spec, paths, {"scores": tmp_path / "scores.parquet"})
    return read_table(tmp_path / "scores.parquet", "scores")


def test_each_test_image_is_scored_once_by_each_metric(small, tmp_path):
    paths, images, pixels = small
    scores = _score(paths, tmp_path)
    assert len(scores) == 6 * len(SOME)
    assert not scores.duplicated(["image_id", "metric"]).any()
    assert scores["image_id"].str.contains("pcmp_test").all()
    assert set(scores.loc[scores["metric"] == "ms_ssim", "variant"]) == {"ms_ssim_3"}
    assert not scores.loc[scores["metric"] == "gmsd", "higher_is_better"].any()
    # the right reference: PSNR as computed by hand from the stored pixels
    row = scores[scores["metric"] == "psnr"].iloc[4]
    stored = images.set_index("image_id").loc[row["image_id"]]
    error = decode_image(stored["image"]).astype(float) - pixels[stored["reference_id"]]
    assert row["score"] == pytest.approx(10 * np.log10(255**2 / np.mean(error**2)), abs=1e-3)


def test_scores_do_not_depend_on_the_batch(small, tmp_path):
    one, many = (_score(small[0], tmp_path, batch_size=size) for size in (1, 6))
    np.testing.assert_allclose(one["score"], many["score"], rtol=1e-5)  # float32 sums in another order


def test_processes_and_other_references_change_no_byte(small, tmp_path):
    paths, images, _ = small
    scores = _score(paths, tmp_path)
    one = (tmp_path / "scores.parquet").read_bytes()
    _score(paths, tmp_path, threads=2)
    assert (tmp_path / "scores.parquet").read_bytes() == one
    alone = images[images["reference_id"] == "scene-pcmp_test-0001"]
    write_table(paths["images"], alone, "images")
    rest = _score(paths, tmp_path)
    kept = scores[scores["image_id"].isin(alone["image_id"])].reset_index(drop=True)
    assert kept.equals(rest)


def test_a_further_metric_does_not_score_the_others_again(small, tmp_path, monkeypatch, caplog):
    """Nor does a second run; other images, another variant of a metric or a damaged file do."""
    paths, images, _ = small
    scored = []
    real = baselines._score_all

    def watched(metrics, *rest):
        scored.append(sorted(metrics))
        return real(metrics, *rest)

    monkeypatch.setattr(baselines, "_score_all", watched)

    def run(names, change=(), inputs=paths):
        asked = {name: CATALOG[name] for name in names}
        if change:
            asked[change[0]] = asked[change[0]] | change[1]
        out = tmp_path / "scores.parquet"
        baselines.score({"metrics": asked, "cache": str(tmp_path / "kept")}, inputs, {"scores": out})
        return out.read_bytes()

    run(["psnr", "ssim"])
    both = run(["psnr", "ssim", "gmsd"])
    assert scored == [["psnr", "ssim"], ["gmsd"]]
    assert run(["gmsd", "psnr", "ssim"]) == both
    assert len(scored) == 2
    run(["psnr", "ssim"], ("ssim", {"arguments": {"downsample": True}, "variant": "smaller"}))
    assert scored[2:] == [["ssim"]]
    (kept,) = (tmp_path / "kept").glob("gmsd-*.parquet")
    kept.write_bytes(kept.read_bytes()[:-9])
    assert run(["psnr", "ssim", "gmsd"]) == both
    assert scored[3:] == [["gmsd"]]
    assert "made again" in caplog.text
    write_table(tmp_path / "fewer.parquet", images.iloc[1:], "images")
    run(["psnr", "ssim"], inputs=paths | {"images": tmp_path / "fewer.parquet"})
    assert scored[4:] == [["psnr", "ssim"]]


def test_a_metric_without_its_weights_has_no_row_and_fails_nothing(small, tmp_path, hub, caplog):
    scores = _score(small[0], tmp_path, metrics={name: CATALOG[name] for name in ("psnr", "lpips")})
    assert set(scores["metric"]) == {"psnr"}
    assert "lpips is not run" in caplog.text
    assert "torchvision.models.alexnet" in caplog.text
    with pytest.raises(ArtifactError, match="0 metrics"):
        _score(small[0], tmp_path, metrics={"lpips": CATALOG["lpips"]})


def test_a_score_that_is_no_number_stays_and_is_reported(small, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(
        baselines, "build", lambda name, entry, side: (lambda d, r: d.mean((1, 2, 3)) * torch.nan, "rgb")
    )
    scores = _score(small[0], tmp_path, metrics={"psnr": {}})
    assert scores["score"].isna().all()
    assert len(scores) == 6
    assert "psnr: 6 of 6 scores are not numbers" in caplog.text


def test_an_image_that_a_metric_cannot_read_does_not_take_its_batch_along():
    def singular(distorted, reference):
        if (distorted == 0).all((1, 2, 3)).any():
            raise torch.linalg.LinAlgError("the matrix is singular")
        return distorted.mean((1, 2, 3))

    images = torch.stack([torch.ones(3, 16, 16), torch.zeros(3, 16, 16), torch.ones(3, 16, 16)])
    assert baselines._values(singular, images, images).nan_to_num(-1).tolist() == [1, -1, 1]


def test_an_image_without_reference_is_refused(small, tmp_path, invented_pcmp):
    paths = small[0] | {"images": invented_pcmp.paths["images"]}
    with pytest.raises(ArtifactError, match="lacks the reference"):
        _score(paths, tmp_path)
