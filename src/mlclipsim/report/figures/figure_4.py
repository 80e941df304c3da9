"""figure_4: rate-task curves, what machines still read in decoded images over the bits that these take."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from mlclipsim.artifacts import read_table
from mlclipsim.report.style import (
    ARM_STYLES,
    LAYOUT_MM,
    TASKS,
    Millimetres,
    arm_order,
    label,
    page,
    tidy_axes,
)
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
_KEY = ["images", "task", "measure"]
_GREY = "0.55"  # reference lines, told apart by their dashes
_DASHES = ((0, ()), (0, (4, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)), (0, (7, 2)), (0, (4, 1, 1, 1, 1, 1)))
_LEGEND_MM, _ROW_MM, _PANEL_MM = 18.0, 48.0, 34.0
_MARGIN = 1.3  # of rates, beyond those of the arms
_TICKS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


def make(spec: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path]) -> None:
    """Step ``figure_4``: curves -> pdf, svg, png, csv.

    First row: consistency, a panel a task. Second row: the truth, where it is known, and fidelity on images
    on which nothing is judged.
    """
    curves = read_table(inputs["curves"], "rate_task_curves")
    references = sorted(set(curves["codec"][~curves["arm"].isin(ARM_STYLES)]), key=label)
    dashes = dict(zip(references, itertools.cycle(_DASHES), strict=False))
    write_csv(outputs["csv"], curves)
    rows = _panels(curves)
    height = _LEGEND_MM + _ROW_MM * len(rows)
    with page(spec, outputs, height_mm=height) as figure:
        place = Millimetres(figure)
        handles: dict[str, Any] = {}
        for number, row in enumerate(rows):
            width = (LAYOUT_MM - 4) / len(row)
            for column, key in enumerate(row):
                bottom = height - 6 - _PANEL_MM - number * _ROW_MM
                axes = place.axes(12 + column * width, bottom, width - 12, _PANEL_MM)
                part = curves[(curves[_KEY] == list(key)).all(axis=1)]
                _panel(axes, part, dashes)
                _name(axes, key, int(part["n_images"].iloc[0]), first=column == 0)
                for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
                    handles.setdefault(name, handle)
        figure.legend(
            handles.values(), handles.keys(), loc="lower left", bbox_to_anchor=(0.04, 4 / height),
            ncols=5, columnspacing=1.2, handlelength=2.2, borderaxespad=0.0,
        )  # fmt: skip


def _name(axes: Axes, key: tuple[str, str, str], n: int, *, first: bool) -> None:
    images, task, measure = key
    primary = measure == "consistency"
    title = task if primary else _MEASURES[measure] if task in TASKS else f"{images}: {_MEASURES[measure]}"
    axes.set_title(title, loc="left", fontweight="bold")
    axes.set_title(f"n = {n:,}", loc="right", color="0.35")
    axes.set_xlabel("bits per pixel", labelpad=1)
    if primary and first:
        axes.set_ylabel(_MEASURES[measure])


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


def _panel(axes: Axes, part: pd.DataFrame, dashes: dict[str, Any]) -> None:
    ours = part[part["arm"].isin(ARM_STYLES)]
    left, right = ours["bpp"].min() / _MARGIN, ours["bpp"].max() * _MARGIN
    for arm in sorted(ours["arm"].unique(), key=arm_order):
        line = ours[ours["arm"] == arm].sort_values("bpp")
        style = ARM_STYLES[arm]
        axes.fill_between(
            line["bpp"], line["ci_low"], line["ci_high"], color=style["color"], alpha=0.13, linewidth=0
        )
        axes.plot(line["bpp"], line["value"], markersize=2.6, label=label(arm), **style)
    for codec, dash in dashes.items():
        line = part[(part["codec"] == codec) & part["bpp"].between(left, right)].sort_values("bpp")
        axes.plot(
            line["bpp"], line["value"], color=_GREY, linewidth=0.8, linestyle=dash, zorder=1,
            label=label(codec),
        )  # fmt: skip
    if part["uncoded"].notna().any():
        axes.axhline(
            part["uncoded"].iloc[0], color="black", linewidth=0.7, linestyle=(0, (3, 2)), label="uncoded"
        )
    axes.set_xscale("log")
    axes.set_xlim(left, right)
    ticks = [tick for tick in _TICKS if left <= tick <= right]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    tidy_axes(axes)
