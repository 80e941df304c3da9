"""Matching in PSNR: find the strength at which a family reaches a level, and hold a whole block to one level.

A *block* is one reference at one target with its families. What a discrete family (a codec's quality levels)
attains nearest to the target becomes the level of the whole block, since it cannot move and the continuous
ones can.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq

from mlclipsim.distortions import Family
from mlclipsim.randomness import generator

__all__ = [
    "Curve",
    "Match",
    "Unattainable",
    "distort",
    "match_block",
    "match_continuous",
    "match_discrete",
    "psnr_db",
]

_CAP_DB = 100.0  # stands for "equal", since root finding needs a finite value


class Unattainable(Exception):  # noqa: N818 - an outcome, counted and reported, rather than an error
    """A family does not reach the level on this image.

    ``cause``: ``unattainable_low`` (even the strongest distortion leaves a higher PSNR),
    ``unattainable_high`` (even the mildest falls below), ``unattainable_step`` (the attained values lie on
    either side of the goal, further away than the tolerance).
    """

    def __init__(self, cause: str):
        super().__init__(cause)
        self.cause = cause


@dataclass(frozen=True)
class Match:
    """A distorted image, uint8 ``(H, W, 3)``, its strength and PSNR, and how many distortions it took."""

    image: np.ndarray
    strength: float
    psnr_db: float
    evaluations: int


def psnr_db(reference: np.ndarray, image: np.ndarray) -> float:
    """PSNR of two uint8 images, ``10 log10(255^2 / MSE)`` over pixels and channels; infinite if equal."""
    if reference.shape != image.shape or reference.dtype != np.uint8 or image.dtype != np.uint8:
        raise ValueError(
            f"expected two uint8 images of one shape, got {reference.dtype} {reference.shape} and "
            f"{image.dtype} {image.shape}; compare what is stored, at one size"
        )
    difference = np.subtract(reference, image, dtype=np.int32)
    difference *= difference
    squares = int(difference.sum(dtype=np.int64))
    return 10 * math.log10(255**2 * difference.size / squares) if squares else math.inf


class Curve:
    """One family on one reference: the image and PSNR at each strength that was asked for, computed once.

    ``field`` is what ``family.draw`` gave for this reference.
    """

    def __init__(self, reference: np.ndarray, family: Family, field: Any):
        self.reference = reference
        self.family = family
        self.field = field
        self._known: dict[float, tuple[float, np.ndarray]] = {}

    @property
    def evaluations(self) -> int:
        return len(self._known)

    def psnr_db(self, t: float) -> float:
        return self._at(t)[0]

    def image(self, t: float) -> np.ndarray:
        return self._at(t)[1]

    def _at(self, t: float) -> tuple[float, np.ndarray]:
        if t not in self._known:
            image = self.family.apply(self.reference, t, self.field)
            self._known[t] = psnr_db(self.reference, image), image
        return self._known[t]

    def ends(self, goal_db: float) -> None:
        """Raise :class:`Unattainable` unless ``goal_db`` lies between the PSNR of mildest and strongest."""
        if self.psnr_db(1.0) > goal_db:
            raise Unattainable("unattainable_low")
        if self.psnr_db(0.0) < goal_db:
            raise Unattainable("unattainable_high")

    def forget(self) -> None:
        """Drop the images between the ends; the ends serve the next target too."""
        self._known = {t: self._known[t] for t in (0.0, 1.0) if t in self._known}


def _matched(curve: Curve, t: float, before: int) -> Match:
    return Match(curve.image(t), t, curve.psnr_db(t), curve.evaluations - before)


def match_continuous(curve: Curve, goal_db: float, *, tolerance_db: float, sign: int) -> Match:
    """The image of a continuous family within ``tolerance_db`` of ``goal_db``.

    Root finding alone would end on the side from which the family's curve bends, and PSNR would give away
    the family. So ``sign`` (+1 or -1, drawn by the caller) says on which side of the goal the result shall
    lie; the other side is taken only where a family that moves in small steps has nothing on this one.

    Raises:
        Unattainable: see there.
    """
    before = curve.evaluations
    curve.ends(goal_db)
    aim = goal_db + sign * tolerance_db / 2

    tried: dict[float, float] = {}

    def residual(t: float) -> float:
        tried[t] = curve.psnr_db(t)
        difference = min(tried[t], _CAP_DB) - aim
        # Zero ends the search: on the right side of the goal and within the tolerance is good enough.
        return 0.0 if abs(difference) <= tolerance_db / 2 else difference

    t = 0.0
    if residual(0.0) > 0 > residual(1.0):
        t = brentq(residual, 0.0, 1.0, xtol=curve.family.finest, disp=False)
    if residual(t) != 0:
        t = min(tried, key=lambda s: (abs(tried[s] - goal_db), s))
    if abs(curve.psnr_db(t) - goal_db) > tolerance_db:
        raise Unattainable("unattainable_step")
    return _matched(curve, t, before)


def match_discrete(curve: Curve, goal_db: float, *, tolerance_db: float) -> Match:
    """The image of a discrete family whose PSNR is nearest to ``goal_db``, by bisection over its levels.

    Raises:
        Unattainable: see there.
    """
    if curve.family.levels is None:
        raise ValueError(f"{curve.family.name} is continuous; use match_continuous")
    before = curve.evaluations
    last = len(curve.family.levels) - 1
    try:
        curve.ends(goal_db)
    except Unattainable:
        # An end may still be near enough: discrete levels are taken where they lie.
        t = min((0.0, 1.0), key=lambda s: abs(curve.psnr_db(s) - goal_db))
        if abs(curve.psnr_db(t) - goal_db) > tolerance_db:
            raise
        return _matched(curve, t, before)
    above, below = 0, last
    while below - above > 1:
        middle = (above + below) // 2
        if curve.psnr_db(middle / last) >= goal_db:
            above = middle
        else:
            below = middle
    t = min((above / last, below / last), key=lambda s: abs(curve.psnr_db(s) - goal_db))
    if abs(curve.psnr_db(t) - goal_db) > tolerance_db:
        raise Unattainable("unattainable_step")
    return _matched(curve, t, before)


def match_block(
    curves: Mapping[str, Curve],
    target_db: float,
    signs: Mapping[str, int],
    *,
    tolerance_db: float = 0.05,
    discrete_tolerance_db: float = 0.25,
) -> dict[str, Match | Unattainable]:
    """Match every family of a block to one level.

    The level is what the coarsest discrete member (the one with the fewest levels) attains nearest to
    ``target_db``; without an attainable discrete member it is the target.

    Args:
        curves: family name -> curve, all of one reference.
        signs: family name -> side of the residual, +1 or -1; of the continuous ones.

    Returns:
        family name -> its match, or why there is none, in the order of ``curves``.
    """
    outcome: dict[str, Match | Unattainable] = {}
    level_db = target_db
    discrete = {name: curve.family.levels for name, curve in curves.items() if curve.family.levels}
    anchored = False
    for name in sorted(discrete, key=lambda name: (len(discrete[name]), name)):
        try:
            match = match_discrete(curves[name], level_db, tolerance_db=discrete_tolerance_db)
        except Unattainable as reason:
            outcome[name] = reason
            continue
        outcome[name] = match
        if not anchored:
            level_db, anchored = match.psnr_db, True
    for name in curves:
        if name in discrete:
            continue
        try:
            outcome[name] = match_continuous(
                curves[name], level_db, tolerance_db=tolerance_db, sign=signs[name]
            )
        except Unattainable as reason:
            outcome[name] = reason
    return {name: outcome[name] for name in curves}


def distort(
    reference: np.ndarray,
    family: Family,
    *,
    strength: float | None = None,
    psnr_db: float | None = None,
    seed: int = 0,
) -> Match:
    """One image, outside any data set: distorted by ``strength``, or matched to ``psnr_db`` as in a block.

    Args:
        reference: uint8 ``(H, W, 3)``.
        seed: of what the family draws; the same seed gives the same image.

    Raises:
        ValueError: not such an image, not exactly one of the two levels, or a PSNR that the family does not
            attain on this image.
    """
    if (strength is None) == (psnr_db is None):
        raise ValueError(f"expected strength or psnr_db, got {strength} and {psnr_db}; give one of them")
    family.check(reference)
    curve = Curve(reference, family, family.draw(reference, generator(seed, "distort", family.name)))
    if psnr_db is None:
        assert strength is not None
        return Match(curve.image(strength), strength, curve.psnr_db(strength), 1)
    result = match_block({family.name: curve}, psnr_db, {family.name: 1})[family.name]
    if isinstance(result, Unattainable):
        weakest, strongest = curve.psnr_db(0.0), curve.psnr_db(1.0)
        why = {
            "unattainable_low": f"its strongest leaves {strongest:.2f} dB",
            "unattainable_high": f"its mildest leaves {weakest:.2f} dB",
            "unattainable_step": "it steps over that level",
        }[result.cause]
        raise ValueError(
            f"{family.name} does not attain {psnr_db:g} dB on this image: {why}; ask for another"
        )
    return result
