"""The loop: what it optimises, that a kill leaves no trace, and that it stops at what is no number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

if TYPE_CHECKING:
    from mlclipsim.compression.training import Schedule

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")

FACTORIZED = "bmshj2018-factorized"


class Toy:
    """Rate plus error on a few fixed images; counts its batches."""

    def __init__(self, stop: int | None = None, spoil: int | None = None) -> None:
        self.images = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(1))
        self.stop, self.spoil = stop, spoil
        self.steps: list[int] = []

    def batch(self, step: int) -> dict[str, Tensor]:
        if step == self.stop:
            raise KeyboardInterrupt
        self.steps.append(step)
        images = self.images[[step % 6, (step + 1) % 6]]
        return {"images": images * torch.nan if step == self.spoil else images}

    def losses(self, model: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        from mlclipsim.compression.training import RateDistortionLoss

        found = RateDistortionLoss(0.01)(model(batch["images"]), batch["images"])
        return {"loss": found["loss"], "bpp": found["bpp_loss"]}

    def validate(self, model: Any) -> dict[str, float]:
        return {key: value.item() for key, value in self.losses(model, {"images": self.images}).items()}


def schedule(steps: int = 12) -> Schedule:
    from mlclipsim.compression.training import Schedule

    return Schedule(steps=steps, learning_rate=1e-3, validations=4)


def run(model: Any, objective: Toy, checkpoint: Path, **changes: Any) -> list[dict[str, float]]:
    from mlclipsim.compression.training import train

    arguments = {"seed": 7, "checkpoint": checkpoint, "settings": "a", "name": "toy"} | changes
    return train(model, objective, schedule(), **arguments)


@pytest.mark.parametrize("stop", [1, 7, 11])
def test_a_killed_training_ends_with_the_same_bits(
    stop: int, random_codec: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = random_codec(FACTORIZED)
    curve = run(whole, Toy(), tmp_path / "whole.pt")
    monkeypatch.setattr("mlclipsim.compression.training.CHECKPOINT_SECONDS", -1)
    with pytest.raises(KeyboardInterrupt):
        run(random_codec(FACTORIZED), Toy(stop=stop), tmp_path / "killed.pt")
    resumed, toy = random_codec(FACTORIZED), Toy()
    assert run(resumed, toy, tmp_path / "killed.pt") == curve
    assert toy.steps[0] == stop
    for (name, one), other in zip(whole.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other), name


def test_a_checkpoint_of_other_settings_is_left(random_codec: Callable[[str], Any], tmp_path: Path) -> None:
    run(random_codec(FACTORIZED), Toy(), tmp_path / "c.pt")
    toy = Toy()
    run(random_codec(FACTORIZED), toy, tmp_path / "c.pt", settings="b")
    assert toy.steps[0] == 0


def test_the_curve_has_both_ends_and_the_loss_falls(
    random_codec: Callable[[str], Any], tmp_path: Path
) -> None:
    curve = run(random_codec(FACTORIZED), Toy(), tmp_path / "c.pt")
    assert [row["step"] for row in curve] == [0, 3, 6, 9, 12]
    assert curve[-1]["validation_loss"] < curve[0]["validation_loss"]
    assert "train_loss" not in curve[0]
    assert curve[1]["train_bpp"] > 0


def test_quantiles_follow_their_own_loss(random_codec: Callable[[str], Any], tmp_path: Path) -> None:
    model = random_codec(FACTORIZED)
    before = model.aux_loss().item()
    run(model, Toy(), tmp_path / "c.pt")
    assert model.aux_loss().item() < before


def test_the_global_random_state_is_untouched(random_codec: Callable[[str], Any], tmp_path: Path) -> None:
    model = random_codec(FACTORIZED)
    torch.manual_seed(3)
    expected = torch.get_rng_state()
    run(model, Toy(), tmp_path / "c.pt")
    assert torch.equal(torch.get_rng_state(), expected)


def test_stops_at_nan_and_keeps_the_batch(random_codec: Callable[[str], Any], tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match=r"loss nan.* at step 5, whose batch is .*lower the"):
        run(random_codec(FACTORIZED), Toy(spoil=5), tmp_path / "c.pt")
    (saved,) = tmp_path.glob("*.step-5.safetensors")
    assert load_file(saved)["images"].shape == (2, 3, 32, 32)


def test_the_learning_rate_rises_then_falls_to_a_hundredth() -> None:
    rates = [schedule(100).rate(step) for step in range(100)]
    assert rates[4] == pytest.approx(1e-3)
    assert rates[:5] == sorted(rates[:5])
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[-1] == pytest.approx(1e-5, rel=0.1)


def test_entropy_models_stay_in_float32(
    random_codec: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """bfloat16 on a GPU; here the same wrapping on a CPU."""
    from mlclipsim.compression.training import keep_float32

    model = random_codec(FACTORIZED)
    keep_float32(model, "cpu")
    with torch.autocast("cpu", torch.bfloat16):
        output = model(torch.rand(1, 3, 32, 32))
    assert output["x_hat"].dtype == torch.bfloat16
    assert output["likelihoods"]["y"].dtype == torch.float32
