"""Our evaluation against CompressAI's own functions, on the same weights and images."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from mlclipsim.artifacts import ArtifactError
from mlclipsim.compression import coding, evaluation
from mlclipsim.compression.classical import ClassicalCodec
from mlclipsim.compression.codecs import CompressionModel, LearnedCodec
from mlclipsim.images import to_tensor
from mlclipsim.usage import UsageError

Photograph = Callable[[int, int], np.ndarray]
Make = Callable[[str], CompressionModel]

# CompressAI's results on Kodak, models for MSE: bits per pixel and PSNR in dB, means over the 24 images
# (github.com/InterDigitalInc/CompressAI, results/image/kodak).
PUBLISHED = {
    ("bmshj2018-hyperprior", 1): (0.1313, 27.58),
    ("bmshj2018-hyperprior", 3): (0.3199, 30.97),
    ("bmshj2018-hyperprior", 6): (0.9388, 36.74),
    ("mbt2018-mean", 1): (0.1239, 27.70),
    ("mbt2018-mean", 3): (0.3072, 31.13),
    ("mbt2018-mean", 6): (0.9144, 36.91),
    ("cheng2020-anchor", 1): (0.1196, 28.58),
    ("cheng2020-anchor", 3): (0.2710, 31.34),
    ("cheng2020-anchor", 6): (0.8057, 36.70),
}


@pytest.mark.parametrize(
    "model",
    ["bmshj2018-factorized", "bmshj2018-hyperprior", pytest.param("mbt2018", marks=pytest.mark.slow)],
)
def test_equals_compressais_evaluation(model: str, random_codec: Make, photograph: Photograph) -> None:
    from compressai.utils.eval_model.__main__ import inference, inference_entropy_estimation

    network = random_codec(model)
    images = {"wide": photograph(192, 256), "tall": photograph(256, 192)}
    if model == "mbt2018":  # symbol by symbol
        del images["tall"]
    table = evaluation.evaluate(LearnedCodec(network), images.items()).set_index("image")
    for name, image in images.items():
        ours, x = table.loc[name], to_tensor(image)
        theirs = inference(network, x)
        assert ours["bpp"] == theirs["bpp"]
        assert ours["psnr_db"] == pytest.approx(theirs["psnr-rgb"], abs=1e-4)
        assert ours["ms_ssim"] == pytest.approx(theirs["ms-ssim-rgb"], abs=1e-5)
        estimated = inference_entropy_estimation(network, x)
        assert 8 * ours["estimated_bytes"] / image[..., 0].size == pytest.approx(estimated["bpp"], rel=1e-4)
        with torch.no_grad():  # as results were published before they were rounded to 8 bits
            coded = network.compress(x[None])
            error = (network.decompress(**coded)["x_hat"] - x).square().mean()
        assert ours["psnr_float_db"] == pytest.approx(-10 * float(error.log10()), abs=1e-4)


def test_classical_codecs_have_the_same_columns(random_codec: Make, photograph: Photograph) -> None:
    images = [("small", photograph(64, 64))]
    classical = evaluation.evaluate(ClassicalCodec("jpeg", 50), images).iloc[0]
    learned = evaluation.evaluate(LearnedCodec(random_codec("bmshj2018-factorized")), images).iloc[0]
    assert set(classical.index) == set(learned.index)
    assert classical["constant_bytes"] == ClassicalCodec("jpeg", 50).constant_bytes((64, 64))
    assert classical["bpp"] == 8 * classical["payload_bytes"] / 64**2
    assert pd.isna(classical[["estimated_bytes", "psnr_float_db", "ms_ssim"]].astype(float)).all()


def test_measures_a_folder(tmp_path: Path, photograph: Photograph) -> None:
    (tmp_path / "images").mkdir()
    for number in (1, 2):
        Image.fromarray(photograph(64, 64 + number)).save(tmp_path / "images" / f"{number}.png")
    text = evaluation.measure("jpeg", tmp_path / "images", (20, 75), tmp_path / "rows.csv")
    rows = pd.read_csv(tmp_path / "rows.csv")
    assert list(rows["quality"]) == [20, 20, 75, 75]
    assert list(rows["width"]) == [65, 66, 65, 66]
    assert f"{rows['psnr_db'][2:].mean():.4f}" in text
    with pytest.raises(UsageError, match="expected a folder with PNG files"):
        evaluation.measure("jpeg", tmp_path)
    with pytest.raises(UsageError, match="codec 'jpg' is unknown"):
        evaluation.measure("jpg", tmp_path / "images")


@pytest.mark.slow
@pytest.mark.assets
@pytest.mark.skipif("MLCLIPSIM_ASSETS" not in os.environ, reason="needs $MLCLIPSIM_ASSETS")
@pytest.mark.parametrize(("name", "quality"), PUBLISHED)
def test_reproduces_compressais_published_results(name: str, quality: int, tmp_path: Path) -> None:
    """Where `mlclipsim fetch` was run: within 1e-3 bpp, and 0.01 dB with or without rounding."""
    try:
        coding.open_codec(coding.entry_of(name), quality)
    except ArtifactError as error:
        pytest.skip(str(error))
    evaluation.measure(
        name, Path(os.environ["MLCLIPSIM_ASSETS"]) / "data" / "kodak", [quality], tmp_path / "k.csv"
    )
    means = pd.read_csv(tmp_path / "k.csv")[["bpp", "psnr_db", "psnr_float_db"]].mean()
    bpp, psnr_db = PUBLISHED[name, quality]
    assert means["bpp"] == pytest.approx(bpp, abs=1e-3)
    assert min(abs(means["psnr_db"] - psnr_db), abs(means["psnr_float_db"] - psnr_db)) <= 0.01
