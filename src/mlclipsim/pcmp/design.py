"""Which families meet on which reference: a balanced incomplete block design."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlclipsim.randomness import derive_seed, generator

__all__ = ["balanced_blocks", "design"]


def balanced_blocks(
    n_families: int, size: int, count: int, rng: np.random.Generator
) -> list[tuple[int, ...]]:
    """``count`` blocks of ``size`` of ``n_families`` families; every two meet nearly equally often.

    Greedily: a block grows by the family that has so far met the block's members least often, then by the
    one used least often; ties are drawn. A perfect design exists only for some numbers; this one comes within
    a few meetings of it for all.
    """
    if not 2 <= size <= n_families:
        raise ValueError(
            f"families per block: expected 2 to {n_families} (the number of families), got {size}"
        )
    met = np.zeros((n_families, n_families), int)
    blocks = []
    for _ in range(count):
        block: list[int] = []
        order = rng.permutation(n_families)
        while len(block) < size:
            free = [f for f in order if f not in block]
            block.append(min(free, key=lambda f: (met[f, block].sum(), met[f, f])))
        met[np.ix_(block, block)] += 1  # the diagonal counts the blocks of a family
        blocks.append(tuple(sorted(int(f) for f in block)))
    return blocks


def design(
    references: Sequence[tuple[str, str]], families: Sequence[str], size: int, seed: int
) -> dict[str, list[str]]:
    """The families of each reference, the same at all targets: strengths compare within a family.

    Balanced within each role, so that no split knows a pair of families better than another. References take
    their turn in an order drawn from their ids: the order of the list has no influence.

    Args:
        references: (reference_id, role) of each.
        size: families per block; as many as there are families or more means all of them.

    Returns:
        reference_id -> names of its families, in the order of ``families``.
    """
    if size >= len(families):
        return {reference: list(families) for reference, _ in references}
    chosen = {}
    for role in sorted({role for _, role in references}):
        ids = sorted(reference for reference, r in references if r == role)
        ids.sort(key=lambda reference: derive_seed(seed, "design", reference))
        blocks = balanced_blocks(len(families), size, len(ids), generator(seed, "design", role))
        chosen.update(
            {reference: [families[f] for f in block] for reference, block in zip(ids, blocks, strict=True)}
        )
    return {reference: chosen[reference] for reference, _ in references}
