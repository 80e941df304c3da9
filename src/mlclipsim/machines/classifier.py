"""A classifier: logits of each image."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mlclipsim.machines.machine import Machine

__all__ = ["Classifier"]


class Classifier(Machine):
    """A frozen classifier: RGB ``(N, 3, H, W)`` in [0, 1] -> logits ``(N, C)`` in float32."""

    task = "classification"

    def forward(self, images: Tensor, preprocessed: Tensor | None = None) -> Tensor:
        return self.network(self.normalised(images, preprocessed)).float()

    @torch.inference_mode()
    def predict(self, images: Tensor, preprocessed: Tensor | None = None) -> np.ndarray:
        """Logits, float32 ``(N, C)``."""
        return self(images, preprocessed).numpy(force=True)
