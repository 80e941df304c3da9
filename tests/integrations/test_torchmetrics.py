"""The torchmetrics form: the mean over all images, however they were dealt to batches and processes."""

from __future__ import annotations

import pytest
import torch
from torchmetrics import MetricCollection

from mlclipsim.integrations.torchmetrics import MultiLayerCLIPSimilarity
from mlclipsim.metric import MLCLIPSim


@pytest.fixture(scope="module")
def metric() -> MLCLIPSim:
    return MLCLIPSim("scene-clip")


@pytest.fixture(scope="module")
def images() -> tuple[torch.Tensor, torch.Tensor]:
    x, noise = torch.rand(2, 5, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return x, (0.7 * x + 0.3 * noise)


def test_mean_over_batches_of_any_size(metric: MLCLIPSim, images: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, y = images
    expected = metric.score(reference=x, distorted=y)
    similarity = MultiLayerCLIPSimilarity(metric)
    torch.testing.assert_close(similarity(y[:2], x[:2]), expected[:2].mean())  # forward: of this batch
    similarity.update(y[2:], x[2:])
    torch.testing.assert_close(similarity.compute(), expected.mean())
    similarity.reset()
    similarity.update(y[:1], x[:1])
    torch.testing.assert_close(similarity.compute(), expected[0])
    assert similarity.higher_is_better
    assert list(similarity.metric.state_dict()) == ["theta"]


def test_states_of_processes_add_up(metric: MLCLIPSim, images: tuple[torch.Tensor, torch.Tensor]) -> None:
    """As torchmetrics merges them: by the declared reduction, a sum."""
    x, y = images
    parts = [MultiLayerCLIPSimilarity(metric) for _ in range(2)]
    parts[0].update(y[:1], x[:1])
    parts[1].update(y[1:], x[1:])
    parts[0].merge_state(parts[1])
    torch.testing.assert_close(parts[0].compute(), metric.score(reference=x, distorted=y).mean())


def test_batch_value_is_differentiable_and_nothing_is_kept(
    metric: MLCLIPSim, images: tuple[torch.Tensor, torch.Tensor]
) -> None:
    x, y = images[0], images[1].clone().requires_grad_()
    similarity = MultiLayerCLIPSimilarity(metric)
    (1 - similarity(y, x)).backward()
    assert y.grad is not None
    assert y.grad.abs().sum() > 0
    assert not similarity.total.requires_grad


def test_in_a_collection(metric: MLCLIPSim, images: tuple[torch.Tensor, torch.Tensor]) -> None:
    collection = MetricCollection({"ml_clip_sim": MultiLayerCLIPSimilarity(metric)})
    collection.update(images[1], images[0])
    assert set(collection.compute()) == {"ml_clip_sim"}
