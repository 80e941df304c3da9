"""What was attempted and not kept, counted by role, target, family (or pair of families) and cause."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pandas as pd

__all__ = ["Drops", "add_up", "drops_table"]

Drops = Counter[tuple[str, float, str, str]]  # (role, target_db, family, cause) -> how many


def drops_table(drops: Drops) -> pd.DataFrame:
    """The rows of a ``drops`` table, sorted; typed also where there are none."""
    rows = [(*key, count) for key, count in sorted(drops.items())]
    types = {"role": object, "target_db": "float64", "family": object, "cause": object, "count": "int64"}
    return pd.DataFrame(rows, columns=list(types)).astype(types)


def add_up(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """One ``drops`` table of several, sorted by all that tells its rows apart."""
    rows = pd.concat(tables, ignore_index=True)
    keys = [name for name in rows.columns if name != "count"]
    return rows.groupby(keys, as_index=False)["count"].sum()
