"""Seeds depend on what an item is and on nothing else."""

from __future__ import annotations

import hashlib

import numpy as np

from mlclipsim.randomness import derive_seed, generator


def test_seed_is_the_documented_hash():
    digest = hashlib.sha256(b"7\x1fpcmp\x1fscene-000001").digest()
    assert derive_seed(7, "pcmp", "scene-000001") == int.from_bytes(digest[:8], "big") >> 1


def test_names_do_not_run_together():
    assert derive_seed(1, "ab", "c") != derive_seed(1, "a", "bc")
    assert derive_seed(1, "a", 2) != derive_seed(1, "a", 3)
    assert derive_seed(1, "a") != derive_seed(2, "a")


def test_order_of_items_does_not_matter():
    ids = [f"item-{i}" for i in range(5)]
    forward = {i: generator(3, "x", i).random() for i in ids}
    backward = {i: generator(3, "x", i).random() for i in reversed(ids)}
    assert forward == backward
    assert len(set(forward.values())) == len(ids)


def test_global_state_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - this looks at the global state on purpose
    generator(3, "x").random(10)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002
