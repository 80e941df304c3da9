"""A segmenter: a map of class labels for each image."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mlclipsim.machines.machine import Machine

__all__ = ["Segmenter"]


class Segmenter(Machine):
    """A frozen segmenter: RGB ``(N, 3, H, W)`` in [0, 1] -> logits ``(N, C, H, W)``; class 0 is background.

    The network gives logits or, as torchvision's do, a dict with ``out``. They are interpolated to the size
    of the images. It has to see the whole image: ``fit`` is ``whole`` or ``stretch``.
    """

    task = "segmentation"
    fits = ("whole", "stretch")

    def forward(self, images: Tensor, preprocessed: Tensor | None = None) -> Tensor:
        logits = self.network(self.normalised(images, preprocessed))
        logits = (logits["out"] if isinstance(logits, dict) else logits).float()
        if logits.shape[-2:] != images.shape[-2:]:
            logits = F.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=False)
        return logits

    @torch.inference_mode()
    def predict(self, images: Tensor, preprocessed: Tensor | None = None) -> np.ndarray:
        """Label maps, uint8 ``(N, H, W)``."""
        logits = self(images, preprocessed)
        if logits.shape[1] > 256:
            raise ValueError(f"a segmenter: expected at most 256 classes, got {logits.shape[1]}")
        labels = logits.max(dim=1).indices  # argmax takes two to three times as long over this axis
        return labels.to(torch.uint8).numpy(force=True)
