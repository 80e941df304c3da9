"""table_5: what the other choices are worth. Encoder, votes, labels, loss, and what the fit never saw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from mlclipsim.artifacts import read_table
from mlclipsim.report.style import label
from mlclipsim.report.tables.writer import NOTHING, number, write

__all__ = ["make"]

_FACTORS = {
    "encoder": "encoder",
    "weights": "weights",
    "divergence": "votes by",
    "ties": "tie thresholds",
    "voters": "voters in the fit",
    "label": "label",
    "loss": "loss",
    "without family": "fitted without",
    "without level": "fitted without",
    "task": "fitted on",
}


def make(spec: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path]) -> None:
    """Step ``table_5``: ablation, data_size -> csv (a row per variant, slice, judges and group of voters), md
    and tex (a row per variant, held-out voters).
    """
    frame = read_table(inputs["ablation"], "ablation")
    sizes = read_table(inputs["data_size"], "data_size")
    sizes = sizes[(sizes["quantity"] == "voters") & (sizes["size"] > 0)]
    number_of = sizes.assign(factor="voters", setting=sizes["size"].astype(str), variant="", judges="")
    tidy = pd.concat([frame, number_of.assign(slice="macro")[frame.columns]], ignore_index=True)
    held_out = tidy[tidy["voters"] == "held_out"]
    printed, rules = _rows(held_out, tidy[tidy["voters"] == "seen"])
    full = held_out[held_out["setting"] == "soft"].iloc[0]
    notes = [
        f"2AFC by held-out voters, slice macro, {full['n_pairs']:,} pairs of {full['n_references']:,} "
        "references, each variant fitted with its penalty chosen on pcmp_val; seen: by seen voters. "
        "Differences are to ML-CLIPSim as fitted, paired, with 95 % intervals clustered by reference, not "
        "adjusted for their number.",
        "Elsewhere: where held-out voters too vote by the rule of the row; on the pairs of the family or "
        "level that the fit never saw; or where the voters named are the judges.",
        "Weights per channel: at least 0, pulled toward the mean of their layer. "
        "Tie thresholds: times those of the study. Voters in the fit: mean over all choices of as many.",
    ]
    write(
        spec, outputs, tidy=tidy, printed=printed, caption="Ablation over encoder, label, loss and data",
        name="table_5", notes=notes, rules=rules,
    )  # fmt: skip


def _rows(held_out: pd.DataFrame, seen: pd.DataFrame) -> tuple[pd.DataFrame, list[int]]:
    keys = ["factor", "setting", "variant"]
    usual = (held_out["slice"] == "macro") & (held_out["judges"] == "")
    of_seen = seen[(seen["slice"] == "macro") & (seen["judges"] == "")].set_index(keys)["estimate"].to_dict()
    elsewhere = dict(list(held_out[~usual].groupby(keys)))
    rows: list[dict[str, str]] = []
    rules = []
    for factor, heading in _FACTORS.items():
        of_factor = held_out[usual & (held_out["factor"] == factor)]
        if rows and len(of_factor):
            rules.append(len(rows))
        for cell in of_factor.itertuples():
            key = (cell.factor, cell.setting, cell.variant)
            others = elsewhere.get(key)
            rows.append(
                {
                    "variant": f"{heading} {_setting(factor, cell)}",
                    "2AFC": number(cell.estimate),
                    "95 % interval": f"[{number(cell.ci_low)}, {number(cell.ci_high)}]",
                    "difference": _difference(cell),
                    "seen": number(of_seen.get(key)),
                    "elsewhere": NOTHING
                    if others is None
                    else "; ".join(_elsewhere(other) for other in others.itertuples()),
                }
            )
    return pd.DataFrame(rows), rules


def _setting(factor: str, cell: Any) -> str:
    if factor == "without level":
        return f"{cell.setting} dB"
    if factor == "ties":
        return f"x {cell.setting}"
    name = cell.setting if factor == "encoder" else label(cell.setting)
    return f"{name}, {cell.variant}" if cell.variant else name


def _difference(cell: Any) -> str:
    low, high = number(cell.difference_low, signed=True), number(cell.difference_high, signed=True)
    return f"{number(cell.difference, signed=True)} [{low}, {high}]" if cell.p < 1 else NOTHING


def _elsewhere(cell: Any) -> str:
    who = f"{cell.judges}: " if cell.factor == "task" else ""
    return f"{who}{number(cell.estimate)}, {_difference(cell)}"
