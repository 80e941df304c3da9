"""The primary figure of every metric: what table_2 says of held-out voters in the slice ``macro``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from mlclipsim.report.style import label

__all__ = ["primary"]

_COLUMNS = [
    *("name", "metric", "variant", "class", "estimate", "ci_low", "ci_high"),
    *("n_pairs", "n_references"),
]


def primary(table_2: Path) -> list[dict[str, Any]]:
    """Rows ``{name, metric, variant, class, estimate, ci_low, ci_high, n_pairs, n_references}``, the best
    first; ``name`` is for readers, with the variant where a metric has several.
    """
    table = pd.read_csv(table_2, keep_default_na=False, na_values=[""])
    rows = table[
        (table["benchmark"] == "pcmp")
        & (table["slice"] == "macro")
        & (table["voters"] == "held_out")
        & table["estimate"].notna()
    ].sort_values("estimate", ascending=False, kind="stable")
    rows = rows.assign(variant=rows["variant"].fillna(""), name=rows["metric"].map(label))
    several = rows["metric"].duplicated(keep=False)
    rows.loc[several, "name"] += " (" + rows.loc[several, "variant"].map(label) + ")"
    return rows[_COLUMNS].to_dict("records")
