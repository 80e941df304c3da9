"""Fewer colours: each pixel takes the mean of its group, in a palette made for the image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np

from mlclipsim.distortions.family import Family, to_8bit

__all__ = ["FAMILIES"]

_MOST = 512  # colours


@dataclass(frozen=True)
class _Tree:
    """Groups of colours, each split in two: group 0 is the whole image, split ``i`` makes groups ``2 i + 1``
    and ``2 i + 2``.
    """

    pixels: np.ndarray  # (H, W) the group that each pixel ends in
    means: np.ndarray  # (groups, 3)
    parents: np.ndarray  # (groups,)


def _split(image: np.ndarray, rng: np.random.Generator) -> _Tree:
    """Split the group with the largest squared error at its mean, across its principal axis, and again."""
    packed = image.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
    distinct, place, counts = np.unique(packed, return_inverse=True, return_counts=True)
    colours = np.stack([distinct >> 16, distinct >> 8 & 255, distinct & 255], axis=1).astype(np.float64)
    group = np.zeros(len(distinct), np.int64)
    means: list[np.ndarray] = []
    parents: list[int] = []
    queue: list[tuple[float, int, np.ndarray, np.ndarray]] = []  # (-gain, group, members, which half)

    def add(members: np.ndarray, parent: int) -> None:
        number = len(means)
        group[members] = number
        inside, weights = colours[members], counts[members]
        mean = (weights[:, None] * inside).sum(axis=0) / weights.sum()
        means.append(mean)
        parents.append(parent)
        if len(members) > 1:
            centred = inside - mean
            # einsum, not BLAS: its sums do not depend on the number of threads, and ties are at stake
            spread = np.einsum("nc,nd->cd", weights[:, None] * centred, centred)
            variances, axes = np.linalg.eigh(spread)
            half = np.einsum("nc,c->n", centred, axes[:, -1]) > 0
            heappush(queue, (-float(variances.sum()), number, members, half))

    add(np.arange(len(distinct)), 0)
    while queue and len(means) < 2 * _MOST - 1:
        _, number, members, half = heappop(queue)
        add(members[half], number)
        add(members[~half], number)
    return _Tree(group[place].reshape(image.shape[:2]), np.array(means), np.array(parents))


def _quantised(image: np.ndarray, colours: float, tree: _Tree) -> np.ndarray:
    # Between n and n + 1 colours, the two that n + 1 has and n has not are on their way to their common mean.
    # Groups are nested, so the error can only grow as colours go.
    splits = math.ceil(colours) - 1
    group = np.arange(len(tree.means))
    while group.max() > 2 * splits:  # of a later split: back to the group that it came from
        group = np.where(group > 2 * splits, tree.parents[group], group)
    palette = tree.means[group]
    last = group > max(2 * (splits - 1), 0)
    parent = tree.means[tree.parents[group[last]]]
    palette[last] = parent + (colours - splits) * (palette[last] - parent)
    return to_8bit(palette)[tree.pixels]


FAMILIES = (
    Family(
        name="colour_quantisation",
        distort=_quantised,
        draw=_split,
        mildest=float(_MOST),
        strongest=1.0,
        quantity="colours",
        source="palette by binary splits (Orchard & Bouman, IEEE TSP 1991); in TID2013 and KADID-10k",
    ),
)
