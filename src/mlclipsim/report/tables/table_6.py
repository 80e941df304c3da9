"""table_6: what each arm gains at equal rate, what rate it saves at equal score, and the rates it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlclipsim.artifacts import read_json, read_table
from mlclipsim.report.style import ARM_STYLES, TASKS, arm_order, label
from mlclipsim.report.tables.writer import NOTHING, bold, number, write

__all__ = ["make"]

_PUBLIC = [
    *("task", "codec", "arm", "anchor", "bd_score", "bd_score_ci_low", "bd_score_ci_high"),
    *("bd_rate_percent", "n_images", "n_seeds", "inversions", "note"),
]


def make(spec: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path]) -> None:
    """Step ``table_6``: gains, not_run -> csv (a row per task, measure, arm), md and tex (per task and arm).

    Arms that did not run have rows, too; the csv has the reason.
    """
    gains = read_table(inputs["gains"], "rate_task_gains")
    tidy = pd.concat([gains, _not_run(spec, gains, read_json(inputs["not_run"]))], ignore_index=True)
    tidy = tidy[[*_PUBLIC, *tidy.columns.drop(_PUBLIC)]]
    primary = tidy[tidy["measure"] == "consistency"]
    truth = tidy[tidy["measure"] != "consistency"].set_index(["task", "arm"])["bd_score"]
    printed, rules = _rows(primary, truth)
    anchors = ", ".join(label(name) for name in primary["anchor"].dropna().unique()) or NOTHING
    notes = [
        "Score: consistency of a machine's prediction on the decoded image with its own on the original "
        "(classification: exp(-KL); detection: F1 of matched boxes; segmentation: mean IoU), so that uncoded "
        "images score 1. Rates are payloads of real bitstreams, in bits per pixel.",
        f"BD-score: mean gain over {anchors} on the log-rates that both have, pchip, with its 95 % interval "
        "over images and training seeds, not adjusted. Bold: the interval leaves out 0. Truth: the same for "
        "top-1 accuracy, mAP50 or mIoU. Detectable: the difference seen with 80 % power.",
        "BD-rate: on curves made monotone; an en dash where it is refused, the csv says why. Last columns: "
        "bits per pixel for 90 % and 95 % of the uncoded score; > and <: beyond the arm's rates.",
        _marks(spec),
    ]
    write(
        spec, outputs, tidy=tidy, printed=printed, caption="Rate-task performance of codecs",
        name="table_6", notes=[note for note in notes if note], rules=rules,
    )  # fmt: skip


def _not_run(spec: dict[str, Any], gains: pd.DataFrame, reasons: dict[str, str]) -> pd.DataFrame:
    tasks = gains.loc[gains["measure"] == "consistency", "task"].unique()
    rows = [
        {
            "task": task,
            "codec": spec["codec"]["name"],
            "arm": arm,
            "measure": "consistency",
            "n_seeds": 0,
            "note": f"not run: {reason}",
        }
        for task in tasks
        for arm, reason in reasons.items()
    ]
    return pd.DataFrame(rows, columns=gains.columns).astype(gains.dtypes[["bd_score", "p"]])


def _marks(spec: dict[str, Any]) -> str:
    marked = [f"{name} ({family})" for name, family in spec["marked_judges"].items()]
    return (
        f"Of the encoder's own family, so that no claim rests on it: {', '.join(marked)}." if marked else ""
    )


def _rows(gains: pd.DataFrame, truth: pd.Series) -> tuple[pd.DataFrame, list[int]]:
    rows: list[dict[str, str]] = []
    rules = []
    for task in (name for name in TASKS if name in set(gains["task"])):
        rules.append(len(rows))
        part = gains[gains["task"] == task]
        for row in sorted(part.itertuples(), key=lambda row: arm_order(row.arm)):
            low, high = row.bd_score_ci_low, row.bd_score_ci_high
            interval = f"[{number(low, signed=True)}, {number(high, signed=True)}]"
            score = number(row.bd_score, signed=True)
            name = f"{task}: {label(row.arm)}"
            rows.append(
                {
                    "task: arm": name + (" (anchor)" if row.arm == row.anchor else ""),
                    "BD-score": bold(score) if low > 0 or high < 0 else score,
                    "95 % interval": interval if np.isfinite(low) else NOTHING,
                    "detectable": number(row.detectable),
                    "truth": number(truth.get((task, row.arm), np.nan), signed=True),
                    "BD-rate, %": _percent(row.bd_rate_percent),
                    "falls": NOTHING if np.isnan(row.inversions) else f"{row.inversions:.0f}",
                    "seeds": _seeds(row),
                    "bpp for .90": _rate(row, row.bpp_90, 0.90),
                    "bpp for .95": _rate(row, row.bpp_95, 0.95),
                }
            )
    return pd.DataFrame(rows), rules


def _seeds(row: Any) -> str:
    """Of the arm's trainings; a reference line was not trained here, and meets each of the anchor's."""
    if not row.n_seeds:
        return "not run"
    return f"{row.n_seeds:.0f}" if row.arm in ARM_STYLES and row.arm != "base" else NOTHING


def _percent(value: float) -> str:
    return NOTHING if np.isnan(value) else f"{value:+.1f}"


def _rate(row: Any, bpp: float, share: float) -> str:
    """The rate that a share of the uncoded score takes, or the end of the curve beyond which it lies."""
    if np.isfinite(bpp):
        return number(bpp)
    if np.isnan(row.highest_score):
        return NOTHING
    beyond = row.highest_score < share * row.uncoded
    return f"> {number(row.highest_bpp)}" if beyond else f"< {number(row.lowest_bpp)}"
