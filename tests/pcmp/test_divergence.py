"""Divergences against SciPy, calibration, and the tie rule."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cosine, jensenshannon
from scipy.special import softmax
from scipy.stats import entropy

from mlclipsim.machines import Boxes
from mlclipsim.pcmp.divergence import (
    ALL_KINDS,
    KINDS,
    abstains,
    box_f1,
    compare,
    divergences,
    fit_temperature,
    mean_iou,
    prefers,
)

RULE = {"tie_log": 0.25, "epsilon": 0.01, "tie_bounded": 0.01}


@pytest.mark.parametrize("temperature", [0.6, 1.0, 2.5])
def test_divergences_agree_with_scipy(temperature):
    """Sources: scipy.stats.entropy (KL), scipy.spatial.distance.jensenshannon (its square) and cosine."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 3, (2, 50, 10))
    found = divergences(x, y, temperature)
    assert tuple(found) == KINDS
    p, q = softmax(x / temperature, axis=1), softmax(y / temperature, axis=1)
    np.testing.assert_allclose(found["kl"], entropy(p, q, axis=1), rtol=1e-9)
    p4, q4 = softmax(x / temperature / 4, axis=1), softmax(y / temperature / 4, axis=1)
    np.testing.assert_allclose(found["kl_t4"], entropy(p4, q4, axis=1), rtol=1e-9)
    np.testing.assert_allclose(found["js"], jensenshannon(p, q, axis=1) ** 2, rtol=1e-7)
    np.testing.assert_allclose(
        found["logit_cosine"], [cosine(a, b) for a, b in zip(x, y, strict=True)], rtol=1e-9
    )
    np.testing.assert_array_equal(found["top1"], x.argmax(1) != y.argmax(1))


def test_equal_predictions_do_not_diverge():
    logits = np.random.default_rng(1).normal(0, 5, (20, 1000)).astype(np.float32)
    for kind, value in divergences(logits, logits.copy(), 1.3).items():
        assert (value == 0).all(), kind


def test_extreme_logits_stay_finite():
    x = np.array([[1000.0, 0, -1000], [0, 0, 0]], np.float32)
    y = np.array([[-1000.0, 0, 1000], [1000, 0, 0]], np.float32)
    for kind, value in divergences(x, y, 1.0).items():
        assert np.isfinite(value).all(), kind
        assert (value >= 0).all(), kind


def test_temperature_recovers_the_scale_of_miscalibrated_logits():
    rng = np.random.default_rng(2)
    logits = rng.normal(0, 2, (20000, 5))
    labels = (softmax(logits, axis=1).cumsum(axis=1) > rng.random((20000, 1))).argmax(axis=1)
    assert fit_temperature(logits * 3.0, labels) == pytest.approx(3.0, rel=0.05)
    assert fit_temperature(logits * 0.5, labels) == pytest.approx(0.5, rel=0.05)


def test_temperature_of_a_network_without_an_error():
    # Of N right answers with equal margins, the rest that Platt leaves is all that the other classes get.
    n, classes, margin = 98, 10, 12.0
    labels = np.arange(n) % classes
    logits = margin * np.eye(classes)[labels]
    likely = softmax(logits / fit_temperature(logits, labels), axis=1)[np.arange(n), labels]
    assert likely == pytest.approx((n + 1) / (n + 2), abs=1e-6)


def test_calibration_needs_labels_of_the_voters_classes():
    with pytest.raises(ValueError, match="expected labelled clean images"):
        fit_temperature(np.zeros((0, 5)), np.zeros(0, int))
    with pytest.raises(ValueError, match=r"expected labels in \[0, 4\]"):
        fit_temperature(np.zeros((2, 5)), np.array([0, 7]))


def test_votes_by_hand():
    # ln(.11) - ln(.05 + .01) = 0.606 > .25; ln(.11 / .10) = 0.095 < .25; both far below epsilon: a tie.
    d_a = np.array([0.05, 0.10, 0.09, 0.0, 1.0, np.nan])
    d_b = np.array([0.10, 0.05, 0.10, 0.001, 0.5, 0.3])
    np.testing.assert_array_equal(prefers(d_a, d_b, kind="kl", **RULE), [1, 0, 0.5, 0.5, 0, np.nan])


def test_the_tie_rule_in_nats_is_a_ratio():
    # e^0.25 = 1.284: (x + .01) may be 28 % larger and still tie.
    assert prefers(np.array([1.0]), np.array([1.0]) * 1.29 + 0.01, kind="js", **RULE) == 1
    assert prefers(np.array([0.99]), np.array([1.27]), kind="js", **RULE) == 0.5


def test_bounded_divergences_tie_by_difference():
    np.testing.assert_array_equal(
        prefers(np.array([0.5, 0.5, 0.0]), np.array([0.505, 0.52, 1.0]), kind="logit_cosine", **RULE),
        [0.5, 1, 1],
    )
    np.testing.assert_array_equal(
        prefers(np.array([0.0, 1, 1]), np.array([1.0, 0, 1]), kind="top1", **RULE), [1, 0, 0.5]
    )


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_swapping_the_sides_mirrors_the_vote(kind):
    d_a, d_b = np.random.default_rng(3).exponential(0.3, (2, 200))
    one, other = prefers(d_a, d_b, kind=kind, **RULE), prefers(d_b, d_a, kind=kind, **RULE)
    np.testing.assert_array_equal(one, 1 - other)


def test_unknown_kind():
    with pytest.raises(ValueError, match="divergence 'l2' is unknown"):
        prefers(np.zeros(1), np.zeros(1), kind="l2", **RULE)


def boxes(*rows: tuple[float, float, float, float, float, int]) -> Boxes:
    """From (left, top, right, bottom, score, label)."""
    table = np.array(rows, np.float64).reshape(-1, 6)
    return Boxes(table[:, :4], table[:, 4], table[:, 5].astype(int))


def test_box_f1_by_hand():
    x = boxes(
        (0, 0, 10, 10, 0.9, 1), (20, 0, 30, 10, 0.8, 2), (40, 0, 50, 10, 0.7, 1), (0, 0, 10, 10, 0.3, 1)
    )
    # IoU 80 / 120 with the first; IoU 1 with the second, but of another class; the third is not found;
    # .31 is found, .3 is not. One match of 3 and 3 boxes.
    y = boxes(
        (2, 0, 12, 10, 0.5, 1), (20, 0, 30, 10, 0.9, 1), (70, 0, 80, 10, 0.31, 2), (40, 0, 50, 10, 0.2, 1)
    )
    assert box_f1(x, y) == pytest.approx(1 - 2 * 1 / (3 + 3))
    assert box_f1(x, x) == 0
    assert box_f1(x, boxes()) == 1
    assert np.isnan(box_f1(boxes((0, 0, 9, 9, 0.3, 1)), y))


def test_a_box_is_matched_once_and_the_better_overlap_first():
    one = boxes((0, 0, 10, 10, 0.9, 1))
    two = boxes((0, 0, 10, 10, 0.9, 1), (0, 0, 10, 9, 0.95, 1))
    assert box_f1(one, two) == pytest.approx(1 - 2 / 3)
    # By score the first of `far` would take `near`'s only partner; by overlap both are matched.
    x = boxes((0, 0, 10, 10, 0.9, 1), (3, 0, 13, 10, 0.8, 1))  # IoU with (2, 0, 12, 10): 80/120, 90/110
    y = boxes((2, 0, 12, 10, 0.9, 1), (-3, 0, 7, 10, 0.5, 1))  # IoU with (0, 0, 10, 10): 70/130
    assert box_f1(x, y) == 0
    assert box_f1(y, x) == 0


def test_half_an_overlap_is_a_match_and_less_is_not():
    whole = boxes((0, 0, 10, 10, 0.9, 1))
    assert box_f1(whole, boxes((0, 0, 10, 5, 0.9, 1))) == 0
    assert box_f1(whole, boxes((0, 0, 10, 4.9, 0.9, 1))) == 1


def test_mean_iou_by_hand():
    x = np.array([[0, 0, 1, 1], [0, 0, 1, 1]], np.uint8)
    y = np.array([[0, 0, 1, 0], [0, 0, 1, 7]], np.uint8)
    # background 4 of 5, class 1 2 of 4, class 7 0 of 1; classes 2 to 6 are in neither
    assert mean_iou(x, y) == pytest.approx(1 - np.mean([4 / 5, 2 / 4, 0]))
    assert mean_iou(x, x) == 0
    full = np.full((2, 4), 255, np.uint8)
    assert mean_iou(full, full - 1) == 1


def test_mean_iou_agrees_with_scikit_learn():
    """Source: sklearn.metrics.jaccard_score, macro average over the labels that occur."""
    from sklearn.metrics import jaccard_score

    x, y = np.random.default_rng(0).integers(0, 6, (2, 40, 40)).astype(np.uint8)
    assert mean_iou(x, y) == pytest.approx(1 - jaccard_score(x.ravel(), y.ravel(), average="macro"))


def test_who_sees_nothing_abstains():
    speck = np.zeros((20, 20), np.uint8)
    speck[0, :4] = 3  # 1 % of the pixels
    assert abstains("segmentation", speck)
    assert np.isnan(mean_iou(speck, np.ones_like(speck)))
    speck[0, 4] = 3
    assert not abstains("segmentation", speck)
    assert abstains("detection", boxes((0, 0, 9, 9, 0.3, 1)))
    assert not abstains("detection", boxes((0, 0, 9, 9, 0.31, 1)))
    assert not abstains("classification", np.zeros(5))


def test_compare_has_every_kind_of_the_task():
    x = np.random.default_rng(0).normal(size=(3, 5))
    assert tuple(compare("classification", x, x, 1.0)) == KINDS
    one = boxes((0, 0, 9, 9, 0.9, 1))
    assert compare("detection", [one, boxes()], [one, one], np.nan)["box_f1"].tolist() == [
        0,
        pytest.approx(np.nan, nan_ok=True),
    ]
    maps = np.ones((2, 4, 4), np.uint8)
    assert compare("segmentation", maps, maps, np.nan)["mean_iou"].tolist() == [0, 0]
