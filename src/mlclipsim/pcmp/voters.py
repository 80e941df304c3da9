"""The table of the machines that vote: what several jobs counted of them, together."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

__all__ = ["add_up"]


def add_up(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """One ``voters`` table of several on the same voters: accuracies over all references they counted."""
    first, *others = (table.reset_index(drop=True) for table in tables)
    right, n = _right(first), first["n_clean"]
    for table in others:
        right, n = right + _right(table), n + table["n_clean"]
    return first.assign(clean_accuracy=right / n.where(n > 0), n_clean=n)


def _right(table: pd.DataFrame) -> pd.Series:
    """Right answers: whole numbers again, of which a table has the share."""
    return (table["clean_accuracy"] * table["n_clean"]).round().fillna(0.0)
