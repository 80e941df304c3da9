"""Clustered estimates against statsmodels, hand computations and simulation."""

from __future__ import annotations

import time

import numpy as np
import pytest
import statsmodels.api as sm

from mlclipsim.benchmarks import statistics


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


def test_standard_error_is_statsmodels_sandwich():
    rng = np.random.default_rng(0)
    values, codes = _clustered(rng, 25, 8)
    keep = rng.random(len(values)) < 0.7  # clusters of unequal size
    values, codes = values[keep], codes[keep]
    fitted = sm.OLS(values, np.ones_like(values)).fit(cov_type="cluster", cov_kwds={"groups": codes})
    data = statistics.reduce(values[:, None], codes)
    # statsmodels multiplies by (n - 1) / (n - k), which is 1 for a constant
    assert data.standard_error[0] == pytest.approx(fitted.bse[0], rel=1e-9)
    assert data.estimate[0] == pytest.approx(fitted.params[0])


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


@pytest.mark.parametrize(
    ("clusters", "runs"),
    [(12, 300), (60, 150), pytest.param(12, 4000, marks=pytest.mark.slow), pytest.param(60, 2000,
    marks=pytest.mark.slow)],
)  # fmt: skip
def test_intervals_cover_the_truth(clusters, runs):
    """95 % nominal; t with 12 clusters, bootstrap with 60. Bounds: three standard errors of the share, and
    the
    percentile bootstrap's known shortfall of about a point."""
    rng = np.random.default_rng(clusters + runs)
    draws = statistics.resample_counts(clusters, 400, rng)
    values = np.stack([_clustered(rng, clusters, 6)[0] for _ in range(runs)], axis=1)
    found = statistics.interval(statistics.reduce(values, np.repeat(np.arange(clusters), 6)), draws)
    assert {part.method for part in found} == {"t" if clusters < 30 else "bootstrap"}
    covered = np.mean([part.low <= 0.6 <= part.high for part in found])
    slack = 3 * np.sqrt(0.95 * 0.05 / runs)
    assert 0.95 - slack - 0.015 <= covered <= 0.95 + slack


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
    # .001 at .05/4: rejected; .02 against .05/3: stands, and all after it are held to that level
    np.testing.assert_allclose(levels, [0.05 / 3, 0.05 / 4, 0.05 / 3, 0.05 / 3])


def test_holm_interval_excludes_zero_exactly_where_rejected():
    from scipy import stats

    rng = np.random.default_rng(4)
    for _ in range(8):  # statsmodels collects garbage in every call
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


def test_ten_thousand_resamples_of_twenty_thousand_pairs_are_quick():
    """20 metrics, 2,000 references, 36 family pairs: well under the 30 s that a table may take."""
    rng = np.random.default_rng(5)
    codes, strata = rng.integers(0, 2000, 20_000), rng.integers(0, 36, 20_000)
    began = time.process_time()
    draws = statistics.resample_counts(2000, 10_000, rng)
    statistics.interval(statistics.reduce(rng.random((20_000, 20)), codes, strata, 2000), draws)
    assert time.process_time() - began < 30
