"""Clustered estimates against statsmodels, hand computations and simulation."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats.multitest import multipletests

from mlclipsim.benchmarks import statistics

sys.path.insert(0, str(Path(__file__).parent))
import bench_statistics


def _clustered(rng, clusters, size, spread=0.1):
    """Values with an effect per cluster, true mean 0.6."""
    codes = np.repeat(np.arange(clusters), size)
    return 0.6 + spread * rng.normal(size=clusters)[codes] + 0.2 * rng.normal(size=len(codes)), codes


def test_macro_average_by_hand():
    values = np.array([1.0, 0.0, 1.0, 0.5, np.nan])[:, None]
    strata, clusters = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 2])
    data = statistics.reduce(values, clusters, strata)
    assert data.estimate[0] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert data.n[0] == 4
    assert data.n_clusters[0] == 2  # the third holds only a missing value
    assert statistics.reduce(values, clusters).estimate[0] == pytest.approx(2.5 / 4)


def test_standard_error_of_equal_clusters_is_statsmodels_sandwich():
    values, codes = _clustered(np.random.default_rng(0), 25, 8)
    fitted = sm.OLS(values, np.ones_like(values)).fit(cov_type="cluster", cov_kwds={"groups": codes})
    data = statistics.reduce(values[:, None], codes)
    # statsmodels multiplies by (n - 1) / (n - k), which is 1 for a constant
    assert data.standard_error[0] == pytest.approx(fitted.bse[0], rel=1e-9)
    assert data.estimate[0] == pytest.approx(fitted.params[0])


def test_standard_error_is_the_jackknife():
    rng = np.random.default_rng(6)
    values, codes = _clustered(rng, 9, 8)
    strata, keep = rng.integers(0, 4, len(values)), rng.random(len(values)) < 0.5
    values, codes, strata = values[keep], codes[keep], strata[keep]

    def macro(kept):
        return np.mean([values[kept & (strata == k)].mean() for k in np.unique(strata[kept])])

    everything = macro(codes >= 0)
    spread = sum((macro(codes != c) - everything) ** 2 for c in range(9))
    data = statistics.reduce(values[:, None], codes, strata, size=12)  # three clusters have no value
    assert data.standard_error[0] == pytest.approx(np.sqrt(8 / 9 * spread))


def test_macro_standard_error_agrees_with_bootstrap():
    rng = np.random.default_rng(1)
    values, codes = _clustered(rng, 150, 12)
    strata = rng.integers(0, 5, len(values))
    data = statistics.reduce(values[:, None] + 0.3 * strata[:, None], codes, strata)
    draws = statistics.resample_counts(150, 2000, rng)
    assert statistics.bootstrap(data, draws).std() == pytest.approx(data.standard_error[0], rel=0.1)


def test_bootstrap_is_the_estimate_of_repeated_clusters():
    rng = np.random.default_rng(2)
    values, codes = _clustered(rng, 6, 4)
    values = np.column_stack([values, np.where(rng.random(24) < 0.3, np.nan, values)])
    strata = rng.integers(0, 3, 24)
    draws = statistics.resample_counts(6, 5, rng)
    got = statistics.bootstrap(statistics.reduce(values, codes, strata), draws, chunk=2)
    for row, times in enumerate(draws):
        index = np.concatenate([np.flatnonzero(codes == c) for c in np.repeat(np.arange(6), times)])
        again = statistics.reduce(values[index], codes[index], strata[index])
        np.testing.assert_allclose(got[row], again.estimate)


@pytest.mark.slow
@pytest.mark.parametrize("references", [60, 120])
def test_intervals_cover_the_truth(references):
    """95 % nominal, 4,000 studies: the share itself is known to a third of a point."""
    covered = bench_statistics.coverage(references, 4000, seed=1)
    assert 0.93 <= covered["reported"] <= 0.97
    assert 0.93 <= covered["t"] <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize(("references", "baselines"), [(24, 1), (60, 1), (60, 8)])
def test_equal_metrics_seldom_differ(references, baselines):
    found = bench_statistics.false_positives(references, 4000, baselines, seed=1)
    assert found["better"] <= found["different"] <= 0.06


def test_intervals_cover_the_truth_roughly():
    """The same, quick: three standard errors of a share over 500 studies."""
    assert bench_statistics.coverage(40, 500, seed=2)["reported"] == pytest.approx(0.95, abs=0.03)
    assert bench_statistics.false_positives(40, 500, 1, seed=2)["different"] < 0.08


def test_ignoring_clusters_would_not_cover():
    """The same pairs taken for independent: an interval far too narrow. So clustering does something."""
    rng = np.random.default_rng(3)
    values, codes = _clustered(rng, 60, 6)
    by_pair = statistics.reduce(values[:, None], np.arange(len(values)))
    by_reference = statistics.reduce(values[:, None], codes)
    assert by_reference.standard_error[0] > 1.2 * by_pair.standard_error[0]


def test_holm_by_hand():
    p = np.array([0.04, 0.001, 0.02, 0.5])
    adjusted, levels = statistics.holm(p)
    np.testing.assert_allclose(adjusted, [0.08, 0.004, 0.06, 0.5])
    rejected, by_statsmodels, _, _ = multipletests(p, method="holm")
    np.testing.assert_allclose(adjusted, by_statsmodels)
    np.testing.assert_array_equal(adjusted < 0.05, rejected)
    # .001 at .05/4: rejected; .02 against .05/3: stands, and all after it are held to that level
    np.testing.assert_allclose(levels, [0.05 / 3, 0.05 / 4, 0.05 / 3, 0.05 / 3])


def test_holm_interval_excludes_zero_exactly_where_rejected():
    rng = np.random.default_rng(4)
    for _ in range(100):
        values = rng.normal(0.02 * np.arange(6), 0.2, size=(120, 6))
        data = statistics.reduce(values, np.repeat(np.arange(40), 3))
        adjusted, levels = statistics.holm(statistics.p_values(data))
        margin = stats.t.ppf(1 - levels / 2, 39) * data.standard_error
        np.testing.assert_array_equal(np.abs(data.estimate) > margin, adjusted < 0.05)


def test_degenerate_samples():
    same = statistics.reduce(np.zeros((10, 1)), np.arange(10))
    assert statistics.p_values(same)[0] == 1  # no difference at all
    certain = statistics.reduce(np.full((10, 1), 0.1), np.arange(10))
    assert statistics.p_values(certain)[0] == 0
    alone = statistics.interval(statistics.reduce(np.ones((5, 1)), np.zeros(5, int)), None)[0]
    assert alone.method == "none"
    assert np.isnan(alone.low)
    nothing = statistics.reduce(np.full((5, 1), np.nan), np.arange(5))
    assert np.isnan(nothing.estimate[0])
    assert nothing.n[0] == 0


def test_what_is_not_a_number_is_left_out_and_counted():
    """Equal metrics tie; a pair that only one of them scores is counted, one that neither scores is not."""
    ours = np.array([1.0, 0.5, 0.0, 1.0, np.nan, np.nan])
    others = np.array([[1.0, np.nan, 0.0, 1.0, 0.3, np.nan], [0.0, 0.0, 0.0, 0.0, 0.0, np.nan]]).T
    same, worse = statistics.compare(ours, others, np.array([0, 0, 1, 2, 2, 2]))
    assert (same.difference, same.n, same.n_excluded, same.n_clusters) == (0, 3, 2, 3)
    assert (same.won, same.p) == (0.5, 1)
    assert (worse.n, worse.n_excluded) == (4, 1)
    assert worse.difference == pytest.approx(2.5 / 4)
    assert worse.won == pytest.approx(2.5 / 3)  # the second reference is a tie


def test_comparison_is_scipys_paired_test_where_every_reference_has_one_pair():
    rng = np.random.default_rng(7)
    ours, other = rng.random(40) + 0.1, rng.random(40)
    (found,) = statistics.compare(ours, other[:, None], np.arange(40))
    expected = stats.ttest_rel(ours, other)
    assert found.p == found.p_holm == pytest.approx(expected.pvalue)
    difference = ours - other
    assert found.effect_size == pytest.approx(difference.mean() / difference.std(ddof=1))
    assert (found.holm_low, found.holm_high) == pytest.approx(expected.confidence_interval())
    assert found.won == np.mean(difference > 0)


def test_what_could_not_be_compared_does_not_count_among_the_comparisons():
    adjusted, levels = statistics.holm(np.array([np.nan, 0.03]))
    assert np.isnan([adjusted[0], levels[0]]).all()
    assert (adjusted[1], levels[1]) == (0.03, 0.05)


def test_resamples_of_a_tenth_of_the_largest_study_are_quick():
    """The bar is 30 s for 10,000 of them, which bench_statistics.py measures."""
    assert bench_statistics.seconds(resamples=1000) < 3
