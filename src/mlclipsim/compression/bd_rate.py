"""Bjontegaard differences between rate-task curves, and how sure they are.

A curve is a codec's mean score over its mean rate, a point per quality. Scores of tasks have what PSNR has
not, ties and dips, and these decide what is computed (Bjontegaard, VCEG-M33, 2001; Herglotz et al., IEEE Open
Journal of Signal Processing 5, 2024; the integration is their package's, `bjontegaard`):

- :func:`bd_score`, the primary figure: the mean gain in score over the range of log-rates that both curves
  have. Score is a function of rate whatever the score does.
- :func:`bd_rate`, the rate saved at equal score, needs the inverse of the curve, which a dip has not. So it
  is taken on curves made monotone, and refused where that would invent the answer.

Interpolation is always pchip, which stays between the points; a cubic through four points overshoots.
"""

from __future__ import annotations

from dataclasses import dataclass

import bjontegaard
import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from scipy.interpolate import PchipInterpolator
from scipy.optimize import isotonic_regression

__all__ = [
    "LEAST_RATE_OVERLAP",
    "LEAST_SCORE_OVERLAP",
    "MOST_INVERSIONS",
    "Curve",
    "Estimate",
    "bd_rate",
    "bd_score",
    "estimate",
    "rate_for",
    "rate_overlap",
]

LEAST_RATE_OVERLAP = 0.75  # of the anchor's range of log-rates: less, and an arm ought to be trained anew
LEAST_SCORE_OVERLAP = 0.5  # of the range that both curves span together
MOST_INVERSIONS = 1  # dips beyond chance of a curve that may still be made monotone
_POWER, _LEVEL = 0.8, 0.95
_PCHIP = {"method": "pchip", "require_matching_points": False, "min_overlap": 0}  # overlap: checked here


@dataclass(frozen=True)
class Curve:
    """``rates`` in bits per pixel, rising, no two alike, and the ``scores`` there; both (P,)."""

    rates: np.ndarray
    scores: np.ndarray

    @classmethod
    def of(cls, rates: ArrayLike, scores: ArrayLike) -> Curve:
        """Points in any order; those of one rate become one, at their mean score.

        Raises:
            ValueError: other numbers of rates and scores, a rate that is not positive, or a score that is
                none.
        """
        x, y = np.asarray(rates, float), np.asarray(scores, float)
        if x.shape != y.shape or not (x > 0).all() or not np.isfinite(y).all():
            raise ValueError(
                f"a curve: expected as many positive rates as scores, got {x} and {y}; "
                "leave out what was not measured"
            )
        distinct, place = np.unique(x, return_inverse=True)
        return cls(distinct, np.bincount(place, y) / np.bincount(place))

    def monotone(self) -> Curve:
        """The isotonic (least-squares) curve; points that it pools become one, at their mean log-rate."""
        fitted = isotonic_regression(self.scores).x.round(12)  # ties come back apart by a last bit
        levels, place = np.unique(fitted, return_inverse=True)
        logs = np.bincount(place, np.log(self.rates)) / np.bincount(place)
        return Curve(np.exp(logs), levels)


def bd_score(anchor: Curve, curve: Curve) -> float:
    """Mean gain in score of ``curve`` over ``anchor``, over the log-rates that both have; NaN without any."""
    low = max(anchor.rates[0], curve.rates[0])
    if low >= min(anchor.rates[-1], curve.rates[-1]):
        return float("nan")
    return float(bjontegaard.bd_psnr(anchor.rates, anchor.scores, curve.rates, curve.scores, **_PCHIP))


def bd_rate(anchor: Curve, curve: Curve, inversions: int = 0) -> tuple[float, str]:
    """Rate of ``curve`` relative to ``anchor`` at equal score, in percent (negative: saved), and a reason.

    Args:
        inversions: dips beyond chance of the curve that has more of them.

    Returns:
        NaN and why, where it is refused: more than one such dip, curves that share less than half of the
        range of scores that they span together, or a curve that does not rise at all.
    """
    if inversions > MOST_INVERSIONS:
        return float("nan"), f"a curve falls {inversions} times beyond its interval"
    one, other = anchor.monotone(), curve.monotone()
    if min(len(one.scores), len(other.scores)) < 2:
        return float("nan"), "a curve does not rise"
    shared = min(one.scores[-1], other.scores[-1]) - max(one.scores[0], other.scores[0])
    spanned = max(one.scores[-1], other.scores[-1]) - min(one.scores[0], other.scores[0])
    overlap = max(shared, 0) / spanned
    if overlap < LEAST_SCORE_OVERLAP:
        return float("nan"), f"the curves share {overlap:.0%} of their scores"
    return float(bjontegaard.bd_rate(one.rates, one.scores, other.rates, other.scores, **_PCHIP)), ""


def rate_overlap(anchor: Curve, curve: Curve) -> float:
    """The share of the anchor's range of log-rates that the curve has too, in [0, 1]."""
    low, high = max(anchor.rates[0], curve.rates[0]), min(anchor.rates[-1], curve.rates[-1])
    if low >= high:
        return 0.0
    return float(np.log(high / low) / np.log(anchor.rates[-1] / anchor.rates[0]))


def rate_for(curve: Curve, score: float) -> float:
    """Bits per pixel that the curve, made monotone, needs for a score; NaN where it does not pass it."""
    rising = curve.monotone()
    if len(rising.scores) < 2 or not rising.scores[0] <= score <= rising.scores[-1]:
        return float("nan")
    return float(np.exp(PchipInterpolator(rising.scores, np.log(rising.rates))(score)))


@dataclass(frozen=True)
class Estimate:
    """A figure over images and training seeds, with its standard error and degrees of freedom."""

    value: float
    error: float
    freedom: float

    def interval(self, level: float = _LEVEL) -> tuple[float, float]:
        """Student's interval."""
        margin = stats.t.ppf((1 + level) / 2, self.freedom) * self.error
        return float(self.value - margin), float(self.value + margin)

    @property
    def p(self) -> float:
        """Two-sided, of no difference."""
        if self.error == 0:
            return 1.0 if self.value == 0 else 0.0
        return float(2 * stats.t.sf(abs(self.value) / self.error, self.freedom))

    @property
    def detectable(self) -> float:
        """The least true difference that a two-sided test at 5 % would see in 80 % of such studies."""
        quantiles = stats.t.ppf([(1 + _LEVEL) / 2, _POWER], self.freedom)
        return float(quantiles.sum() * self.error)


def estimate(of_seeds: np.ndarray, resampled: np.ndarray, n_images: int) -> Estimate:
    """The mean over seeds; its error is that of the images and that of the seeds together.

    Images are resampled at random. Seeds are resampled exactly: over all resamples of S seeds the mean has
    variance s^2 (S - 1) / S^2. Either variance is too small by (n - 1) / n, which for 3 seeds is a third, and
    is divided by it. The degrees of freedom of the sum are Satterthwaite's (Biometrics Bulletin 2, 1946):
    near the number of images where seeds agree, near ``S - 1`` where they do not.

    Args:
        of_seeds: (S,), each over all images; one seed says nothing of the variance between trainings.
        resampled: (B, S), the same in resamples of the images, shared by the seeds; NaN where a resample
            gives no figure.
        n_images: that were resampled.

    Returns:
        NaN all over where a seed has no figure.
    """
    n = len(of_seeds)
    means = resampled.mean(axis=1)
    means = means[np.isfinite(means)]
    if not np.isfinite(of_seeds).all() or len(means) < 2 or n_images < 2:
        return Estimate(float(of_seeds.mean()), float("nan"), float("nan"))
    images = means.var(ddof=1) * n_images / (n_images - 1)
    seeds = of_seeds.var(ddof=1) / n if n > 1 else 0.0
    # Where nothing varies at all, any number of degrees will do.
    share = images / (images + seeds) if images + seeds > 0 else 1.0
    freedom = 1 / (share**2 / (n_images - 1) + ((1 - share) ** 2 / (n - 1) if n > 1 else 0.0))
    return Estimate(float(of_seeds.mean()), float(np.sqrt(images + seeds)), float(freedom))
