"""figure_4: rate-task curves, what machines still read in decoded images over the bits that these take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter, ScalarFormatter

from mlclipsim.artifacts import read_table
from mlclipsim.report.style import ARM_STYLES, TASKS, Millimetres, arm_order, label, page, tidy_axes
from mlclipsim.report.tables.writer import write_csv

__all__ = ["make"]

_MEASURES = {
    "consistency": "consistency with the original",
    "top1": "top-1 accuracy",
    "map50": "mAP at IoU .5",
    "miou": "mean IoU",
    "psnr_db": "PSNR (dB)",
    "ms_ssim": "MS-SSIM",
}
_GREY = "0.62"  # reference lines
_HEIGHT_MM, _ROW_MM = 50.0, 47.0


def make(spec: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path]) -> None:
    """Step ``figure_4``: curves -> pdf, svg, png, csv.

    First row: consistency, a panel a task. Second row: the truth, where it is known, and fidelity on images
    on which nothing is judged.
    """
    curves = read_table(inputs["curves"], "rate_task_curves")
    write_csv(outputs["csv"], curves)
    rows = _panels(curves)
    height = _HEIGHT_MM + _ROW_MM * len(rows) - _ROW_MM + 22
    with page(spec, outputs, height_mm=height) as figure:
        place = Millimetres(figure)
        handles: dict[str, Any] = {}
        for number, row in enumerate(rows):
            width = (174 - 6) / len(row)
            for column, (images, task, measure) in enumerate(row):
                axes = place.axes(11 + column * width, height - 46 - number * _ROW_MM, width - 13, 35)
                part = curves[
                    (curves["images"] == images) & (curves["task"] == task) & (curves["measure"] == measure)
                ]
                _panel(axes, part)
                title = task if task in TASKS else images
                axes.set_title(f"{title}: {_MEASURES[measure]}", loc="left", fontweight="bold")
                axes.set_title(f"n = {int(part['n_images'].iloc[0]):,}", loc="right", color="0.35")
                axes.set_xlabel("bits per pixel")
                for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
                    handles.setdefault(name, handle)
        figure.legend(
            handles.values(), handles.keys(), loc="lower left", bbox_to_anchor=(0.04, 3.5 / height),
            ncols=6, columnspacing=1.2, handlelength=2.0, borderaxespad=0.0,
        )  # fmt: skip


def _panels(curves: pd.DataFrame) -> list[list[tuple[str, str, str]]]:
    """(images, task, measure) of each row's panels."""
    known = list(dict.fromkeys(zip(curves["images"], curves["task"], curves["measure"], strict=True)))
    order = {task: place for place, task in enumerate(TASKS)}
    judged = sorted((key for key in known if key[1] in order), key=lambda key: order[key[1]])
    first = [key for key in judged if key[2] == "consistency"]
    second = [key for key in judged if key[2] != "consistency"]
    busy = {images for images, *_ in first}
    third = [key for key in known if key[1] not in order and key[0] not in busy]
    return [row for row in (first, second, third) if row]


def _panel(axes: Axes, part: pd.DataFrame) -> None:
    ours = part[part["arm"].isin(ARM_STYLES)]
    for (codec, arm), line in part.groupby(["codec", "arm"]):
        line = line.sort_values("bpp")
        if arm in ARM_STYLES:
            continue
        axes.plot(line["bpp"], line["value"], color=_GREY, linewidth=0.8, zorder=1)
        shown = line[(line["bpp"] <= part["bpp"].max()) & line["value"].notna()]
        axes.annotate(
            label(codec), (shown["bpp"].iloc[0], shown["value"].iloc[0]), color="0.45", fontsize="xx-small",
            xytext=(1, -5), textcoords="offset points",
        )  # fmt: skip
    for arm in sorted(ours["arm"].unique(), key=arm_order):
        line = ours[ours["arm"] == arm].sort_values("bpp")
        style = ARM_STYLES[arm]
        if line["ci_low"].notna().any():
            axes.fill_between(
                line["bpp"], line["ci_low"], line["ci_high"], color=style["color"], alpha=0.13, linewidth=0
            )
        axes.plot(line["bpp"], line["value"], markersize=2.6, label=label(arm), **style)
    if part["uncoded"].notna().any():
        axes.axhline(
            part["uncoded"].iloc[0], color="black", linewidth=0.7, linestyle=(0, (3, 2)), label="uncoded"
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    ticks = [
        tick for tick in (0.05, 0.1, 0.2, 0.5, 1, 2, 5) if part["bpp"].min() <= tick <= part["bpp"].max()
    ]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    tidy_axes(axes)
