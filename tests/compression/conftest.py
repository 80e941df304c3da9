"""Small random codecs of every kind, and photographs to code."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest
from skimage import data

if TYPE_CHECKING:
    from compressai.models import CompressionModel

CHANNELS = {
    "bmshj2018-factorized": (12, 16),
    "bmshj2018-hyperprior": (8, 12),
    "mbt2018-mean": (8, 12),
    "mbt2018": (8, 12),
    "cheng2020-anchor": (8,),
}


@pytest.fixture(scope="session")
def photograph() -> Callable[[int, int], np.ndarray]:
    """``photograph(height, width)``: a cut of scikit-image's astronaut, uint8 ``(H, W, 3)``."""
    return lambda height, width: np.ascontiguousarray(data.astronaut()[:height, 160 : 160 + width])


@pytest.fixture(scope="session")
def random_codec() -> Callable[[str], CompressionModel]:
    """Makes a small network with random weights, the same every time, whose latents are worth coding."""
    import torch

    from mlclipsim.compression.codecs import build, update_tables

    def make(model: str) -> CompressionModel:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = build(model, CHANNELS[model])

        def last(part: torch.nn.Module) -> torch.nn.Module:
            return [module for module in part.modules() if hasattr(module, "kernel_size")][-1]

        last(network.g_a).weight.data *= 30  # else all latents round to zero
        if hasattr(network, "h_s"):  # and standard deviations that suit them
            scales = last(getattr(network, "entropy_parameters", network.h_s))
            scales.bias.data[: CHANNELS[model][-1]] = 3.0
        update_tables(network)
        return network.eval()

    return make
