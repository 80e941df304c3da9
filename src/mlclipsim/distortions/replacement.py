"""Lost values: impulses and lost blocks, replaced one after another in an order drawn once per image.

A stronger distortion replaces all that a weaker one does, and more, so the error can only grow. The value
next in order is replaced in part: else few replaced values, as at a high PSNR, would make large steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlclipsim.distortions.family import Family, to_8bit

__all__ = ["FAMILIES"]

_BLOCK = 16  # px, the macroblock of MPEG, H.264, and of JPEG at 4:2:0
_GREY = 128.0  # what a decoder shows of a block whose coefficients never came


@dataclass(frozen=True)
class _Order:
    """``rank`` (H, W, 3 or 1): which value is replaced when, from 0; ``fill`` what it is replaced by."""

    rank: np.ndarray
    fill: np.ndarray | np.float32


def _replaced(image: np.ndarray, share: float, order: _Order) -> np.ndarray:
    weight = np.clip(np.float64(share * order.rank.size) - order.rank, 0, 1).astype(np.float32)
    return to_8bit(image + weight * (order.fill - image))


def _impulses(image: np.ndarray, rng: np.random.Generator) -> _Order:
    rank = rng.permutation(image.size).reshape(image.shape)
    return _Order(rank, np.where(rng.random(image.shape) < 0.5, np.float32(255), np.float32(0)))


def _blocks(image: np.ndarray, rng: np.random.Generator) -> _Order:
    rows, columns = np.indices(image.shape[:2])
    across = -(-image.shape[1] // _BLOCK)
    block = rows // _BLOCK * across + columns // _BLOCK
    turn = rng.permutation(block.max() + 1)[block]
    # Within a block from its last row up: what comes last is lost first.
    order = np.lexsort((-columns.ravel(), -rows.ravel(), turn.ravel()))
    rank = np.empty(order.size, np.int64)
    rank[order] = np.arange(order.size)
    return _Order(rank.reshape(*block.shape, 1), np.float32(_GREY))


FAMILIES = (
    Family(
        name="impulse_noise",
        distort=_replaced,
        draw=_impulses,
        mildest=1e-4,
        strongest=1.0,
        quantity="share of values that are black or white",
        source="salt and pepper, independent per channel (Hendrycks & Dietterich, ICLR 2019)",
    ),
    Family(
        name="block_loss",
        distort=_replaced,
        draw=_blocks,
        mildest=1e-4,
        strongest=1.0,
        quantity="share of the picture lost in 16-px blocks",
        source="local block-wise distortion (Ponomarenko et al., TID2013), lost blocks shown in mid-grey",
    ),
)
