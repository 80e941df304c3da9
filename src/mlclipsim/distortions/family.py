"""What a distortion family is: one scalar strength, one field drawn per image, 8-bit RGB in and out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Family", "to_8bit"]


def _nothing(image: np.ndarray, rng: np.random.Generator) -> None:
    """The field of a family that neither draws nor precomputes anything."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """A distortion whose PSNR falls as its strength ``t`` goes from 0 to 1.

    Attributes:
        name: as configurations and tables spell it.
        distort: ``(image, parameter, field) -> image``, uint8 ``(H, W, 3)`` in and out; a pure function.
        mildest, strongest: the parameter at t = 0 and at t = 1, in ``unit``.
        quantity, unit: what the parameter is; the unit of a plain number is empty.
        logarithmic: interpolate between the two geometrically. PSNR is then close to linear in t, which is
            what makes matching take few evaluations.
        levels: the only values that the parameter takes, mildest first, where the family is discrete; else
            None.
        draw: ``(image, generator) -> field``: everything that does not depend on the strength, drawn or
            computed once per (reference, family). Scaling one field, instead of drawing anew, keeps PSNR
            monotone in t.
        finest: steps of strength below this are not searched.
        photometric: one and the same map of colours at every pixel (contrast, brightness), which loses no
            detail but by rounding and clipping.
        source: what the family follows.
    """

    name: str
    distort: Callable[[np.ndarray, float, Any], np.ndarray]
    mildest: float
    strongest: float
    quantity: str
    source: str
    unit: str = ""
    logarithmic: bool = True
    levels: tuple[float, ...] | None = None
    draw: Callable[[np.ndarray, np.random.Generator], Any] = _nothing
    finest: float = 1e-4
    photometric: bool = False

    @property
    def discrete(self) -> bool:
        return self.levels is not None

    def parameter(self, t: float) -> float:
        """The parameter at strength ``t`` in [0, 1]; discrete families take the nearest of their levels."""
        if not 0 <= t <= 1:
            raise ValueError(f"strength of {self.name}: expected a number in [0, 1], got {t}")
        if self.levels is not None:
            return self.levels[round(t * (len(self.levels) - 1))]
        if self.logarithmic:
            return self.mildest * (self.strongest / self.mildest) ** t
        return self.mildest + (self.strongest - self.mildest) * t

    def check(self, image: np.ndarray) -> None:
        """Raise ``ValueError`` unless ``image`` is uint8 ``(H, W, 3)``."""
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                f"{self.name}: expected a uint8 image (H, W, 3), got {image.dtype} {image.shape}; "
                "images.read_image makes RGB of grey files"
            )

    def apply(self, image: np.ndarray, t: float, field: Any) -> np.ndarray:
        """Distort uint8 ``(H, W, 3)`` at strength ``t``; ``field`` is what ``draw`` gave for this image.

        Raises:
            ValueError: another shape or type, or a strength outside [0, 1].
        """
        self.check(image)
        return self.distort(image, self.parameter(t), field)


def to_8bit(pixels: np.ndarray) -> np.ndarray:
    """Nearest of 0..255, as uint8. Works in place on ``pixels``."""
    np.rint(pixels, out=pixels)
    np.clip(pixels, 0, 255, out=pixels)
    return pixels.astype(np.uint8)
