"""ML-CLIPSim as a ``torchmetrics.Metric``: mean score over batches, epochs and processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from mlclipsim.metric import MLCLIPSim

__all__ = ["MultiLayerCLIPSimilarity"]


class MultiLayerCLIPSimilarity(Metric):
    """Mean ``S`` over all images seen, in [-1, 1], larger is closer.

    Images: ``(N, 3, H, W)``, RGB in [0, 1]. In torchmetrics' order ``preds`` are the distorted images and
    ``target`` the references (the score is the same either way round).

    Args:
        metric: the metric, or the name of its encoder.
        kwargs: of ``torchmetrics.Metric``.

    >>> similarity = MultiLayerCLIPSimilarity("scene-clip")
    >>> x = torch.linspace(0, 1, 3 * 64 * 64).view(1, 3, 64, 64)
    >>> similarity.update(x, x)
    >>> similarity.compute()
    tensor(1.)
    """

    is_differentiable = True
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = -1.0
    plot_upper_bound = 1.0

    total: Tensor
    count: Tensor

    def __init__(self, metric: MLCLIPSim | str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if isinstance(metric, str):
            metric = MLCLIPSim(metric)
        self.metric = MLCLIPSim() if metric is None else metric
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch."""
        scores = self.metric(reference=target, distorted=preds)  # (N,)
        self.total = self.total + scores.sum()
        self.count = self.count + len(scores)

    def compute(self) -> Tensor:
        """The mean, a scalar."""
        return self.total / self.count
