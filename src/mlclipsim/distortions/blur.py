"""Lost detail: Gaussian, defocus, motion and glass blur, and the ringing of a sharp low-pass.

The symmetric filters act on the image's cosine spectrum, i.e. on the image mirrored at its borders. A
stronger filter passes less of every frequency, so by Parseval its error can only grow, and an evaluation
costs one inverse transform whatever the width of the kernel.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.fft import dctn, idctn
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.special import j1

from mlclipsim.distortions.family import Family, to_8bit

__all__ = ["FAMILIES"]


def _spectrum(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return dctn(image.astype(np.float32), axes=(0, 1), norm="ortho")


def _filtered(spectrum: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Image whose cosine ``spectrum`` (H, W, 3) is multiplied by ``response`` (H, W)."""
    passed = spectrum * response.astype(np.float32)[..., None]
    return to_8bit(idctn(passed, axes=(0, 1), norm="ortho", overwrite_x=True))


def _frequencies(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Vertical (H, 1) and horizontal (1, W) frequency of each coefficient; 1 is Nyquist."""
    height, width = shape[:2]
    return np.arange(height)[:, None] / height, np.arange(width)[None, :] / width


def _gaussian_blur(image: np.ndarray, sigma: float, spectrum: np.ndarray) -> np.ndarray:
    vertical, horizontal = (np.exp(-0.5 * (math.pi * sigma * f) ** 2) for f in _frequencies(image.shape))
    return _filtered(spectrum, vertical * horizontal)


def _defocus_blur(image: np.ndarray, radius: float, spectrum: np.ndarray) -> np.ndarray:
    # The transform of a disc; its edge is softened a little, else a small disc would ring.
    vertical, horizontal = _frequencies(image.shape)
    frequency = np.maximum(math.pi * np.hypot(vertical, horizontal), 1e-9)  # radians per px
    disc = 2 * j1(radius * frequency) / (radius * frequency)
    return _filtered(spectrum, disc * np.exp(-0.5 * (min(0.5, radius / 4) * frequency) ** 2))


def _ringing(image: np.ndarray, cutoff: float, spectrum: np.ndarray) -> np.ndarray:
    vertical, horizontal = _frequencies(image.shape)
    # The edge is one coefficient wide instead of a step: then the error is continuous in the cut-off.
    response = (cutoff - np.hypot(vertical, horizontal)) * min(image.shape[:2]) + 0.5
    response = np.clip(response, 0, 1)
    response[0, 0] = 1  # the mean is no detail
    return _filtered(spectrum, response)


def _angle(image: np.ndarray, rng: np.random.Generator) -> float:
    return float(rng.uniform(0, math.pi))


def _motion_blur(image: np.ndarray, travel: float, angle: float) -> np.ndarray:
    # The line runs in unit steps along the axis that it is closer to, and between two pixels of the other
    # one; the taps at its ends weigh in gradually, so that the result is continuous in its length.
    rows, columns = abs(math.sin(angle)), abs(math.cos(angle))
    steep = rows > columns
    pixels = image.astype(np.float32)
    if steep:
        pixels = pixels.transpose(1, 0, 2)
    slope = min(rows, columns) / max(rows, columns) * (1 if math.cos(angle) >= 0 else -1)
    half = 0.5 * (1 + travel) * max(rows, columns)  # length along that axis
    half = max(half, 0.5)
    reach = math.ceil(half + 0.5) - 1
    height, width = pixels.shape[:2]
    drift = math.ceil(reach * abs(slope))
    padded = np.pad(pixels, ((drift, drift), (reach, reach), (0, 0)), mode="symmetric")
    total = np.zeros((height, width, 3), np.float32)
    weights = 0.0
    tap = np.empty_like(total)
    for step in range(-reach, reach + 1):
        weight = min(1.0, half + 0.5 - abs(step))
        weights += weight
        row = math.floor(step * slope)
        between = step * slope - row
        for offset, share in ((row, 1 - between), (row + 1, between)):
            if share > 0:
                window = padded[drift + offset : drift + offset + height, reach + step : reach + step + width]
                total += np.multiply(window, np.float32(weight * share), out=tap)
    total /= np.float32(weights)
    return to_8bit(np.ascontiguousarray(total.transpose(1, 0, 2)) if steep else total)


def _directions(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(2, H, W): where each pixel's light comes from, evenly over the unit disc."""
    angle = rng.uniform(0, 2 * math.pi, image.shape[:2])
    return np.sqrt(rng.random(image.shape[:2])) * np.stack([np.sin(angle), np.cos(angle)])


def _glass_blur(image: np.ndarray, reach: float, directions: np.ndarray) -> np.ndarray:
    # Hendrycks and Dietterich swap whole pixels between two Gaussian blurs. Here each pixel looks along its
    # own direction, between pixels too, so that the result is continuous in how far it looks.
    sigma = 0.7 * min(1.0, reach)  # of their mildest level
    soft = gaussian_filter(image.astype(np.float32), (sigma, sigma, 0), mode="reflect")
    place = np.indices(image.shape[:2]) + reach * directions
    seen = [map_coordinates(soft[..., c], place, order=1, mode="reflect") for c in range(3)]
    return to_8bit(gaussian_filter(np.stack(seen, axis=-1), (sigma, sigma, 0), mode="reflect"))


FAMILIES = (
    Family(
        name="gaussian_blur",
        distort=_gaussian_blur,
        draw=_spectrum,
        mildest=0.2,
        strongest=64.0,
        quantity="standard deviation",
        unit="px",
        source="Gaussian kernel, mirrored borders (Hendrycks & Dietterich, ICLR 2019)",
    ),
    Family(
        name="defocus_blur",
        distort=_defocus_blur,
        draw=_spectrum,
        mildest=0.3,
        strongest=64.0,
        quantity="radius of the disc",
        unit="px",
        source="disc kernel with a softened edge, mirrored borders (Hendrycks & Dietterich, ICLR 2019)",
    ),
    Family(
        name="motion_blur",
        distort=_motion_blur,
        draw=_angle,
        mildest=0.02,
        strongest=96.0,
        quantity="travel during exposure",
        unit="px",
        source="straight motion, its direction drawn once per image (Hendrycks & Dietterich, ICLR 2019)",
    ),
    Family(
        name="glass_blur",
        distort=_glass_blur,
        draw=_directions,
        mildest=0.05,
        strongest=96.0,
        quantity="reach of the displacements",
        unit="px",
        source="pixels displaced at random between two slight blurs (Hendrycks & Dietterich, ICLR 2019)",
    ),
    Family(
        name="ringing",
        distort=_ringing,
        draw=_spectrum,
        mildest=1.5,
        strongest=0.005,
        quantity="cut-off",
        unit="Nyquist frequencies",
        source="ideal low-pass, overshoots at edges (sinc filter of Real-ESRGAN, Wang et al., ICCVW 2021)",
    ),
)
