"""How right machines are on decoded images: the usual measure of each task, over a whole set of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from mlclipsim.compression.image_sets import IGNORED
from mlclipsim.machines.detector import Boxes

__all__ = ["MEASURES", "measure"]

MEASURES = {"classification": "top1", "detection": "map50", "segmentation": "miou"}


def measure(task: str, predictions: Sequence[Any], truth: Sequence[Any]) -> tuple[float, int]:
    """The measure of a task in [0, 1], and the number of images whose truth is known; NaN without any.

    - ``top1``: share of images whose most likely class is theirs.
    - ``map50``: mean average precision at an IoU of 1/2, as COCO computes it.
    - ``miou``: intersection over union of all images together, mean over the classes that are in the truth.

    Args:
        predictions: of one machine, what its ``predict`` gives.
        truth: as in ``ImageSet.truth``; None where it is not known.
    """
    known = [(seen, true) for seen, true in zip(predictions, truth, strict=True) if true is not None]
    if not known:
        return float("nan"), 0
    seen, true = ([pair[side] for pair in known] for side in (0, 1))
    return _COMPUTED[task](seen, true), len(known)


def _top1(logits: list[np.ndarray], labels: list[int]) -> float:
    return float((np.stack(logits).argmax(axis=1) == np.array(labels)).mean())


def _map50(found: list[Boxes], truth: list[Boxes]) -> float:
    from torchmetrics.detection import MeanAveragePrecision  # seconds to import, and only detectors need it

    metric = MeanAveragePrecision(iou_thresholds=[0.5])
    metric.warn_on_many_detections = False
    metric.update(
        [_tensors(boxes) | {"scores": torch.from_numpy(boxes.scores).float()} for boxes in found],
        [_tensors(boxes) for boxes in truth],
    )
    return float(metric.compute()["map_50"])


def _tensors(boxes: Boxes) -> dict[str, torch.Tensor]:
    return {"boxes": torch.from_numpy(boxes.corners).float(), "labels": torch.from_numpy(boxes.labels).long()}


def _miou(maps: list[np.ndarray], truth: list[np.ndarray]) -> float:
    classes = 1 + max(int(true[true != IGNORED].max(initial=0)) for true in truth)
    classes = max(classes, 1 + max(int(seen.max()) for seen in maps))
    confusion = np.zeros((classes, classes))
    for seen, true in zip(maps, truth, strict=True):
        counted = true != IGNORED
        pairs = true[counted].astype(np.int64) * classes + seen[counted]
        confusion += np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    there = confusion.sum(axis=1) > 0
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - confusion.diagonal()
    return float((confusion.diagonal()[there] / union[there]).mean())


_COMPUTED: dict[str, Callable[[list[Any], list[Any]], float]] = {
    "classification": _top1,
    "detection": _map50,
    "segmentation": _miou,
}
