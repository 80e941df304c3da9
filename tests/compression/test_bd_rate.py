"""Bjontegaard differences against the package's own and by hand; the interval against simulated truth."""

from __future__ import annotations

import bjontegaard
import numpy as np
import pytest

from mlclipsim.compression.bd_rate import (
    Curve,
    bd_rate,
    bd_score,
    estimate,
    rate_for,
    rate_overlap,
)

RATES = np.array([0.1, 0.2, 0.4, 0.8])
SCORES = np.array([0.5, 0.7, 0.8, 0.85])


def test_the_example_of_the_package():
    """Rates in kbit/s and PSNR of the README of bjontegaard 1.3.0, and what it prints for them."""
    anchor = Curve.of(
        np.array([9487.76, 4593.60, 2486.44, 1358.24]), np.array([40.037, 38.615, 36.845, 34.851])
    )
    test = Curve.of(
        np.array([9787.80, 4469.00, 2451.52, 1356.24]), np.array([40.121, 38.651, 36.970, 34.987])
    )
    given = anchor.rates, anchor.scores, test.rates, test.scores
    assert bd_score(anchor, test) == pytest.approx(bjontegaard.bd_psnr(*given, method="pchip"), abs=1e-12)
    rate, reason = bd_rate(anchor, test)
    assert rate == pytest.approx(bjontegaard.bd_rate(*given, method="pchip"), abs=1e-9)
    assert not reason


def test_a_shifted_curve_by_hand():
    anchor = Curve.of(RATES, SCORES)
    assert bd_score(anchor, Curve.of(RATES, SCORES + 0.03)) == pytest.approx(0.03)
    assert bd_score(anchor, anchor) == 0
    rate, _ = bd_rate(anchor, Curve.of(RATES * 0.8, SCORES))
    assert rate == pytest.approx(-20)


def test_the_order_of_points_does_not_matter_and_equal_rates_become_one():
    assert bd_score(Curve.of(RATES[::-1], SCORES[::-1]), Curve.of(RATES, SCORES)) == 0
    tied = Curve.of([0.2, 0.1, 0.2], [0.6, 0.5, 0.8])
    np.testing.assert_allclose(tied.rates, [0.1, 0.2])
    np.testing.assert_allclose(tied.scores, [0.5, 0.7])


def test_a_dip_enters_the_score_as_it_is_and_the_rate_monotone():
    dipped = Curve.of(RATES, [0.5, 0.8, 0.7, 0.85])
    assert bd_score(Curve.of(RATES, [0.5, 0.7, 0.7, 0.85]), dipped) > 0  # a tie and a dip
    rising = dipped.monotone()
    np.testing.assert_allclose(rising.scores, [0.5, 0.75, 0.85])
    np.testing.assert_allclose(rising.rates, [0.1, np.sqrt(0.2 * 0.4), 0.8])
    rate, reason = bd_rate(Curve.of(RATES, SCORES), dipped, inversions=1)
    assert np.isfinite(rate)
    assert not reason
    rate, reason = bd_rate(Curve.of(RATES, SCORES), dipped, inversions=2)
    assert np.isnan(rate)
    assert "falls 2 times" in reason


def test_tied_scores_are_no_obstacle():
    """pchip of rate over score would raise: its abscissae must rise."""
    tied = Curve.of(RATES, [0.5, 0.7, 0.7, 0.85])
    assert np.isfinite(bd_rate(Curve.of(RATES, SCORES), tied)[0])
    assert np.isfinite(bd_score(Curve.of(RATES, SCORES), tied))


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        (SCORES + 0.2, "share 27%"),  # .70 to .85 of .50 to 1.05
        (SCORES + 0.5, "share 0%"),
        (np.full(4, 0.7), "does not rise"),
        (SCORES[::-1], "does not rise"),
    ],
)
def test_rate_is_refused_where_it_would_be_invented(scores, reason):
    rate, why = bd_rate(Curve.of(RATES, SCORES), Curve.of(RATES, scores))
    assert np.isnan(rate)
    assert reason in why


def test_no_common_rates_give_no_score():
    anchor = Curve.of(RATES, SCORES)
    assert np.isnan(bd_score(anchor, Curve.of(RATES * 8, SCORES)))
    assert rate_overlap(anchor, Curve.of(RATES * 8, SCORES)) == 0
    assert rate_overlap(anchor, Curve.of(RATES * 2, SCORES)) == pytest.approx(2 / 3)
    assert rate_overlap(anchor, Curve.of(RATES[[0, 3]] * [0.5, 2], SCORES[[0, 3]])) == 1


def test_rate_for_a_score():
    curve = Curve.of(RATES, SCORES)
    assert rate_for(curve, 0.7) == pytest.approx(0.2)
    assert 0.1 < rate_for(curve, 0.6) < 0.2
    assert np.isnan(rate_for(curve, 0.9))
    assert np.isnan(rate_for(curve, 0.4))


def test_a_curve_refuses_what_is_none():
    with pytest.raises(ValueError, match="positive rates"):
        Curve.of([0.0, 0.1], [0.5, 0.6])
    with pytest.raises(ValueError, match="leave out what was not measured"):
        Curve.of(RATES, [0.5, np.nan, 0.6, 0.7])


def test_the_estimate_by_hand():
    of_seeds = np.array([0.01, 0.02, 0.03])
    found = estimate(of_seeds, np.repeat(of_seeds[None], 50, axis=0), n_images=100)
    assert found.value == pytest.approx(0.02)
    assert found.error == pytest.approx(0.01 / np.sqrt(3))  # images do not vary: seeds alone
    assert found.freedom == pytest.approx(2)
    low, high = found.interval()
    assert high - 0.02 == pytest.approx(4.302653 * 0.01 / np.sqrt(3), rel=1e-6)  # t of 2 degrees, 97.5 %
    assert low < 0 < found.p - 0.05
    assert found.detectable == pytest.approx((4.302653 + 1.060660) * 0.01 / np.sqrt(3), rel=1e-6)
    alone = estimate(of_seeds[:1], np.array([[0.0], [0.02]]), n_images=2)
    assert alone.error == pytest.approx(np.sqrt(0.0002 * 2))
    assert alone.freedom == 1
    assert np.isnan(estimate(np.array([np.nan, 0.1]), np.ones((5, 2)), 10).interval()).all()


def test_nothing_that_varies_is_certain():
    none = estimate(np.zeros(3), np.zeros((10, 3)), 20)
    assert none.interval() == (0, 0)
    assert none.p == 1
    assert estimate(np.ones(3), np.ones((10, 3)), 20).p == 0


@pytest.mark.slow
@pytest.mark.parametrize(("of_seed", "of_image"), [(0.0, 0.1), (0.01, 0.1), (0.05, 0.1), (0.02, 0.0)])
def test_the_interval_covers_what_is_true(of_seed, of_image):
    """BD-score of a planted gain: images and trainings vary, 3 seeds, 60 images, 400 studies each."""
    rng = np.random.default_rng(7)
    seeds, images, resamples, studies, gain = 3, 60, 100, 400, 0.02
    covered = 0
    anchor = Curve.of(RATES, SCORES)
    for _ in range(studies):
        effect = gain + rng.normal(0, of_seed, (seeds, 1)) + rng.normal(0, of_image, (1, images))
        draws = rng.multinomial(images, np.full(images, 1 / images), resamples) / images
        resampled = draws @ effect.T  # a shift of all of the curve is its BD-score
        of_seeds = np.array(
            [bd_score(anchor, Curve.of(RATES, SCORES + shift)) for shift in effect.mean(axis=1)]
        )
        low, high = estimate(of_seeds, resampled, images).interval()
        covered += low <= gain <= high
    assert 0.92 <= covered / studies <= 0.99
