"""Estimates over pairs that come in clusters: point, interval, comparison.

Pairs of one reference share its content, so references are the independent units. Everything here works on
per-cluster sums: the values of a slice are reduced once to ``(clusters, strata, metrics)``, and ten thousand
resamples are then one matrix product. An estimate is the mean over strata of the pair-weighted mean within
each stratum: with one stratum the plain mean over pairs, with family pairs as strata the macro average.
A value that is not a number is left out and counted. How often these intervals cover the truth, and how often
a difference is seen where there is none: docs/statistics.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

__all__ = [
    "MIN_CLUSTERS",
    "Clustered",
    "Comparison",
    "Interval",
    "bootstrap",
    "compare",
    "holm",
    "interval",
    "p_values",
    "reduce",
    "resample_counts",
]

MIN_CLUSTERS = 30  # below this a percentile bootstrap of clusters is too narrow: only the t interval is used


@dataclass(frozen=True)
class Clustered:
    """Sums and numbers of values per cluster, stratum and metric, each of shape (C, K, M)."""

    sums: np.ndarray
    counts: np.ndarray

    @property
    def estimate(self) -> np.ndarray:
        """Mean over strata of the means within strata, shape (M,); NaN where a metric has no value."""
        return _macro(self.sums.sum(axis=0), self.counts.sum(axis=0))

    @property
    def n(self) -> np.ndarray:
        """Values per metric, shape (M,)."""
        return self.counts.sum(axis=(0, 1)).astype(int)

    @property
    def n_clusters(self) -> np.ndarray:
        """Clusters that hold a value, per metric, shape (M,)."""
        return (self.counts.sum(axis=1) > 0).sum(axis=0)

    @property
    def standard_error(self) -> np.ndarray:
        """Cluster-robust standard error of the estimate by the jackknife over clusters (CR3), shape (M,).

        ``sqrt((G - 1) / G sum_c (estimate without c - estimate)^2)``; of a plain mean over clusters of equal
        size it is the usual sandwich (CR1), but where a stratum lies in few clusters that one is too small
        (MacKinnon, Nielsen and Webb 2023). NaN with fewer than two clusters.
        """
        without = _macro(self.sums.sum(axis=0) - self.sums, self.counts.sum(axis=0) - self.counts)  # (C, M)
        clusters = self.n_clusters
        variance = ((without - self.estimate) ** 2).sum(axis=0) * _ratio(clusters - 1, clusters)
        return np.where(clusters > 1, np.sqrt(variance), np.nan)


@dataclass(frozen=True)
class Interval:
    """Interval of one estimate; ``method`` is ``t`` (flag of few clusters), ``bootstrap`` or ``none``."""

    low: float
    high: float
    method: str


@dataclass(frozen=True)
class Comparison:
    """One metric against another on the values that both have; positive where the first is larger."""

    difference: float
    interval: Interval  # 95 %, of this comparison alone
    p: float  # two-sided, cluster-robust t
    p_holm: float  # adjusted for all comparisons made together
    holm_low: float  # the interval at the level at which Holm decided: excludes 0 exactly where p_holm < .05
    holm_high: float
    effect_size: float  # Cohen's d_z: the difference in standard deviations between clusters
    won: float  # share of clusters in which the first is larger, equal ones counting half
    n: int
    n_excluded: int  # values that only one of the two has
    n_clusters: int


def _ratio(a: np.ndarray, b: np.ndarray | float) -> np.ndarray:
    return np.divide(a, b, out=np.full(np.broadcast(a, b).shape, np.nan), where=np.asarray(b) > 0)


def _macro(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean over the strata (second axis from the end) that hold values; (..., K, M) -> (..., M)."""
    present = (counts > 0).sum(axis=-2)
    return _ratio(np.nan_to_num(_ratio(sums, counts)).sum(axis=-2), present)


def reduce(
    values: np.ndarray, clusters: np.ndarray, strata: np.ndarray | None = None, size: int = 0
) -> Clustered:
    """Per-cluster sums of ``values`` (pairs, M); NaN values are left out.

    Args:
        clusters: cluster number of each pair, 0 ... C - 1.
        strata: stratum number of each pair, default all in one.
        size: number of clusters, at least ``clusters.max() + 1`` (so that slices share one set of resamples).
    """
    strata = np.zeros(len(values), int) if strata is None else strata
    size = max(size, int(clusters.max(initial=-1)) + 1)
    width = int(strata.max(initial=0)) + 1
    cell = clusters * width + strata
    present = np.isfinite(values)

    def total(columns: np.ndarray) -> np.ndarray:
        sums = [np.bincount(cell, weights=column, minlength=size * width) for column in columns.T]
        return np.stack(sums, axis=-1).reshape(size, width, -1)

    return Clustered(total(np.where(present, values, 0.0)), total(present.astype(float)))


def resample_counts(n_clusters: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """How often each cluster is drawn in each resample of ``n_clusters`` with replacement: (resamples, C)."""
    counts = np.empty((resamples, n_clusters), np.uint16)
    for row in range(resamples):
        counts[row] = np.bincount(rng.integers(n_clusters, size=n_clusters), minlength=n_clusters)
    return counts


def bootstrap(data: Clustered, draws: np.ndarray, chunk: int = 500) -> np.ndarray:
    """The estimate in every resample of :func:`resample_counts`, shape (resamples, M)."""
    size, width, metrics = data.sums.shape
    sums, counts = data.sums.reshape(size, -1), data.counts.reshape(size, -1)
    # Metrics that miss no value share their counts; then one column per stratum does for all of them.
    shared = bool((data.counts == data.counts[..., :1]).all())
    counts = data.counts[..., 0] if shared else counts
    parts = []
    for begin in range(0, len(draws), chunk):
        times = draws[begin : begin + chunk].astype(float)
        parts.append(
            _macro(
                (times @ sums).reshape(-1, width, metrics),
                (times @ counts).reshape(-1, width, 1 if shared else metrics),
            )
        )
    return np.concatenate(parts)


def interval(data: Clustered, draws: np.ndarray | None, level: float = 0.95) -> list[Interval]:
    """An interval per metric: bootstrap of clusters, or cluster-robust t with under 30 clusters.

    Percentiles of the bootstrap are too narrow, by the factor between a sample's and a population's deviation
    and by that between Student's and normal quantiles; so they are taken further out by both (Hesterberg, The
    American Statistician 69, 2015). ``draws`` None asks for t whatever the number of clusters.
    """
    estimate, error, clusters = data.estimate, data.standard_error, data.n_clusters
    quantile = stats.t.ppf((1 + level) / 2, np.maximum(clusters - 1, 1))
    tails = stats.norm.sf(quantile * np.sqrt(_ratio(clusters, clusters - 1)))
    few = clusters < MIN_CLUSTERS
    resampled = None if draws is None or few.all() else bootstrap(data, draws)
    intervals = []
    for m, (value, se, n) in enumerate(zip(estimate, error, clusters, strict=True)):
        if resampled is not None and not few[m]:
            kept = resampled[np.isfinite(resampled[:, m]), m]  # a resample may miss a small slice altogether
            low, high = np.quantile(kept, [tails[m], 1 - tails[m]])
            intervals.append(Interval(float(low), float(high), "bootstrap"))
        elif n > 1:
            margin = quantile[m] * se
            intervals.append(Interval(float(value - margin), float(value + margin), "t"))
        else:
            intervals.append(Interval(float("nan"), float("nan"), "none"))
    return intervals


def p_values(data: Clustered) -> np.ndarray:
    """Two-sided p of a zero mean per metric, cluster-robust t with ``clusters - 1`` degrees of freedom."""
    estimate, error, clusters = data.estimate, data.standard_error, data.n_clusters
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where((error == 0) & (estimate == 0), 0.0, estimate / error)
    return 2 * stats.t.sf(np.abs(t), np.maximum(clusters - 1, 1))


def holm(p: np.ndarray, alpha: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """Holm's step-down: adjusted p-values, and the level at which each hypothesis was decided.

    The interval at ``1 - level`` excludes 0 exactly where the hypothesis is rejected: the hypothesis of
    rank ``i`` (from 0) of ``m`` is tested at ``alpha / (m - i)``, and once one stands, all after it are
    held to its level (statsmodels has the same, but collects garbage in every call). What could not be
    tested (NaN) stays NaN and does not count among the ``m``.
    """
    adjusted, levels = np.full(len(p), np.nan), np.full(len(p), np.nan)
    tested = np.argsort(p, kind="stable")[: np.isfinite(p).sum()]  # NaN comes last
    if len(tested):
        left = np.arange(len(tested), 0, -1)
        adjusted[tested] = np.minimum(np.maximum.accumulate(p[tested] * left), 1)
        stands = adjusted[tested] > alpha
        levels[tested] = alpha / (np.maximum(left, left[stands.argmax()]) if stands.any() else left)
    return adjusted, levels


def compare(
    ours: np.ndarray,
    others: np.ndarray,
    clusters: np.ndarray,
    strata: np.ndarray | None = None,
    draws: np.ndarray | None = None,
) -> list[Comparison]:
    """``ours`` (pairs,) against each column of ``others`` (pairs, M), paired; Holm over all ``M``.

    Only pairs that both have count. ``clusters`` and ``strata`` as :func:`reduce` takes them, ``draws`` as
    :func:`interval` does.
    """
    differences = ours[:, None] - others
    data = reduce(differences, clusters, strata, 0 if draws is None else draws.shape[1])
    estimate, error, sizes = data.estimate, data.standard_error, data.n_clusters
    p = p_values(data)
    adjusted, levels = holm(p)
    margin = stats.t.ppf(1 - levels / 2, np.maximum(sizes - 1, 1)) * error
    excluded = (np.isfinite(ours)[:, None] != np.isfinite(others)).sum(axis=0)
    of_cluster = np.sign(_ratio(data.sums.sum(axis=1), data.counts.sum(axis=1)).round(12))
    won = _ratio(np.nansum((of_cluster + 1) / 2, axis=0), sizes)
    return [
        Comparison(
            difference=float(estimate[m]),
            interval=part,
            p=float(p[m]),
            p_holm=float(adjusted[m]),
            holm_low=float(estimate[m] - margin[m]),
            holm_high=float(estimate[m] + margin[m]),
            effect_size=float(_ratio(estimate[m], error[m] * np.sqrt(sizes[m]))),
            won=float(won[m]),
            n=int(data.n[m]),
            n_excluded=int(excluded[m]),
            n_clusters=int(sizes[m]),
        )
        for m, part in enumerate(interval(data, draws))
    ]
