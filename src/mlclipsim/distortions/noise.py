"""Noise: one field per image, scaled by the strength."""

from __future__ import annotations

import numpy as np

from mlclipsim.distortions.family import Family, to_8bit

__all__ = ["FAMILIES"]


def _normal(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal(image.shape, dtype=np.float32)


def _shot(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    # A pixel that collects n photons has a standard deviation of sqrt(n): in 8-bit units sqrt(255 x) /
    # sqrt(photons at white). Normal instead of Poisson, so that one field serves every strength; from some
    # ten photons on, and we are at hundreds, nothing tells them apart.
    return _normal(image, rng) * np.sqrt(255 * image.astype(np.float32))


def _add(image: np.ndarray, scale: float, field: np.ndarray) -> np.ndarray:
    pixels = field * np.float32(scale)
    pixels += image
    return to_8bit(pixels)


FAMILIES = (
    Family(
        name="gaussian_noise",
        distort=_add,
        draw=_normal,
        mildest=0.5,
        strongest=250.0,
        quantity="standard deviation",
        unit="8-bit steps",
        source="additive white noise, independent per channel (Hendrycks & Dietterich, ICLR 2019)",
    ),
    Family(
        name="shot_noise",
        distort=_add,
        draw=_shot,
        mildest=0.002,
        strongest=2.0,
        quantity="1 / sqrt(photons at white)",
        source="photon noise (Hendrycks & Dietterich, ICLR 2019), normal approximation",
    ),
)
