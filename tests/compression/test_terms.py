"""Each term against the definition that it claims, on tiles, and remembered rather than looked at again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from torch import Tensor, nn

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")


def images(side: int, n: int = 2) -> tuple[Tensor, Tensor]:
    """Originals and reconstructions, ``(n, 3, side, side)``."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(n, 3, side // 8, side // 8, generator=generator)
    originals = nn.functional.interpolate(coarse, (side, side), mode="bilinear")
    return originals, (originals + 0.1 * torch.randn(originals.shape, generator=generator)).clamp(0, 1)


@pytest.fixture(scope="module")
def machine() -> Callable[[str], Any]:
    from mlclipsim import spec
    from mlclipsim.machines import load

    plan = spec.load({}, planning=True)
    return lambda name: load(name, plan.entry("machines", name))


@pytest.fixture(scope="module")
def terms(machine: Callable[[str], Any]) -> dict[str, Any]:
    from mlclipsim.compression.terms import ClipDissimilarity, FeatureDistance, MSSSIMLoss, PredictionShift
    from mlclipsim.metric import MLCLIPSim

    return {
        "clip": ClipDissimilarity(MLCLIPSim("scene-clip", weights="uniform")),
        "global": ClipDissimilarity(MLCLIPSim("scene-clip", weights="global")),
        "features": FeatureDistance(machine("scene-vgg")),
        "kl": PredictionShift(machine("scene-regnet")),
        "ms_ssim": MSSSIMLoss(),
    }


@pytest.mark.parametrize("name", ["clip", "global", "features", "kl", "ms_ssim"])
def test_zero_at_identity_and_differentiable(name: str, terms: dict[str, Any]) -> None:
    term, (originals, decoded) = terms[name], images(64)
    seen = term.look(originals)
    assert term.distance(seen, originals).item() == pytest.approx(0, abs=1e-5)
    decoded.requires_grad_()
    distance = term.distance(seen, decoded)
    (gradient,) = torch.autograd.grad(distance, decoded)
    assert distance > 0.001
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0
    assert not any(p.requires_grad and p.grad is not None for p in term.parameters())


def test_clip_dissimilarity_is_one_minus_the_metric(terms: dict[str, Any]) -> None:
    originals, decoded = images(64)
    for name in ("clip", "global"):
        expected = 1 - terms[name].metric.score(reference=originals, distorted=decoded).mean()
        torch.testing.assert_close(terms[name].distance(terms[name].look(originals), decoded), expected)


def test_prediction_shift_is_kullback_leibler(terms: dict[str, Any]) -> None:
    """scipy.stats.entropy is the reference."""
    originals, decoded = images(64)
    p, q = (terms["kl"].machine(x).softmax(1).double().numpy() for x in (originals, decoded))
    found = terms["kl"].distance(terms["kl"].look(originals), decoded).item()
    assert found == pytest.approx(np.mean([entropy(a, b) for a, b in zip(p, q, strict=True)]), rel=1e-4)


def test_feature_distance_is_that_of_the_metric(terms: dict[str, Any]) -> None:
    originals, decoded = images(64)
    expected = terms["features"].network(decoded, originals).mean()
    torch.testing.assert_close(
        terms["features"].distance(terms["features"].look(originals), decoded), expected
    )


def test_ms_ssim_has_five_scales_or_three(terms: dict[str, Any]) -> None:
    """pytorch_msssim is the reference of five, its own function of three weights that of three."""
    from pytorch_msssim import ms_ssim

    term = terms["ms_ssim"]
    originals, decoded = images(176)
    expected = 1 - ms_ssim(decoded, originals, data_range=1.0)
    torch.testing.assert_close(term.distance(term.look(originals), decoded), expected, atol=1e-3, rtol=0)
    three = np.array([0.0448, 0.2856, 0.3001])
    small, coded = originals[..., :160, :160], decoded[..., :160, :160]
    padded = [nn.functional.pad(x, (0, 16, 0, 16), mode="replicate") for x in (small, coded)]
    expected = 1 - ms_ssim(padded[1], padded[0], data_range=1.0, weights=list(three / three.sum()))
    found = term.distance(term.look(small), coded)
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)  # up to the padding


def test_tiles_undo_the_mosaic() -> None:
    from mlclipsim.compression.image_sets import join
    from mlclipsim.compression.terms import tiles
    from mlclipsim.images import to_tensor

    singles = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)
    mosaics = to_tensor(np.stack(join(list(singles), 2)))
    assert torch.equal(tiles(mosaics, 2), to_tensor(singles))
    assert torch.equal(tiles(mosaics, 1), mosaics)


def test_each_original_is_looked_at_once(terms: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from mlclipsim.compression.terms import Originals, tiles

    mosaics, decoded = images(128, 3)
    term, looked = terms["clip"], []
    look = term.look
    monkeypatch.setattr(term, "look", lambda x: looked.append(len(x)) or look(x))
    originals = Originals(mosaics, 2, term)
    for index in ([0, 2], [2, 0], [2, 2]):
        found = originals.distance(index, decoded[index])
        expected = term.metric.loss(reference=tiles(mosaics[index], 2), distorted=tiles(decoded[index], 2))
        torch.testing.assert_close(found, expected)
    assert looked == [4, 4]  # two mosaics of four


def test_overshoot_is_clamped_for_the_term(terms: dict[str, Any]) -> None:
    from mlclipsim.compression.terms import Originals

    mosaics, _ = images(64, 1)
    originals = Originals(mosaics, 1, terms["clip"])
    beyond = (mosaics - 0.5) * 4 + 0.5
    assert originals.distance([0], beyond) == originals.distance([0], beyond.clamp(0, 1))
