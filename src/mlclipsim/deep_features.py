"""Distance of deep features: LPIPS without its learned weights, on a network of the catalog.

The stand-in for LPIPS where that cannot run, and never called LPIPS: neither the networks of its authors nor
their weights are in it. Source: Zhang et al., CVPR 2018, eq. 1 with all weights 1 (twice the cosine
distance), as a mean over layers instead of their sum, so that the range does not depend on the network.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mlclipsim.machines import Machine

__all__ = ["DeepFeatures", "distance"]

_EPSILON = 1e-8  # under the root, as in torchmetrics' LPIPS: gradients stay finite where a layer is silent


class DeepFeatures(nn.Module):
    """``(B,)`` distances in [0, 4] of ``(B, 3, H, W)`` in [0, 1]; 0 at identity, differentiable.

    The layers are those that timm names for the architecture, the last of each resolution. Images are taken
    as they are, none is resized.

    Raises:
        ValueError: the machine is no classifier of timm's.
    """

    def __init__(self, machine: Machine):
        super().__init__()
        if machine.task != "classification" or not hasattr(machine.network, "forward_intermediates"):
            raise ValueError(
                "expected a classifier of timm's, which names its layers, got a network of class "
                f"{type(machine.network).__name__} for {machine.task}; choose another feature_network"
            )
        self.machine = machine

    def features(self, images: Tensor) -> list[Tensor]:
        """A map per layer, ``(B, C, h, w)``, its channels of unit length at each place."""
        normalised = self.machine.normalised(images, preprocessed=images)
        maps = self.machine.network.forward_intermediates(  # type: ignore[operator]
            normalised, intermediates_only=True
        )
        return [m / (m.square().sum(1, keepdim=True) + _EPSILON).sqrt() for m in maps]

    def forward(self, distorted: Tensor, reference: Tensor) -> Tensor:
        return distance(self.features(distorted), self.features(reference))


def distance(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """``(B,)`` from two images' ``features``: squared, averaged over a layer's places, then over layers."""
    layers = [(a - b).square().sum(1).mean((1, 2)) for a, b in zip(first, second, strict=True)]
    return torch.stack(layers).mean(0)
