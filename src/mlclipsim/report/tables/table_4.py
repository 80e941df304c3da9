"""table_4: what the layers are worth. Each alone, growing sets from either end, all; with and without the
global embedding; uniform and learned weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from mlclipsim.artifacts import read_table
from mlclipsim.report.tables.writer import NOTHING, bold, number, write

__all__ = ["make"]

_ARMS = {
    ("uniform", False): "uniform",
    ("learned", False): "learned",
    ("uniform", True): "global, uniform",
    ("learned", True): "global, learned",
}


def make(spec: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path]) -> None:
    """Step ``table_4``: ablation -> csv (a row per set of layers, with and without the global embedding,
    weights and group of voters), md and tex (held-out voters, a row per set).
    """
    frame = read_table(inputs["ablation"], "ablation")
    held_out = frame[frame["voters"] == "held_out"]
    chosen = held_out.loc[held_out["validation"].idxmax()]
    printed, rules = _pivot(held_out, frame[frame["voters"] == "seen"], chosen.name)
    full = held_out.iloc[-1]  # all layers, with the global embedding, learned
    notes = [
        f"2AFC by held-out voters, slice macro, {full['n_pairs']:,} pairs of {full['n_references']:,} "
        "references; in the last column by seen voters. All layers with the global embedding, learned, is "
        f"ML-CLIPSim: {number(full['estimate'])} [{number(full['ci_low'])}, {number(full['ci_high'])}].",
        "Differences are of learned weights to it, paired, with 95 % intervals clustered by reference; "
        "* where the difference stands after Holm's correction over the table. One similarity alone has "
        "nothing to learn.",
        f"Bold: what pcmp_val would choose of all ({number(chosen['validation'])} there, by seen voters).",
    ]
    write(
        spec, outputs, tidy=frame, printed=printed, caption="Ablation over layers", name="table_4",
        notes=notes, rules=rules,
    )  # fmt: skip


def _pivot(held_out: pd.DataFrame, seen: pd.DataFrame, chosen: Any) -> tuple[pd.DataFrame, list[int]]:
    by_seen = seen.set_index(["factor", "setting", "variant", "with_global"])["estimate"]
    rows: list[dict[str, str]] = []
    rules = []
    for (factor, setting), of_set in held_out.groupby(["factor", "setting"], sort=False):
        if factor in ("alone", "first", "last", "all") and not any(r["factor"] == factor for r in rows):
            rules.append(len(rows))
        cells = {(row.variant, row.with_global): row for row in of_set.itertuples()}
        row = {"factor": factor, "layers": _layers(factor, setting)}
        for arm, head in _ARMS.items():
            cell = cells.get(arm)
            text = NOTHING if cell is None else number(cell.estimate)
            row[head] = bold(text) if cell is not None and cell.Index == chosen else text
        for with_global, head in ((False, "difference"), (True, "global, difference")):
            row[head] = _difference(cells.get(("learned", with_global), cells.get(("uniform", with_global))))
        best = "learned" if ("learned", True) in cells else "uniform"
        row["global, seen"] = number(by_seen[factor, setting, best, True])
        rows.append(row)
    return pd.DataFrame(rows).drop(columns="factor"), rules


def _layers(factor: str, setting: str) -> str:
    if factor == "none":
        return "none"
    first, _, last = setting.replace("layer_", "").partition(" to ")
    return f"{int(first)} to {int(last)}" if last else f"{int(first)}"


def _difference(cell: Any) -> str:
    if cell is None or cell.p == 1:
        return NOTHING
    low, high = number(cell.difference_low, signed=True), number(cell.difference_high, signed=True)
    star = "*" if cell.p_holm < 0.05 else ""
    return f"{number(cell.difference, signed=True)}{star} [{low}, {high}]"
