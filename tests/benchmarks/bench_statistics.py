"""How often the intervals cover the truth, how often a difference is seen where there is none, and how fast.

Run as `python tests/benchmarks/bench_statistics.py [--studies 4000]`. The studies are invented: each has
references of 30 pairs, a reference's pairs in 6 of 10 family pairs, labels from the votes of five machines,
and metrics whose skill varies between references, with a tail of hard ones. docs/statistics.md has what this
prints; the slow tests beside it hold the bounds.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.special import expit

from mlclipsim.benchmarks import statistics

FAMILY_PAIRS, SHOWN, PAIRS, VOTERS = 10, 6, 30, 5
SKILL, SPREAD = 0.8, 0.8  # of a metric, mean and deviation over references, on the logit scale
AGREEMENT = 0.85  # chance that a vote is the majority's
EASE = np.linspace(-0.6, 0.6, FAMILY_PAIRS)  # of the family pairs, likewise
RESAMPLES, AT_A_TIME = 1000, 500


@dataclass(frozen=True)
class Studies:
    """Many studies of one layout: what each metric earns on each pair of each study."""

    credits: np.ndarray  # (pairs, studies, metrics)
    clusters: np.ndarray  # (pairs,)
    strata: np.ndarray


def invent(references: int, studies: int, metrics: int, rng: np.random.Generator) -> Studies:
    """Metrics of equal worth on the same votes; half of what makes a reference hard is common to all."""
    clusters = np.repeat(np.arange(references), PAIRS)
    strata = np.concatenate(
        [rng.choice(rng.choice(FAMILY_PAIRS, SHOWN, replace=False), PAIRS) for _ in range(references)]
    )
    label = rng.binomial(VOTERS, AGREEMENT, (len(clusters), studies, 1)) / VOTERS  # of the majority's side
    common, own = (_skill(rng.gamma(2.0, size=(references, studies, n))) for n in (1, metrics))
    hard = np.where(rng.random(own.shape) < 0.5, common, own)  # one or the other: the spread is kept
    right = rng.random((len(clusters), studies, metrics)) < expit(
        EASE[strata][:, None, None] + hard[clusters]
    )
    return Studies(np.where(right, label, 1 - label), clusters, strata)


def truth() -> float:
    """What each metric earns over all references that there could be."""
    quantiles = stats.gamma.ppf((np.arange(20_000) + 0.5) / 20_000, 2.0)
    right = expit(EASE[:, None] + _skill(quantiles)).mean()
    return float(right * AGREEMENT + (1 - right) * (1 - AGREEMENT))


def _skill(gamma: np.ndarray) -> np.ndarray:
    """Gamma variates of shape 2, standardised, their tail turned towards hard references."""
    return SKILL - SPREAD * (gamma - 2.0) / np.sqrt(2.0)


def coverage(references: int, studies: int, seed: int) -> dict[str, float]:
    """Share of studies whose 95 % interval holds the truth: cluster-robust t, percentiles of the bootstrap,
    and :func:`mlclipsim.benchmarks.statistics.interval`, which takes t below 30 references.
    """
    expected, held = truth(), []
    for part in range(0, studies, AT_A_TIME):
        rng = np.random.default_rng((seed, references, part))
        found = invent(references, AT_A_TIME, 1, rng)
        data = statistics.reduce(found.credits[..., 0], found.clusters, found.strata)
        draws = statistics.resample_counts(references, RESAMPLES, rng)
        margin = stats.t.ppf(0.975, references - 1) * data.standard_error
        resampled = statistics.bootstrap(data, draws, chunk=100)
        reported = statistics.interval(data, draws)
        ends = (
            (data.estimate - margin, data.estimate + margin),
            np.quantile(resampled, [0.025, 0.975], axis=0),
            np.array([(one.low, one.high) for one in reported]).T,
        )
        held.append([((low <= expected) & (expected <= high)).mean() for low, high in ends])
    return dict(zip(("t", "bootstrap", "reported"), np.mean(held, axis=0).tolist(), strict=True))


def false_positives(references: int, studies: int, baselines: int, seed: int) -> dict[str, float]:
    """Share of studies that find ours better than some of equally good baselines (Holm at .05), and that find
    it better or worse.
    """
    found = []
    for part in range(0, studies, AT_A_TIME):
        rng = np.random.default_rng((seed, references, baselines, part))
        invented = invent(references, AT_A_TIME, 1 + baselines, rng)
        differences = invented.credits[..., :1] - invented.credits[..., 1:]
        flat = differences.reshape(len(differences), -1)
        data = statistics.reduce(flat, invented.clusters, invented.strata)
        p = statistics.p_values(data).reshape(AT_A_TIME, baselines)
        rejected = np.stack([statistics.holm(row)[0] < 0.05 for row in p])
        better = rejected & (data.estimate.reshape(p.shape) > 0)
        found.append([better.any(axis=1).mean(), rejected.any(axis=1).mean()])
    return dict(zip(("better", "different"), np.mean(found, axis=0).tolist(), strict=True))


def seconds(pairs: int = 20_000, metrics: int = 20, resamples: int = 10_000) -> float:
    """Processor time that the intervals of one slice cost: 2,000 references, 36 family pairs."""
    rng = np.random.default_rng(0)
    values, clusters = rng.random((pairs, metrics)), rng.integers(0, 2000, pairs)
    strata = rng.integers(0, 36, pairs)
    began = time.process_time()
    draws = statistics.resample_counts(2000, resamples, rng)
    statistics.interval(statistics.reduce(values, clusters, strata, 2000), draws)
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    print("| references | cluster-robust t | percentile bootstrap | reported |\n|---:|---:|---:|---:|")
    for references in (10, 24, 60, 120):
        shares = coverage(references, chosen.studies, chosen.seed)
        print(f"| {references} | " + " | ".join(f"{100 * share:.1f} %" for share in shares.values()) + " |")
    print("\n| references | baselines | ours found better | found different |\n|---:|---:|---:|---:|")
    for references, baselines in ((10, 1), (24, 1), (60, 1), (60, 8), (120, 8)):
        shares = false_positives(references, chosen.studies, baselines, chosen.seed)
        cells = " | ".join(f"{100 * share:.1f} %" for share in shares.values())
        print(f"| {references} | {baselines} | {cells} |")
    print(f"\n10,000 resamples over 20,000 pairs and 20 metrics: {seconds():.1f} s")


if __name__ == "__main__":
    main()
