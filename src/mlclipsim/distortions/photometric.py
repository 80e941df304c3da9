"""Photometric changes: one map of colours for the whole image; only rounding and clipping lose detail."""

from __future__ import annotations

import numpy as np

from mlclipsim.distortions.family import Family, to_8bit

__all__ = ["FAMILIES"]


# Luma of ITU-R BT.601, as Pillow and torchvision take it for contrast and saturation.
_LUMA = np.array([0.299, 0.587, 0.114])
_AIRLIGHT = 230.0  # fog is nearly white


def _mean_grey(image: np.ndarray, rng: np.random.Generator) -> float:
    return float(image.reshape(-1, 3).mean(axis=0) @ _LUMA)


def _contrast(image: np.ndarray, lost: float, grey: float) -> np.ndarray:
    pixels = image * np.float32(1 - lost)
    pixels += np.float32(lost * grey)
    return to_8bit(pixels)


def _direction(image: np.ndarray, rng: np.random.Generator) -> int:
    return 1 if rng.random() < 0.5 else -1


def _brightness(image: np.ndarray, stops: float, direction: int) -> np.ndarray:
    # A gain and no offset: rounded, an offset could only move in whole steps, 0.4 dB apart at 22 dB.
    return to_8bit(image * np.float32(2.0 ** (direction * stops)))


def _gamma(image: np.ndarray, gamma: float, _: None) -> np.ndarray:
    values = 255 * (np.arange(256) / 255) ** gamma
    return to_8bit(values)[image]


def _saturation(image: np.ndarray, stops: float, direction: int) -> np.ndarray:
    pixels = image.astype(np.float32)
    grey = (pixels * _LUMA.astype(np.float32)).sum(axis=2, keepdims=True)
    return to_8bit(grey + np.float32(2.0 ** (direction * stops)) * (pixels - grey))


def _fog(image: np.ndarray, veil: float, _: None) -> np.ndarray:
    return to_8bit(image * np.float32(1 - veil) + np.float32(veil * _AIRLIGHT))


FAMILIES = (
    Family(
        name="contrast",
        distort=_contrast,
        draw=_mean_grey,
        mildest=0.01,
        strongest=1.0,
        quantity="share of the contrast that is lost",
        photometric=True,
        source="blend with the mean grey (torchvision adjust_contrast; Hendrycks & Dietterich, ICLR 2019)",
    ),
    Family(
        name="brightness",
        distort=_brightness,
        draw=_direction,
        mildest=0.005,
        strongest=8.0,
        quantity="exposure, darker or brighter as drawn",
        unit="stops",
        photometric=True,
        source="gain on the stored values (torchvision adjust_brightness)",
    ),
    Family(
        name="gamma",
        distort=_gamma,
        mildest=1.01,
        strongest=32.0,
        quantity="exponent of the stored values",
        photometric=True,
        source="darkness: power law (torchvision adjust_gamma; darken of KADID-10k)",
    ),
    Family(
        name="saturation",
        distort=_saturation,
        draw=_direction,
        mildest=0.01,
        strongest=8.0,
        quantity="factor on the chroma, fainter or stronger as drawn",
        unit="stops",
        photometric=True,
        source="blend with the grey image (torchvision adjust_saturation; TID2013, KADID-10k)",
    ),
    Family(
        name="fog",
        distort=_fog,
        mildest=0.005,
        strongest=1.0,
        quantity="share of the light that is fog",
        photometric=True,
        source="even veil of airlight (Koschmieder 1924; Hendrycks & Dietterich, ICLR 2019, has texture)",
    ),
)
