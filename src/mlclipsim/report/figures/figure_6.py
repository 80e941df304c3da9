"""figure_6: calibration. The fitted model's probability against the votes, its errors against theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from mlclipsim.artifacts import read_table
from mlclipsim.report.style import COLOURS, VOTER_COLOURS, label, page, tidy_axes
from mlclipsim.report.tables.writer import number, write_csv

__all__ = ["make"]

_STYLES = {"ml_clipsim": "-", "ml_clipsim_uniform": (0, (4, 1.5)), "clip_global": (0, (1, 1.2))}


def make(spec: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path]) -> None:
    """Step ``figure_6``: calibration -> pdf, svg, png, csv."""
    frame = read_table(inputs["calibration"], "calibration")
    write_csv(outputs["csv"], frame)
    with page(spec, outputs, height_mm=76) as figure:
        left, right = figure.subplots(1, 2)
        figure.subplots_adjust(left=0.07, right=0.985, top=0.92, bottom=0.17, wspace=0.2)
        _votes(left, frame[frame["panel"] == "votes"])
        _accuracy(right, frame[(frame["panel"] == "accuracy") & (frame["voters"] == "held_out")])


def _votes(axes: Axes, frame: pd.DataFrame) -> None:
    axes.plot([0.5, 1], [0.5, 1], color="0.6", linewidth=0.7, linestyle=(0, (3, 2)), zorder=0)
    axes.text(1, 0.5, "dashed: as predicted", color="0.45", ha="right", fontsize="small")
    for group, colour in VOTER_COLOURS.items():
        part = frame[frame["voters"] == group]
        error = (part["n_pairs"] * (part["predicted"] - part["estimate"]).abs()).sum() / part["n_pairs"].sum()
        axes.vlines(part["predicted"], part["ci_low"], part["ci_high"], color=colour, linewidth=0.9)
        axes.plot(
            part["predicted"], part["estimate"], "o-", color=colour, markersize=3,
            label=f"{label(group)}, mean error {number(error)}",
        )  # fmt: skip
    axes.set_xlabel("probability that the preferred image wins, by its margin")
    axes.set_ylabel("its share of votes")
    axes.set_title("margin against votes", loc="left", fontweight="bold")
    axes.legend(loc="upper left")
    tidy_axes(axes)


def _accuracy(axes: Axes, frame: pd.DataFrame) -> None:
    others = frame[frame["class"] != "ours"]
    for number_, (_, part) in enumerate(others.groupby(["metric", "variant"], sort=False)):
        colour = COLOURS[part["class"].iloc[0]]
        name = f"{others.groupby(['metric', 'variant']).ngroups} other metrics" if not number_ else None
        axes.plot(_middle(part), part["estimate"], color=colour, linewidth=0.6, alpha=0.6, label=name)
    for metric, style in _STYLES.items():
        part = frame[frame["metric"] == metric]
        middle = _middle(part)
        axes.plot(middle, part["estimate"], color=COLOURS["ours"], linestyle=style, label=label(metric))
        if metric == "ml_clipsim":
            axes.fill_between(
                middle, part["ci_low"], part["ci_high"], color=COLOURS["ours"], alpha=0.18, linewidth=0
            )
    ours = frame[frame["metric"] == "ml_clipsim"]
    for x, count in zip(_middle(ours), ours["n_pairs"], strict=True):
        axes.annotate(
            f"{count:,}", (x, 0), xycoords=("data", "axes fraction"), xytext=(0, 2), color="0.4",
            textcoords="offset points", ha="center", fontsize="x-small",
        )  # fmt: skip
    axes.axhline(0.5, color="0.6", linewidth=0.7, linestyle=(0, (3, 2)), zorder=0)
    axes.set_xlim(0, 1)
    axes.set_xlabel("margin of the held-out voters' label, |2p \N{MINUS SIGN} 1|, and pairs")
    axes.set_ylabel("sides with the majority")
    axes.set_title("accuracy against the machines' own agreement", loc="left", fontweight="bold")
    axes.legend(loc="upper left")
    tidy_axes(axes)


def _middle(frame: pd.DataFrame) -> pd.Series:
    return (frame["bin_low"] + frame["bin_high"]) / 2
