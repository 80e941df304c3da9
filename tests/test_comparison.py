"""Pairs in batches: what is computed, how much at a time, and that it moves no score."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mlclipsim.encoders import Encoder
from mlclipsim.metric import MLCLIPSim


@pytest.fixture(scope="module")
def vit(tiny: Callable[[str], Encoder]) -> Encoder:
    return tiny("vit")


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(2, 7, 3, 64, 130, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def seen(vit: Encoder):
    """Sizes of the batches that go through the encoder."""
    sizes: list[int] = []
    hook = vit.visual.conv1.register_forward_pre_hook(lambda _module, inputs: sizes.append(len(inputs[0])))
    yield sizes
    hook.remove()


def test_scores_come_in_batches(vit: Encoder, images: torch.Tensor, seen: list[int]) -> None:
    x, y = images
    whole = MLCLIPSim(vit, batch_size=None).score(reference=x, distorted=y)
    assert seen == [7, 7]
    metric = MLCLIPSim(vit, batch_size=3)
    seen.clear()
    torch.testing.assert_close(metric.score(reference=x, distorted=y), whole, atol=1e-6, rtol=0)
    assert seen == [3, 3, 3, 3, 1, 1]  # reference and distorted images of a batch, in turn
    seen.clear()
    encoded = metric.encode(x)
    torch.testing.assert_close(metric.score(reference=encoded, distorted=y), whole, atol=1e-6, rtol=0)
    assert seen == [3, 3, 1, 3, 3, 1]
    seen.clear()
    one = metric.score(reference=x[:1], distorted=y)
    assert seen == [1, 3, 3, 1]  # a single reference is encoded once
    torch.testing.assert_close(one[0], whole[0], atol=1e-6, rtol=0)
    seen.clear()
    metric.loss(reference=x, distorted=y.clone().requires_grad_())
    assert seen == [3, 3, 1, 7]  # a graph holds everything anyway


def test_tiles_count_towards_a_batch(vit: Encoder, images: torch.Tensor, seen: list[int]) -> None:
    x, y = images
    whole = MLCLIPSim(vit, size_policy="tile", batch_size=None)
    metric = MLCLIPSim(vit, size_policy="tile", batch_size=6)  # two images of three tiles
    expected = whole.per_layer(reference=x, distorted=y)
    seen.clear()
    torch.testing.assert_close(metric.per_layer(reference=x, distorted=y), expected, atol=1e-6, rtol=0)
    assert seen == [6, 6, 6, 6, 6, 6, 3, 3]
    torch.testing.assert_close(
        metric.map(reference=x, distorted=y), whole.map(reference=x, distorted=y), atol=1e-5, rtol=0
    )
    seen.clear()
    MLCLIPSim(vit, size_policy="tile", batch_size=2).score(reference=x[:1], distorted=y[:1])
    assert seen == [2, 1, 2, 1]  # fewer tiles than one image has


def test_wrong_arguments(vit: Encoder, images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="batch_size: expected at least 1, or None for no limit, got 0"):
        MLCLIPSim(vit, batch_size=0)
    metric = MLCLIPSim(vit)
    with pytest.raises(
        TypeError, match=r"reference: expected a tensor .* or what encode\(\) gave, got ndarray"
    ):
        metric.score(reference=images[0].numpy(), distorted=images[1])
    for other in (MLCLIPSim(vit, layers=[1]), MLCLIPSim(vit, use_global=False)):
        with pytest.raises(
            ValueError, match="encoded by a metric with other layers; encode it with this one"
        ):
            metric.score(reference=other.encode(images[0]), distorted=images[1])
    with pytest.raises(ValueError, match="got one image"):
        metric.score(reference=images[0, 0], distorted=images[1, 0])
