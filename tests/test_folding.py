"""Folded networks against themselves, on every kind of network whose batch norms are folded."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from mlclipsim.encoders import load_encoder
from mlclipsim.folding import fold_batch_norms


def unsettled(network: nn.Module) -> nn.Module:
    """The network with statistics and scales that are none of a fresh one's zeros and ones."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.randn(module.num_features, generator=generator) * 0.1
            module.running_var = torch.rand(module.num_features, generator=generator) + 0.5
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.uniform_(module.bias, -0.2, 0.2, generator=generator)
    return network.eval()


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize("name", ["mobilenetv2_050", "resnet18", "regnetx_002"])
def test_a_folded_network_and_its_gradient_are_the_same(name: str) -> None:
    network = unsettled(timm.create_model(name, num_classes=10)).double()
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(2, 3, 64, 64, generator=generator, dtype=torch.float64).requires_grad_()
    before = network(images)
    (wanted,) = torch.autograd.grad(before.square().sum(), images)
    assert norms(network) > 10
    fold_batch_norms(network)
    assert norms(network) == 0
    after = network(images)
    (gradient,) = torch.autograd.grad(after.square().sum(), images)
    torch.testing.assert_close(after, before)
    torch.testing.assert_close(gradient, wanted)


@pytest.mark.parametrize("name", ["scene-clip", "scene-clip-resnet"])
def test_a_tower_gives_the_same_tokens(name: str) -> None:
    tower = load_encoder(name)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    tokens, embedding = tower(images)
    fold_batch_norms(tower.visual)
    assert norms(tower) == 0
    again, embedded = tower(images)
    torch.testing.assert_close(again, tokens, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(embedded, embedding, rtol=1e-4, atol=1e-4)


def test_other_modules_stay() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)).eval()
    parts = list(network)
    assert list(fold_batch_norms(network)) == parts


def test_training_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="evaluation mode"):
        fold_batch_norms(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)))
