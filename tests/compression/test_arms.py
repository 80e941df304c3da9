"""Arms: their weights against hand calculation, one order of images for all, and what each trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")

PEAK = 255.0**2
ERROR, SLOPE, LAMBDA = 0.1, 3.0, 0.0035


class Shift(nn.Module):
    """A codec that adds ERROR to every value: D_MSE is 255^2 ERROR^2."""

    downsampling_factor = 1  # images of any size need no padding

    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"x_hat": x + ERROR}


def linear_term() -> Any:
    """``T = SLOPE mean(decoded - original)``: SLOPE ERROR at the shift, with the gradient SLOPE / n."""
    from mlclipsim.compression.terms import Term

    class Linear(Term):
        def look(self, originals: Tensor) -> tuple[Tensor, ...]:
            return (originals,)

        def distance(self, seen: tuple[Tensor, ...], decoded: Tensor) -> Tensor:
            return SLOPE * (decoded - seen[0]).mean()

    return Linear()


def weigh(name: str, rho: float | None = None) -> Any:
    from mlclipsim.compression.arms import ARMS, balance
    from mlclipsim.compression.terms import Originals

    images = torch.full((4, 3, 16, 16), 0.5)
    originals = Originals(images, 1, linear_term()) if name != "mse" else None
    return balance(ARMS[name], rho, LAMBDA, Shift(), originals, images)  # type: ignore[arg-type]


@pytest.mark.parametrize("rho", [0.3, 1.0, 10.0])
def test_weights_by_hand(rho: float) -> None:
    """|grad 255^2 MSE| = 255^2 2 ERROR / sqrt(n), |grad T| = SLOPE / sqrt(n)."""
    found = weigh("ml_clipsim", rho)
    beta = rho * PEAK * 2 * ERROR / SLOPE
    error, term = PEAK * ERROR**2, SLOPE * ERROR
    assert found.beta == pytest.approx(beta, rel=1e-4)
    assert found.lmbda_arm == pytest.approx(LAMBDA * error / (error + beta * term), rel=1e-4)
    assert found.lmbda_arm == pytest.approx(LAMBDA / (1 + 2 * rho), rel=1e-4)  # the same, simplified
    assert (found.base_squared_error, found.base_term) == pytest.approx((error, term), rel=1e-4)
    assert found.rho == rho


def test_mse_keeps_lambda_and_ms_ssim_stands_alone() -> None:
    assert (weigh("mse").lmbda_arm, weigh("mse").beta) == (pytest.approx(LAMBDA), 0)
    alone = weigh("ms_ssim")
    assert alone.beta == 1
    assert alone.lmbda_arm * SLOPE * ERROR == pytest.approx(LAMBDA * PEAK * ERROR**2, rel=1e-4)


@pytest.mark.parametrize("rho", [None, 0.0, -1.0])
def test_a_weight_is_needed(rho: float | None) -> None:
    with pytest.raises(ValueError, match="rho: expected a positive ratio"):
        weigh("clip_global", rho)


def objective(name: str, seed: int = 5, images: Tensor | None = None) -> Any:
    from mlclipsim.compression.arms import ARMS, ArmObjective, Balance
    from mlclipsim.compression.terms import Originals

    if images is None:
        images = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    weights = Balance(LAMBDA, 0.002, 100.0, 1.0, 0.0, 0.0)
    fixed = Originals(images, 1, linear_term())
    return ArmObjective(ARMS[name], weights, fixed, fixed, fixed, seed=seed, batch=2)


def test_all_arms_see_the_same_images_in_the_same_order() -> None:
    orders = {
        name: [objective(name).batch(step)["index"].tolist() for step in range(5)]
        for name in ("mse", "ml_clipsim", "decoder_only")
    }
    assert len({str(order) for order in orders.values()}) == 1
    flat = np.ravel(orders["mse"])
    assert sorted(flat[:5]) == sorted(flat[5:]) == [0, 1, 2, 3, 4]  # epochs, without a gap
    assert [objective("mse", seed=6).batch(step)["index"].tolist() for step in range(5)] != orders["mse"]


def test_the_loss_is_the_sum_of_its_parts(random_codec: Callable[[str], Any]) -> None:
    codec = random_codec("bmshj2018-factorized")
    for name, squared_error, beta in (("mse", 1, 0), ("ml_clipsim", 1, 100), ("ms_ssim", 0, 100)):
        goal = objective(name)
        losses = goal.losses(codec, goal.batch(0))
        distortion = squared_error * PEAK * losses["mse"] + beta * losses.get("term", 0)
        torch.testing.assert_close(losses["loss"], losses["bpp"] + 0.002 * distortion)


def test_validation_averages_over_images(random_codec: Callable[[str], Any]) -> None:
    codec, goal = random_codec("bmshj2018-factorized"), objective("ml_clipsim")
    with torch.no_grad():
        found = goal.validate(codec)
        whole = codec(goal.validation.images)["x_hat"]
    assert found["mse"] == pytest.approx((whole - goal.validation.images).square().mean().item(), rel=1e-4)
    assert found["task"] == pytest.approx(found["term"])


def test_decoder_only_leaves_every_bitstream(
    random_codec: Callable[[str], Any], photograph: Callable[[int, int], np.ndarray], tmp_path: Path
) -> None:
    from mlclipsim.compression.arms import ARMS, freeze
    from mlclipsim.compression.codecs import LearnedCodec, load, save
    from mlclipsim.compression.training import Schedule, train

    model = random_codec("bmshj2018-factorized")
    before = {name: value.clone() for name, value in model.named_parameters()}
    save(model, tmp_path / "base.safetensors")
    freeze(model, ARMS["decoder_only"])
    image = torch.from_numpy(photograph(64, 64)).permute(2, 0, 1)[None] / 255
    train(
        model,
        objective("decoder_only", images=image.repeat(2, 1, 1, 1)),
        Schedule(steps=4, learning_rate=1e-2),
        seed=0,
        checkpoint=tmp_path / "c.pt",
        settings="",
        name="decoder_only",
    )
    moved = [name for name, value in model.named_parameters() if not value.equal(before[name])]
    assert {name.split(".")[0] for name in moved} == {"g_s"}
    save(model, tmp_path / "tuned.safetensors")
    entry = {"model": "bmshj2018-factorized", "channels": [12, 16], "points": {"q1": {}}}
    base, tuned = (
        LearnedCodec(load(entry, "q1", tmp_path / f"{name}.safetensors")) for name in ("base", "tuned")
    )
    stream = base.encode(photograph(64, 64))
    assert tuned.encode(photograph(64, 64)).strings == stream.strings
    assert not np.array_equal(tuned.decode(stream), base.decode(stream))


def test_an_unknown_arm() -> None:
    from mlclipsim.compression.arms import build_term

    with pytest.raises(ValueError, match=r"arm 'psnr' is unknown; expected one of mse, ms_ssim"):
        build_term("psnr", {}, {})
