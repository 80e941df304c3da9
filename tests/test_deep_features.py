"""The stand-in for LPIPS: its formula, its gradients, and which networks can carry it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mlclipsim import spec
from mlclipsim.deep_features import DeepFeatures, distance
from mlclipsim.machines import load

PLAN = spec.load(planning=True)


def deep_features(name: str = "scene-vgg") -> DeepFeatures:
    return DeepFeatures(load(name, PLAN.entry("machines", name)))


@pytest.fixture(scope="module")
def metric() -> DeepFeatures:
    return deep_features()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["scene-vgg", "scene-darknet"])
def test_it_is_twice_the_cosine_distance_of_the_layers(name, images):
    """Zhang et al., CVPR 2018, below eq. 1: with weights of 1 it is a cosine distance."""
    metric = deep_features(name)
    network, other = metric.machine.network, images.flip(0)
    maps = [network.forward_intermediates((x - 0.5) / 0.25, intermediates_only=True) for x in (images, other)]
    expected = [2 - 2 * F.cosine_similarity(a, b).mean((1, 2)) for a, b in zip(*maps, strict=True)]
    assert [tuple(m.shape[-2:]) for m in maps[0]][:2] == [(64, 64), (32, 32)]
    torch.testing.assert_close(metric(images, other), torch.stack(expected).mean(0), atol=1e-3, rtol=0)


def test_identity_symmetry_and_order(metric, images):
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    mild, strong = ((images + level * noise).clamp(0, 1) for level in (0.02, 0.2))
    assert metric(images, images).tolist() == [0, 0, 0]
    assert (metric(mild, images) < metric(strong, images)).all()
    torch.testing.assert_close(metric(strong, images), metric(images, strong))
    torch.testing.assert_close(metric(strong, images)[1:2], metric(strong[1:2], images[1:2]))


def test_features_of_the_reference_can_be_kept(metric, images):
    kept = metric.features(images)
    assert torch.equal(distance(metric.features(images.flip(0)), kept), metric(images.flip(0), images))


def test_other_sizes_go_in_as_they_are(metric):
    images = torch.rand(1, 3, 80, 120)
    assert [tuple(m.shape[-2:]) for m in metric.features(images)] == [(80, 120), (40, 60), (20, 30), (10, 15)]


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_gradients_are_finite_on_constant_images_and_at_identity(metric, value):
    constant = torch.full((1, 3, 64, 64), value)
    for reference in (constant, torch.rand(1, 3, 64, 64)):
        image = constant.clone().requires_grad_()
        metric(image, reference).sum().backward()
        assert image.grad.isfinite().all()
    assert not any(p.requires_grad for p in metric.parameters())


@pytest.mark.parametrize("name", ["scene-detector", "scene-segmenter", "scene-shufflenet"])
def test_networks_whose_layers_nobody_names_are_refused(name):
    with pytest.raises(ValueError, match="expected a classifier of timm's, which names its layers, got a"):
        deep_features(name)
