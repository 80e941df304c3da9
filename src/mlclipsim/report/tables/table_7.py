"""table_7: what each metric costs. Parameters, multiply-adds, time, memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from mlclipsim.artifacts import read_table
from mlclipsim.report.style import CLASSES, label
from mlclipsim.report.tables.writer import NOTHING, write

__all__ = ["COLUMNS", "MEASURED", "make"]

COLUMNS = [
    *("metric", "variant", "n_parameters", "macs", "ms_per_image", "peak_mib"),
    *("device", "threads", "image_size"),
]
# What another run cannot repeat: excepted from byte identity, as provenance is.
MEASURED = (
    *("ms_per_image", "ms_low", "ms_high", "ms_per_image_backward", "ms_low_backward", "ms_high_backward"),
    *("peak_mib", "peak_mib_backward", "processor"),
)


def make(spec: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path]) -> None:
    """Step ``table_7``: cost -> csv (every metric), md and tex (those that ran)."""
    frame = read_table(inputs["cost"], "cost")
    tidy = frame[COLUMNS + [name for name in frame.columns if name not in COLUMNS]]
    tidy = tidy.astype({"n_parameters": "Int64", "macs": "Int64"})
    ran = frame["note"] == ""
    printed, rules = _printed(frame[ran])
    one = frame.iloc[0]
    clock = "processor time" if one["device"] == "cpu" and one["threads"] == 1 else "by the clock"
    notes = [
        f"Per pair of images of {one['image_size']} px, {one['n_images']} in a call, on {one['device']} "
        f"({one['processor']}), threads: {one['threads']}. Milliseconds ({clock}) are medians over "
        f"{one['n_rounds']} rounds, quartiles in brackets; metrics take turns. Peak: MiB of a call beyond "
        "images and libraries, weights included.",
        "MACs: multiply-adds of convolutions, matrix products and attention. Element-wise operations, "
        "pooling, interpolation and Fourier transforms are not counted: most metrics without a network do "
        "more.",
        *(f"{label(row.metric)}: {row.note}." for row in frame[~ran].itertuples()),
    ]
    write(
        spec, outputs, tidy=tidy, printed=printed, caption="What each metric costs", name="table_7",
        notes=notes, rules=rules,
    )  # fmt: skip


def _printed(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[int]]:
    """A row per metric, and where a class begins."""
    frame = frame.sort_values("class", key=lambda kind: kind.map(list(CLASSES).index), kind="stable")
    rows = [
        {
            "metric": label(row["metric"]),
            "parameters": _rounded(row["n_parameters"]),
            "MACs": _rounded(row["macs"]),
            "forward, ms": _milliseconds(row, ""),
            "with backward, ms": _milliseconds(row, "_backward"),
            "peak, MiB": _mebibytes(row["peak_mib"]),
            "with backward, MiB": _mebibytes(row["peak_mib_backward"]),
        }
        for row in frame.to_dict("records")
    ]
    kinds = list(frame["class"])
    return pd.DataFrame(rows), [n for n in range(1, len(kinds)) if kinds[n] != kinds[n - 1]]


def _rounded(count: float) -> str:
    """Three digits and a unit: 86.2 M."""
    for power, unit in ((9, " G"), (6, " M"), (3, " k")):
        if count >= 10**power:
            return f"{count / 10**power:#.3g}".rstrip(".") + unit
    return f"{count:.0f}"


def _milliseconds(row: dict[str, Any], direction: str) -> str:
    middle, low, high = (row[f"{name}{direction}"] for name in ("ms_per_image", "ms_low", "ms_high"))
    return NOTHING if pd.isna(middle) else f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def _mebibytes(value: float) -> str:
    return NOTHING if pd.isna(value) else f"{value:.0f}"
