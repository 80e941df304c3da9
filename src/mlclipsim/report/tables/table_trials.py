"""table_trials: every trial of every arm, what it gave on validation images, and which was chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from mlclipsim.artifacts import read_json
from mlclipsim.report.style import arm_order, label
from mlclipsim.report.tables.writer import NOTHING, bold, number, write

__all__ = ["make"]

_COLUMNS = [
    *("arm", "point", "trial", "rho", "beta", "lmbda_arm", "learning_rate", "bpp", "score", "gain", "chosen")
]


def make(spec: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path]) -> None:
    """Step ``table_trials``: manifest of the trained codecs -> csv, md, tex; a row per trial."""
    choices = read_json(inputs["manifest"])["choices"]
    rows = [
        {
            "arm": arm,
            "point": choice["point"],
            "trial": number_,
            "chosen": number_ == choice["chosen"]["trial"],
        }
        | trial
        for arm, choice in sorted(choices.items(), key=lambda item: arm_order(item[0]))
        for number_, trial in enumerate(choice["trials"])
    ]
    tidy = pd.DataFrame(rows, columns=_COLUMNS)
    judges = sorted({judge for choice in choices.values() for judge in choice["judges"]})
    points = ", ".join(sorted({choice["point"] for choice in choices.values()}))
    notes = [
        f"All at {points}, seed 0, on validation images judged by {', '.join(judges)}: machines that neither "
        "train codecs nor report on them. Gain: score above the base codecs' curve at the trial's own rate, "
        "by which the setting in bold was chosen; none where that rate is beyond theirs.",
        "rho: ratio of the norms of the gradients of the arm's term and of 255^2 MSE at the base codec's "
        "output; beta: the weight that gives it. Arms without a weight try learning rates instead.",
    ]
    write(
        spec, outputs, tidy=tidy, printed=pd.DataFrame([_printed(row) for row in tidy.itertuples()]),
        caption="All trials of all arms",
        name="table_trials", notes=notes, rules=_rules(tidy),
    )  # fmt: skip


def _rules(tidy: pd.DataFrame) -> list[int]:
    return [int(row) for row in tidy.index[tidy["trial"] == 0]]


def _printed(row: Any) -> dict[str, str]:
    gain = number(row.gain, signed=True)
    return {
        "arm": label(row.arm),
        "rho": NOTHING if pd.isna(row.rho) else f"{row.rho:g}",
        "beta": NOTHING if pd.isna(row.rho) else f"{row.beta:.4g}",
        "lambda": f"{row.lmbda_arm:.3g}",
        "learning rate": f"{row.learning_rate:g}",
        "bpp": number(row.bpp),
        "score": number(row.score),
        "gain": bold(gain) if row.chosen else gain,
    }
