"""Photometric changes: one map of values for the whole image; only rounding and clipping lose detail."""

from __future__ import annotations

import numpy as np

from mlclipsim.distortions.family import Family, to_8bit

__all__ = ["FAMILIES"]


def _mean_grey(image: np.ndarray, rng: np.random.Generator) -> float:
    # Luma of ITU-R BT.601, as Pillow's and torchvision's contrast take it.
    return float(image.reshape(-1, 3).mean(axis=0) @ np.array([0.299, 0.587, 0.114]))


def _contrast(image: np.ndarray, lost: float, grey: float) -> np.ndarray:
    pixels = image * np.float32(1 - lost)
    pixels += np.float32(lost * grey)
    return to_8bit(pixels)


def _direction(image: np.ndarray, rng: np.random.Generator) -> int:
    return 1 if rng.random() < 0.5 else -1


def _brightness(image: np.ndarray, stops: float, direction: int) -> np.ndarray:
    # A gain and no offset: rounded, an offset could only move in whole steps, 0.4 dB apart at 22 dB.
    return to_8bit(image * np.float32(2.0 ** (direction * stops)))


FAMILIES = (
    Family(
        name="contrast",
        distort=_contrast,
        draw=_mean_grey,
        mildest=0.01,
        strongest=1.0,
        parameter_unit="share of the contrast that is lost",
        photometric=True,
        source="blend with the mean grey (torchvision adjust_contrast; Hendrycks & Dietterich, ICLR 2019)",
    ),
    Family(
        name="brightness",
        distort=_brightness,
        draw=_direction,
        mildest=0.005,
        strongest=8.0,
        parameter_unit="stops of exposure, darker or brighter as drawn",
        photometric=True,
        source="gain on the stored values (torchvision adjust_brightness)",
    ),
)
