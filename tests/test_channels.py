"""Terms of the similarities by channel: they sum to the similarities."""

from __future__ import annotations

import pytest
import torch

from mlclipsim import channels, metric
from mlclipsim.comparison import Comparison
from mlclipsim.encoders import load_encoder


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    encoder = load_encoder("scene-clip")
    return Comparison(encoder, encoder.layers, True, "resize", 4)


@pytest.mark.parametrize("n_references", [1, 3])
def test_terms_sum_to_the_similarities(comparison, n_references):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(n, 3, 64, 64, generator=generator) for n in (n_references, 3))
    with torch.no_grad():
        a, b = comparison.encode(x), comparison.encode(y)
        terms, expected = channels.products(a, b), metric.similarities(a, b)
    assert [part.shape for part in terms] == [(3, 96)] * 6 + [(3, 128)]
    sums = torch.stack([part.sum(dim=1) for part in terms], dim=1)
    torch.testing.assert_close(sums, expected, atol=2e-6, rtol=0)
    halves = torch.stack([part.half().double().sum(dim=1) for part in terms], dim=1)
    torch.testing.assert_close(halves, expected.double(), atol=1e-3, rtol=0)


def test_tiles_are_averaged_as_in_the_metric(comparison):
    tiled = Comparison(comparison.encoder, comparison.layers, True, "tile", 4)
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.rand(1, 3, 64, 128, generator=generator) for _ in range(2))
    with torch.no_grad():
        ((a, b),) = tiled.pairs(x, y)
        sums = torch.stack([part.sum(dim=1) for part in channels.products(a, b)], dim=1)
        torch.testing.assert_close(sums, metric.similarities(a, b), atol=2e-6, rtol=0)
