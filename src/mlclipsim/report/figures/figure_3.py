"""figure_3: what the fit learned, the share of every layer in the metric's decisions, by encoder and fold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from mlclipsim.artifacts import read_json
from mlclipsim.report.style import COLOURS, label, page, tidy_axes
from mlclipsim.report.tables.writer import write_csv

__all__ = ["make"]

PER_ROW = 2
_FOLD_COLOURS = (COLOURS["ours"], COLOURS["fidelity"], COLOURS["perceptual"], COLOURS["prior"])


def make(spec: dict[str, Any], inputs: dict[str, Any], outputs: dict[str, Path]) -> None:
    """Step ``figure_3``: weights (one file or several, one encoder each) -> pdf, svg, png, csv."""
    given = inputs["weights"]
    fits = [read_json(path) for path in ([given] if isinstance(given, (str, Path)) else given)]
    frame = pd.concat([_tidy(fit) for fit in fits], ignore_index=True)
    write_csv(outputs["csv"], frame)
    columns = min(PER_ROW, len(fits))
    rows = -(-len(fits) // columns)
    top = 1.2 * max(frame["share"].max(), frame["ci_high"].max())  # room for the legend
    height = 14 + 46 * rows
    with page(spec, outputs, height_mm=height, columns=columns) as figure:
        grid = figure.add_gridspec(
            rows, columns, left=0.14 / columns, right=0.99, hspace=0.55, wspace=0.12,
            top=1 - 6 / height, bottom=13 / height,
        )  # fmt: skip
        for number, fit in enumerate(fits):
            axes = figure.add_subplot(grid[number // columns, number % columns])
            _panel(axes, fit, top)
            if number % columns == 0:
                axes.set_ylabel("share of decisions")


def _tidy(fit: dict[str, Any]) -> pd.DataFrame:
    rows = [
        {
            "encoder": fit["encoder"],
            "fold": fold["fold"],
            "layer": layer,
            "weight": fold["weights"][index],
            "share": fold["shares"][index],
            "ci_low": fold["shares_ci"][index][0],
            "ci_high": fold["shares_ci"][index][1],
            "uniform_share": 1 / len(fit["layers"]),
            "boundary": fold["boundary"],
            "n_pairs": fold["n_pairs"],
            "n_references": fold["n_references"],
        }
        for fold in fit["folds"]
        for index, layer in enumerate(fit["layers"])
    ]
    return pd.DataFrame(rows)


def _panel(axes: Axes, fit: dict[str, Any], top: float) -> None:
    names: Sequence[str] = fit["layers"]
    folds = fit["folds"]
    positions = np.arange(len(names), dtype=float)
    positions[-1] += 0.5  # the global embedding is no layer: set it apart
    width = 0.72 / len(folds)
    for number, fold in enumerate(folds):
        x = positions + (number - (len(folds) - 1) / 2) * width
        shares = np.array(fold["shares"])
        low, high = np.array(fold["shares_ci"], float).T
        colour = _FOLD_COLOURS[number % len(_FOLD_COLOURS)]
        name = f"fold {fold['fold']}" if len(folds) > 1 else None
        axes.bar(x, shares, width * 0.92, color=colour, alpha=0.85, linewidth=0, label=name)
        # A percentile interval need not hold the estimate: draw it by its own ends.
        axes.vlines(x, low, high, color="0.15", linewidth=0.8)
    axes.axhline(
        1 / len(names), color="0.5", linewidth=0.7, linestyle=(0, (3, 2)), zorder=0, label="equal shares"
    )
    axes.axvline(positions[-1] - 0.75, color="0.8", linewidth=0.6)
    axes.set_xticks(positions, [*(name.removeprefix("layer_").lstrip("0") for name in names[:-1]), "global"])
    axes.set_xlim(-0.6, positions[-1] + 0.6)
    axes.set_ylim(0, top)
    axes.set_xlabel("layer")
    flag = ", boundary solution" if any(fold["boundary"] for fold in folds) else ""
    axes.set_title(f"{label(fit['encoder'])}{flag}", loc="left", fontweight="bold")
    count = folds[0]
    axes.set_title(
        f"{count['n_pairs']:,} pairs, {count['n_references']:,} references", loc="right", color="0.35"
    )
    tidy_axes(axes)
    axes.legend(loc="upper left", ncols=len(folds) + 1, handlelength=1.6, borderaxespad=0.2)
