"""Divergences against SciPy, calibration, and the tie rule."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cosine, jensenshannon
from scipy.special import softmax
from scipy.stats import entropy

from mlclipsim.pcmp.divergence import KINDS, divergences, fit_temperature, prefers

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


@pytest.mark.parametrize("kind", KINDS)
def test_swapping_the_sides_mirrors_the_vote(kind):
    d_a, d_b = np.random.default_rng(3).exponential(0.3, (2, 200))
    one, other = prefers(d_a, d_b, kind=kind, **RULE), prefers(d_b, d_a, kind=kind, **RULE)
    np.testing.assert_array_equal(one, 1 - other)


def test_unknown_kind():
    with pytest.raises(ValueError, match="divergence 'l2' is unknown"):
        prefers(np.zeros(1), np.zeros(1), kind="l2", **RULE)
