"""Pretrained downstream models: they vote, and they judge. Classifiers, detectors and segmenters.

Each is a :class:`Machine`: ``predict(images)`` takes RGB ``(N, 3, H, W)`` in [0, 1] and gives the predictions
of its task, in one forward pass per image. :func:`load` makes it from its catalog entry.
"""

from mlclipsim.machines.catalog import load
from mlclipsim.machines.classifier import Classifier
from mlclipsim.machines.detector import Boxes, Detector
from mlclipsim.machines.machine import Machine
from mlclipsim.machines.segmenter import Segmenter

__all__ = ["Boxes", "Classifier", "Detector", "Machine", "Segmenter", "load"]
