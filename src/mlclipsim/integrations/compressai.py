"""ML-CLIPSim as a criterion of CompressAI: rate, mean squared error and what machines no longer see."""

from __future__ import annotations

from typing import Any

from compressai.losses import RateDistortionLoss
from compressai.registry import register_criterion
from torch import Tensor, nn

from mlclipsim.metric import MLCLIPSim

__all__ = ["MLCLIPSimRateDistortionLoss"]


@register_criterion("MLCLIPSimRateDistortionLoss")
class MLCLIPSimRateDistortionLoss(nn.Module):
    """``R + lmbda (255^2 MSE + beta (1 - S))``, called as ``compressai.losses.RateDistortionLoss``.

    ``R`` in bits per pixel, estimated from the likelihoods; ``S`` averaged over the batch. With beta = 0 it
    is CompressAI's own loss for MSE. The two distortions weigh alike near a beta of 300 to 750.

    A codec in training overshoots [0, 1]: the reconstruction is clamped for ``S``, the MSE sees it as it is
    and pulls it back.

    Args:
        metric: the metric, or the name of its encoder; train on crops of its encoder's size, so that nothing
            is resized inside the loss.
        lmbda: weight of the distortion, CompressAI's .0018 ... .0483 for MSE.
        beta: weight of ``1 - S`` against ``255^2 MSE``.
        return_type: ``all``, or the name of the one loss to return.

    Raises:
        ValueError: weights that are negative.
    """

    def __init__(
        self,
        metric: MLCLIPSim | str | None = None,
        lmbda: float = 0.01,
        beta: float = 500.0,
        return_type: str = "all",
    ) -> None:
        super().__init__()
        if not lmbda >= 0 or not beta >= 0:
            raise ValueError(f"expected lmbda and beta of at least 0, got {lmbda} and {beta}")
        if isinstance(metric, str):
            metric = MLCLIPSim(metric)
        self.metric = MLCLIPSim() if metric is None else metric
        self.rate_distortion = RateDistortionLoss(lmbda, metric="mse")
        self.beta = beta
        self.return_type = return_type

    def forward(self, output: dict[str, Any], target: Tensor) -> Any:
        """Losses of what a codec gave, each a scalar: ``bpp_loss``, ``mse_loss``, ``ml_clip_sim_loss``
        (1 - S) and their weighted sum ``loss``.

        Args:
            output: ``x_hat``, ``(N, 3, H, W)``, and ``likelihoods`` by name.
            target: ``(N, 3, H, W)``, RGB in [0, 1].
        """
        losses = self.rate_distortion(output, target)
        losses["ml_clip_sim_loss"] = self.metric.loss(reference=target, distorted=output["x_hat"].clamp(0, 1))
        losses["loss"] = losses["loss"] + self.rate_distortion.lmbda * self.beta * losses["ml_clip_sim_loss"]
        return losses if self.return_type == "all" else losses[self.return_type]
