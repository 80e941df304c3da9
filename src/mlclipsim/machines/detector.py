"""A detector: scored, labelled boxes in each image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms

from mlclipsim.machines.machine import Machine

__all__ = ["OUTPUTS", "Boxes", "Detector", "yolox_rows"]

_LEAST_SCORE = 0.01  # below this a box is noise to any use, and there are thousands
_MOST_BOXES = 300

# YOLOX (Ge et al., arXiv 2107.08430; utils/boxes.py and demo of Megvii-BaseDetection/YOLOX)
_STRIDES = (8, 16, 32)
_NMS_IOU = 0.65  # its evaluation's


@dataclass(frozen=True)
class Boxes:
    """What a detector found in one image, best first."""

    corners: np.ndarray  # (K, 4) left, top, right, bottom in pixels of the image
    scores: np.ndarray  # (K,) in [0, 1]
    labels: np.ndarray  # (K,) class indices of the detector

    def above(self, score: float) -> Boxes:
        """Only those that score more."""
        kept = self.scores > score
        return Boxes(self.corners[kept], self.scores[kept], self.labels[kept])

    def __len__(self) -> int:
        return len(self.scores)


Found = tuple[Tensor, Tensor, Tensor]  # corners (K, 4) in pixels of the input, scores (K,), labels (K,)


class Detector(Machine):
    """A frozen detector: RGB ``(N, 3, H, W)`` in [0, 1] -> :class:`Boxes` of each image.

    ``output`` says how the network answers: ``torchvision`` takes a list of images and gives dicts of
    ``boxes``, ``scores`` and ``labels``; ``yolox`` gives raw cells ``(N, cells, 5 + C)``, see
    :func:`decode_yolox`. It has to see the whole image, hence no ``fit`` ``crop``.
    """

    task = "detection"
    fits = ("whole", "stretch", "letterbox")

    def __init__(self, network: nn.Module, *, output: str = "torchvision", **preprocessing: Any):
        super().__init__(network, **preprocessing)
        if output not in OUTPUTS:
            raise ValueError(f"output of a detector: expected {' or '.join(OUTPUTS)}, got {output!r}")
        self.answer = OUTPUTS[output]

    @torch.inference_mode()
    def predict(self, images: Tensor, preprocessed: Tensor | None = None) -> list[Boxes]:
        """Boxes per image, in its pixels and inside it, down to a score of .01."""
        height, width = images.shape[-2:]
        rows, columns = self.extent(height, width)
        scale = torch.tensor([width / columns, height / rows] * 2)
        limit = torch.tensor([width, height] * 2, dtype=torch.float32)
        boxes = []
        for corners, scores, labels in self.answer(self.network, self.normalised(images, preprocessed)):
            best = scores.argsort(descending=True, stable=True)
            best = best[scores[best] > _LEAST_SCORE][:_MOST_BOXES]
            placed = (corners[best].cpu() * scale).clamp(min=0).minimum(limit)
            boxes.append(Boxes(placed.numpy(), *(part[best].numpy(force=True) for part in (scores, labels))))
        return boxes


def _torchvision(network: nn.Module, images: Tensor) -> list[Found]:
    found = network(list(images))
    return [(each["boxes"].float(), each["scores"].float(), each["labels"]) for each in found]


def _yolox(network: nn.Module, images: Tensor) -> list[Found]:
    return [decode_yolox(raw, images.shape[-1]) for raw in network(images).float()]


OUTPUTS: dict[str, Callable[[nn.Module, Tensor], list[Found]]] = {
    "torchvision": _torchvision,
    "yolox": _yolox,
}


def yolox_rows(size: int) -> int:
    """Cells of all strides for a square input of ``size`` px."""
    return sum((size // stride) ** 2 for stride in _STRIDES)


def decode_yolox(raw: Tensor, size: int) -> Found:
    """Boxes of YOLOX's raw cells: its grid, its exponential sizes, then NMS within each class.

    Args:
        raw: ``(cells, 5 + C)``: centre and logarithm of the size in units of the stride, objectness, scores
            of the classes (both after their sigmoid). Cells of stride 8 first, then 16, then 32, each row by
            row.
        size: of the square input, px.
    """
    cells, strides = [], []
    for stride in _STRIDES:
        side = torch.arange(size // stride)
        y, x = torch.meshgrid(side, side, indexing="ij")
        cells.append(torch.stack([x, y], dim=-1).view(-1, 2))
        strides.append(torch.full((len(cells[-1]), 1), stride))
    grid, step = torch.cat(cells).to(raw), torch.cat(strides).to(raw)
    if len(raw) != len(grid):
        raise ValueError(f"raw output of YOLOX: expected {len(grid)} cells at {size} px, got {len(raw)}")
    centre = (raw[:, :2] + grid) * step
    half = raw[:, 2:4].exp() * step / 2
    best, labels = raw[:, 5:].max(dim=1)
    scores = raw[:, 4] * best
    likely = scores > _LEAST_SCORE
    corners = torch.cat([centre - half, centre + half], dim=1)[likely]
    scores, labels = scores[likely], labels[likely]
    kept = batched_nms(corners, scores, labels, _NMS_IOU)
    return corners[kept], scores[kept], labels[kept]
