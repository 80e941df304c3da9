"""Coarser sampling grids: resampling down and up again, and pixelation; both by any real factor.

With whole numbers of samples only, a 224-px image would have steps of up to a decibel between two factors.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from mlclipsim.distortions.family import Family, to_8bit

__all__ = ["FAMILIES"]


_FIRST = 1.25  # of the factors by which an image is resampled for real


def _resampled(image: np.ndarray, factor: float) -> np.ndarray:
    height, width = image.shape[:2]
    rows, columns = (math.ceil(side / factor) + 2 for side in (height, width))
    # The grid starts at the image's corner and goes on beyond the other end, where the image is mirrored.
    beyond = [(0, math.ceil(cells * factor) - side) for cells, side in ((rows, height), (columns, width))]
    small = Image.fromarray(np.pad(image, (*beyond, (0, 0)), mode="symmetric")).resize(
        (columns, rows), Image.Resampling.BICUBIC, box=(0, 0, columns * factor, rows * factor)
    )
    whole = (0, 0, width / factor, height / factor)
    return np.array(small.resize((width, height), Image.Resampling.BICUBIC, box=whole))


def _down_up_sampling(image: np.ndarray, factor: float, _: None) -> np.ndarray:
    # Just above 1 the two grids drift apart so slowly that one end of the image would stay as it is and the
    # other be blurred. There the image is on its way to the first factor instead.
    share = np.float32(min(1.0, (factor - 1) / (_FIRST - 1)))
    return to_8bit(image + share * (_resampled(image, max(factor, _FIRST)) - image.astype(np.float32)))


def _cells(image: np.ndarray, side: int) -> np.ndarray:
    """Mean of the square cell in which each pixel lies."""
    height, width = image.shape[:2]
    rows, columns = np.arange(0, height, side), np.arange(0, width, side)
    heights, widths = np.diff(rows, append=height), np.diff(columns, append=width)
    sums = np.add.reduceat(np.add.reduceat(image.astype(np.float32), rows, axis=0), columns, axis=1)
    means = sums / np.outer(heights, widths)[..., None].astype(np.float32)
    return means.repeat(heights, axis=0).repeat(widths, axis=1)


def _pixelation(image: np.ndarray, side: float, _: None) -> np.ndarray:
    # Between two powers of 2 the finer cells are on their way to the coarser. The cells are nested, so the
    # error can only grow; cells of 3 px would lie across those of 2 px, and often be nearer to the image.
    finer = 2 ** math.floor(math.log2(side))
    share = np.float32(side / finer - 1)
    fine, coarse = _cells(image, finer), _cells(image, 2 * finer)
    return to_8bit(fine + share * (coarse - fine))


FAMILIES = (
    Family(
        name="down_up_sampling",
        distort=_down_up_sampling,
        mildest=1.005,
        strongest=64.0,
        quantity="factor",
        source="antialiased bicubic down, bicubic up (Timofte et al., NTIRE 2017; Pillow)",
    ),
    Family(
        name="pixelation",
        distort=_pixelation,
        mildest=1.01,
        strongest=64.0,
        quantity="side of a cell, mixed between powers of 2",
        unit="px",
        source="means of square cells (pixelate of Hendrycks & Dietterich, ICLR 2019, and of KADID-10k)",
    ),
)
