"""table_2: machine preference, the 2AFC of every metric on PCMP's test pairs, severity, and the SRCC (or
2AFC) on images that other people's machines judged.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlclipsim.artifacts import read_table
from mlclipsim.report.style import CLASSES, label
from mlclipsim.report.tables.writer import NOTHING, bold, number, write

__all__ = ["make", "of_pcmp"]

COLUMNS = [
    "benchmark",
    "voters",
    "slice",
    "metric",
    "variant",
    "estimate",
    "ci_low",
    "ci_high",
    "n_pairs",
    "n_references",
]
_OF_SEVERITY = ("n_ties", "n_alone")  # counts that no other benchmark has
_HEADS = {
    "no_photometric": "no photom.",
    "photometric": "photom.",
    "all": "all",
    "exceptions": "except.",
    "unanimous": "unanim.",
    "unseen_family": "unseen fam.",
}
# Variants that go without saying where a metric has just one row.
_PLAIN_VARIANTS = ("fitted", "uniform", "global", "rgb", "grey", "luma", "chromatic")
_DEFAULT_VARIANTS = (*_PLAIN_VARIANTS, "seen voters", "ml_clipsim")
# The best of these is set in bold; among the seen voters a machine would be judged by itself.
_CONTENDERS = {
    "held_out": ("ours", "fidelity", "perceptual", "machine"),
    "seen": ("ours", "fidelity", "perceptual"),
}


def make(spec: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path]) -> None:
    """Step ``table_2``: preference, severity, correlations -> csv (every slice, both voter groups, every
    benchmark), md and tex (held-out voters, pivoted; other benchmarks and severity in the last columns).

    ``quantity`` of a row is ``2afc``, ``tau`` or ``srcc``. On other people's benchmarks the judges are
    theirs, held out from us; slices are ``all`` and ``type=<distortion>``.
    """
    own = of_pcmp(*(read_table(inputs[name], "preference") for name in ("preference", "severity")))
    others = _elsewhere(read_table(inputs["correlations"], "correlations"))
    tidy = pd.concat([own, others], ignore_index=True).astype(dict.fromkeys(_OF_SEVERITY, "Int64"))
    ran = own[_ran(own)]
    printed, rules = _pivot(ran, others[_ran(others) & (others["slice"] == "all")])
    primary = ran[(ran["slice"] == "macro") & (ran["voters"] == "held_out")]
    levels = ran[(ran["slice"] == "macro") & (ran["benchmark"] == "severity")]
    notes = [
        "2AFC on soft labels, held-out voters unless said. Macro (primary): mean over pairs of families "
        "without photometric ones, with its 95 % interval clustered by reference. Except.: pairs whose label "
        "contradicts the family majority. Unseen fam.: weights and prior never saw the pair's families.",
        f"{primary['n_pairs'].max():,} pairs of {primary['n_references'].max():,} references under macro."
        if len(primary)
        else "No pair under macro.",
        _of_levels(levels),
    ]
    if (primary["interval"] == "t").any():
        notes.append("Fewer than 30 references: intervals are cluster-robust t.")
    lost = primary[primary["n_unscored"] > 0]
    notes += [
        f"{label(row.metric)}: {row.n_unscored} pairs without a score are left out."
        for row in lost.itertuples()
    ]
    notes += [
        f"{label(row.metric)}: {row.note}."
        for row in own[own["note"].fillna("").str.startswith("not run")].itertuples()
    ]
    there = set(others.loc[_ran(others), "benchmark"])
    absent = [name.upper() for name in others["benchmark"].unique() if name not in there]
    if absent:
        notes.append(f"Not run: {', '.join(absent)}; docs/machine_iqa.md says how to get them.")
    write(
        spec, outputs, tidy=tidy, printed=printed,
        caption="Machine preference on PCMP test pairs matched in PSNR",
        name="table_2", notes=notes, rules=rules,
    )  # fmt: skip


def of_pcmp(preference: pd.DataFrame, severity: pd.DataFrame) -> pd.DataFrame:
    """Rows of table_2 on PCMP, in its columns: 2AFC, then severity, of which there may be none."""
    parts = [preference.assign(quantity="2afc"), severity.assign(quantity="tau")]
    frame = pd.concat(parts, ignore_index=True)
    frame = frame.reindex(columns=frame.columns.union(_OF_SEVERITY, sort=False))
    frame = frame.astype(dict.fromkeys(_OF_SEVERITY, "Int64"))
    return frame[COLUMNS + [name for name in frame.columns if name not in COLUMNS]]


def _ran(frame: pd.DataFrame) -> pd.Series:
    return frame["estimate"].notna() & ~frame["note"].fillna("").str.startswith("not run")


def _of_levels(levels: pd.DataFrame) -> str:
    if levels.empty:
        return "Severity: not run: needs images at two levels of PSNR (pcmp.targets_db)."
    tied, lost = (
        ", ".join(
            f"{label(row.metric)} {getattr(row, count):,}"
            for row in levels.itertuples()
            if getattr(row, count)
        )
        for count in ("n_ties", "n_unscored")
    )
    return (
        "Severity: Kendall's tau between score and minus the strength, within reference and family; mean "
        "over families without photometric ones (csv: over all and by family, with intervals). "
        f"{levels['n_pairs'].max():,} pairs of PSNR levels of {levels['n_references'].max():,} references; "
        f"{levels['n_alone'].max():,} images without another level of their family and reference are left "
        f"out. Ties, counted 0: {tied or 'none'}."
    ) + (f" Without a score: {lost}." if lost else "")


def _elsewhere(correlations: pd.DataFrame) -> pd.DataFrame:
    """Rows of table_2 for other benchmarks: an SRCC each, or a 2AFC where machines compared pairs."""
    place = correlations["dataset"].str.partition("/")
    chosen = correlations["two_afc"].notna()

    def figure(of_ratings: str, of_pairs: str) -> pd.Series:
        return correlations[of_pairs].where(chosen, correlations[of_ratings])

    return pd.DataFrame(
        {
            "benchmark": place[0],
            "voters": "held_out",
            "slice": ("type=" + place[2]).where(place[2] != "", "all"),
            "metric": correlations["metric"],
            "variant": correlations["variant"],
            "estimate": figure("srcc", "two_afc"),
            "ci_low": figure("srcc_ci_low", "two_afc_ci_low"),
            "ci_high": figure("srcc_ci_high", "two_afc_ci_high"),
            "n_pairs": correlations["n"].where(chosen, 0),
            "n_references": correlations["n_references"],
            "class": correlations["class"],
            "interval": correlations["interval"],
            "n_unscored": correlations["n_excluded"],
            "note": correlations["note"],
            "quantity": np.where(chosen, "2afc", "srcc"),
            "n_images": correlations["n"].where(~chosen),
        }
    )


def _pivot(frame: pd.DataFrame, others: pd.DataFrame) -> tuple[pd.DataFrame, list[int]]:
    """Rows in classes, columns the primary slice with its interval first, other benchmarks last; and where a
    class begins.
    """
    held_out = frame[frame["voters"] == "held_out"]
    both = pd.concat([held_out, others])
    keys = list(both[["class", "metric", "variant"]].drop_duplicates().itertuples(index=False, name=None))
    keys.sort(key=lambda key: list(CLASSES).index(key[0]))  # stable: keeps the table's order within a class
    slices = [name for name in _HEADS if name in set(held_out["slice"])]
    slices += [name for name in held_out["slice"].unique() if name.startswith("psnr=")]
    tasks = [name for name in held_out["slice"].unique() if name.startswith("task=")]
    slices += tasks if len(tasks) > 1 else []
    cells = frame.set_index(["voters", "slice", "metric", "variant"])
    elsewhere = others.assign(head=others["benchmark"].str.upper() + " " + others["quantity"].str.upper())
    columns = list(elsewhere["head"].unique())
    values = cells["estimate"].to_dict() | {
        ("held_out", row.head, row.metric, row.variant): row.estimate for row in elsewhere.itertuples()
    }
    best = {
        (voters, part): max(
            (
                round(value, 3)
                for kind, metric, variant in keys
                if kind in _CONTENDERS[voters]
                and (value := values.get((voters, part, metric, variant))) == value
                and value is not None
            ),
            default=None,
        )
        for voters in ("held_out", "seen")
        for part in ("macro", *slices, *columns)
    }

    def cell(voters: str, part: str, key: tuple[str, str, str]) -> str:
        kind, metric, variant = key
        value = values.get((voters, part, metric, variant))
        text = number(value)
        leads = kind in _CONTENDERS[voters] and value is not None and best[voters, part] == round(value, 3)
        return bold(text) if leads else text

    rows = []
    metrics = [key[1] for key in keys]
    for key in keys:
        _, metric, variant = key
        plain = metrics.count(metric) == 1 and variant in _PLAIN_VARIANTS
        row = {"metric": label(metric) if plain else f"{label(metric)} ({label(variant)})"}
        row["macro"] = cell("held_out", "macro", key)
        place = ("held_out", "macro", metric, variant)
        at = cells.loc[place] if place in cells.index else None
        row["95 % interval"] = NOTHING if at is None else f"[{number(at['ci_low'])}, {number(at['ci_high'])}]"
        row["seen"] = cell("seen", "macro", key)
        for part in slices:
            head = _HEADS.get(part) or (f"{part[5:]} dB" if part.startswith("psnr=") else part[5:])
            row[head] = cell("held_out", part, key)
        row |= {column: cell("held_out", column, key) for column in columns}
        # Never in bold: a check that many pass, no contest.
        row["severity"] = number(values.get(("none", "macro", metric, variant)))
        rows.append(row)
    kinds = [key[0] for key in keys]
    return pd.DataFrame(rows), [n for n in range(1, len(kinds)) if kinds[n] != kinds[n - 1]]
