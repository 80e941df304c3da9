"""Random state that depends on what an item is, never on when or where it is computed.

A generator's seed is a hash of (run seed, step, item), so one shard and sixty-four, one core and two,
a killed run and an undisturbed one all draw the same numbers.
"""

from __future__ import annotations

import hashlib

import numpy as np

__all__ = ["derive_seed", "generator"]


def derive_seed(run_seed: int, *names: str | int) -> int:
    """A 63-bit seed for one item: SHA-256 over the run's seed, the step's name and the item's id."""
    text = "\x1f".join(str(part) for part in (run_seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(run_seed: int, *names: str | int) -> np.random.Generator:
    """NumPy's PCG64 generator seeded by :func:`derive_seed`."""
    return np.random.default_rng(derive_seed(run_seed, *names))
