"""The CompressAI form: its own loss for MSE plus what the metric adds, called in the same way."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mlclipsim.metric import MLCLIPSim

# compressai imports pytorch_msssim, which compiles a function with torch.jit.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")


@pytest.fixture(scope="module")
def metric() -> MLCLIPSim:
    return MLCLIPSim("scene-clip")


@pytest.fixture
def coded() -> tuple[dict[str, Any], torch.Tensor]:
    target, noise = torch.rand(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    x_hat = (target + 0.2 * (noise - 0.5)).requires_grad_()  # overshoots [0, 1], as codecs in training do
    return {"x_hat": x_hat, "likelihoods": {"y": torch.full((2, 8, 4, 4), 0.5)}}, target


def test_adds_to_compressais_own_loss(metric: MLCLIPSim, coded: tuple[dict[str, Any], torch.Tensor]) -> None:
    """R + lambda (255^2 MSE + beta (1 - S)), against CompressAI's R + lambda 255^2 MSE."""
    from compressai.losses import RateDistortionLoss

    from mlclipsim.integrations.compressai import MLCLIPSimRateDistortionLoss

    output, target = coded
    theirs = RateDistortionLoss(lmbda=0.0130)(output, target)
    criterion = MLCLIPSimRateDistortionLoss(metric, lmbda=0.0130, beta=300)
    ours = criterion(output, target)
    similarity = metric.score(reference=target, distorted=output["x_hat"].detach().clamp(0, 1)).mean()
    assert ours["bpp_loss"] == theirs["bpp_loss"] == 8 * 16 / 64**2  # 128 symbols of one bit an image
    assert ours["mse_loss"] == theirs["mse_loss"]
    torch.testing.assert_close(ours["ml_clip_sim_loss"], 1 - similarity, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours["loss"], theirs["loss"] + 0.0130 * 300 * ours["ml_clip_sim_loss"])
    nothing = MLCLIPSimRateDistortionLoss(metric, lmbda=0.0130, beta=0)(output, target)
    torch.testing.assert_close(nothing["loss"], theirs["loss"])


def test_gradient_and_registry(metric: MLCLIPSim, coded: tuple[dict[str, Any], torch.Tensor]) -> None:
    from compressai.registry import CRITERIONS

    from mlclipsim.integrations.compressai import MLCLIPSimRateDistortionLoss

    output, target = coded
    criterion = CRITERIONS["MLCLIPSimRateDistortionLoss"](metric, return_type="ml_clip_sim_loss")
    assert isinstance(criterion, MLCLIPSimRateDistortionLoss)
    criterion(output, target).backward()
    gradient = output["x_hat"].grad
    assert torch.isfinite(gradient).all()
    assert gradient.abs().sum() > 0
    assert not [p for p in criterion.parameters() if p.requires_grad]
    for wrong in ({"lmbda": -1}, {"beta": float("nan")}):
        with pytest.raises(ValueError, match="expected lmbda and beta of at least 0"):
            MLCLIPSimRateDistortionLoss(metric, **wrong)
