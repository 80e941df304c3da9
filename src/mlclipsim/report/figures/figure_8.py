"""figure_8: how much data the fit needs. 2AFC over the references, pairs and voters that it was given."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from mlclipsim.artifacts import read_table
from mlclipsim.report.style import VOTER_COLOURS, label, page, tidy_axes
from mlclipsim.report.tables.writer import write_csv

__all__ = ["make"]

_LABELS = {"references": "training references", "pairs": "training pairs", "voters": "training voters"}


def make(spec: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path]) -> None:
    """Step ``figure_8``: data_size -> pdf, svg, png, csv."""
    frame = read_table(inputs["data_size"], "data_size")
    write_csv(outputs["csv"], frame)
    with page(spec, outputs, height_mm=68) as figure:
        panels = figure.subplots(1, len(_LABELS), sharey=True)
        figure.subplots_adjust(left=0.085, right=0.985, top=0.92, bottom=0.19, wspace=0.06)
        for axes, quantity in zip(panels, _LABELS, strict=True):
            _panel(axes, frame[frame["quantity"] == quantity])
            axes.set_xlabel(_LABELS[quantity])
        panels[0].set_ylabel("2AFC, slice macro")
        figure.legend(
            *panels[0].get_legend_handles_labels(), loc="upper left", bbox_to_anchor=(0.08, 1.01), ncols=4,
            columnspacing=1.0, handlelength=1.6,
        )  # fmt: skip
        test = frame[frame["voters"] == "held_out"].iloc[0]
        counted = f"{test['n_pairs']:,} test pairs of {test['n_references']:,} references"
        figure.text(0.01, 0.02, counted, color="0.35", fontsize="small")


def _panel(axes: Axes, frame: pd.DataFrame) -> None:
    for group, colour in VOTER_COLOURS.items():
        part = frame[frame["voters"] == group].sort_values("size")
        needs_none, fits = part[part["size"] == 0], part[part["size"] > 0]
        axes.axhline(
            needs_none["estimate"].item(), color=colour, linewidth=0.8, linestyle=(0, (3, 2)),
            label=f"uniform weights, {label(group)}",
        )  # fmt: skip
        axes.fill_between(
            fits["size"], fits["ci_low"], fits["ci_high"], color=colour, alpha=0.18, linewidth=0
        )
        axes.vlines(fits["size"], fits["draw_low"], fits["draw_high"], color=colour, linewidth=0.9)
        axes.plot(
            fits["size"], fits["estimate"], "o-", color=colour, markersize=3, label=f"fitted, {label(group)}"
        )
    sizes = sorted(frame.loc[frame["size"] > 0, "size"].unique())
    if sizes[-1] > 20:
        axes.set_xscale("log")
    # A tick each, and its number unless the next, in the end all there is, lies too close for both.
    crowded = [sizes[-1] > 20 and size < after < 1.6 * size for size, after in pairwise(sizes)]
    numbers = ["" if close else f"{size:,}" for size, close in zip(sizes, [*crowded, False], strict=True)]
    axes.set_xticks(sizes, numbers)
    axes.minorticks_off()
    tidy_axes(axes)
