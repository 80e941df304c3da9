"""Measures of the three tasks by hand."""

from __future__ import annotations

import numpy as np
import pytest

from mlclipsim.compression.ground_truth import measure
from mlclipsim.compression.image_sets import IGNORED
from mlclipsim.machines.detector import Boxes


def _boxes(*corners, scores=None, labels=None):
    n = len(corners)
    return Boxes(
        np.array(corners, float).reshape(-1, 4),
        np.ones(n) if scores is None else np.array(scores, float),
        np.zeros(n, int) if labels is None else np.array(labels),
    )


def test_top1_counts_only_what_is_known():
    logits = [np.array([1.0, 0.0]), np.array([1.0, 0.0]), np.array([0.0, 1.0])]
    assert measure("classification", logits, [0, 1, None]) == (0.5, 2)
    value, n = measure("classification", logits, [None] * 3)
    assert np.isnan(value)
    assert n == 0


def test_map50_of_half_the_objects():
    truth = [_boxes((0, 0, 10, 10)), _boxes((0, 0, 10, 10))]
    right = _boxes((0, 0, 10, 9), scores=[0.9])
    assert measure("detection", [right, right], truth) == (pytest.approx(1), 2)
    missed = _boxes((20, 20, 30, 30), scores=[0.5])
    # recall reaches 1/2 at full precision: 51 of COCO's 101 recall levels
    assert measure("detection", [right, missed], truth)[0] == pytest.approx(51 / 101)


def test_miou_is_over_all_images_and_leaves_out_what_is_not_annotated():
    true = np.array([[0, 0, 1, IGNORED]], np.uint8)
    seen = np.array([[0, 1, 1, 2]], np.uint8)
    assert measure("segmentation", [seen], [true])[0] == pytest.approx((1 / 2 + 1 / 2) / 2)
    both = measure("segmentation", [seen, np.array([[0, 0, 0, 0]])], [true, np.zeros((1, 4), np.uint8)])
    assert both == (pytest.approx((5 / 6 + 1 / 2) / 2), 2)
