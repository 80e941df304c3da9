"""Balanced incomplete blocks."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from mlclipsim.pcmp.design import balanced_blocks, design

FAMILIES = [f"f{i}" for i in range(9)]
REFERENCES = [(f"scene-{i:03d}", "pcmp_test" if i % 3 else "pcmp_train") for i in range(180)]


@pytest.mark.parametrize(
    ("families", "size", "count"), [(9, 6, 120), (9, 6, 40), (5, 4, 30), (20, 6, 200), (7, 3, 70)]
)
def test_every_pair_meets_nearly_equally_often(families, size, count):
    blocks = balanced_blocks(families, size, count, np.random.default_rng(0))
    assert len(blocks) == count
    assert all(len(set(block)) == size for block in blocks)
    pairs = {
        pair: sum(set(pair) <= set(block) for block in blocks) for pair in combinations(range(families), 2)
    }
    expected = count * size * (size - 1) / (families * (families - 1))
    assert max(abs(n - expected) for n in pairs.values()) <= 3
    used = np.bincount(np.concatenate(blocks), minlength=families)
    assert used.max() - used.min() <= 3


def test_seven_families_in_threes_come_near_the_fano_plane():
    """In a perfect design of seven blocks of three each pair meets once; here one may meet twice."""
    blocks = balanced_blocks(7, 3, 7, np.random.default_rng(1))
    pairs = [pair for block in blocks for pair in combinations(block, 2)]
    assert max(pairs.count(pair) for pair in pairs) <= 2


def test_the_order_of_the_references_has_no_influence():
    one = design(REFERENCES, FAMILIES, 6, seed=1)
    other = design(REFERENCES[::-1], FAMILIES, 6, seed=1)
    assert one == other
    assert list(one) == [reference for reference, _ in REFERENCES]
    assert one != design(REFERENCES, FAMILIES, 6, seed=2)


def test_each_role_is_balanced_by_itself():
    blocks = design(REFERENCES, FAMILIES, 6, seed=1)
    for role in ("pcmp_train", "pcmp_test"):
        own = [blocks[reference] for reference, r in REFERENCES if r == role]
        used = [sum(name in block for block in own) for name in FAMILIES]
        assert max(used) - min(used) <= 2


def test_as_many_as_there_are_is_the_full_factorial():
    assert design(REFERENCES[:2], FAMILIES, 9, seed=1) == {
        reference: FAMILIES for reference, _ in REFERENCES[:2]
    }


def test_blocks_of_one_are_refused():
    with pytest.raises(ValueError, match="families per block: expected 2 to 9"):
        design(REFERENCES, FAMILIES, 1, seed=1)
