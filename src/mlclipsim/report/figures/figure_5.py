"""figure_5: what machines are given to see. Images decoded at equal rate, and maps of their similarity."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from mlclipsim.artifacts import read_table
from mlclipsim.heatmap import FLOOR, colours
from mlclipsim.images import decode_image
from mlclipsim.report.style import LAYOUT_MM, Millimetres, arm_order, label, page
from mlclipsim.report.tables.writer import number, write_csv

__all__ = ["make"]

_LEFT_MM, _GAP_MM, _TOP_MM, _BOTTOM_MM, _TEXT_MM = 1.0, 1.0, 10.0, 11.0, 6.0
_COLUMNS = ["image_id", "arm", "quality", "bpp", "psnr_db", "score"]


def make(spec: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path]) -> None:
    """Step ``figure_5``: reconstructions -> pdf, svg, png, csv. A column an arm; two rows an image."""
    frame = read_table(inputs["images"], "reconstructions")
    write_csv(outputs["csv"], frame[frame["arm"] != "original"][_COLUMNS])
    arms = sorted(frame["arm"].unique(), key=lambda arm: (arm != "original", *arm_order(arm)))
    shown = list(dict.fromkeys(frame["image_id"]))
    side = (LAYOUT_MM - _LEFT_MM - 1) / len(arms) - _GAP_MM
    block = 2 * side + _TEXT_MM + 3 * _GAP_MM
    height = _TOP_MM + len(shown) * block + _BOTTOM_MM
    with page(spec, outputs, height_mm=height) as figure:
        place = Millimetres(figure)
        for column, arm in enumerate(arms):
            left = _LEFT_MM + column * (side + _GAP_MM)
            figure.text(
                (left + side / 2) / LAYOUT_MM, 1 - (_TOP_MM - 1) / height, _title(arm, side), ha="center",
                va="bottom", fontsize="x-small", fontweight="bold" if arm == "ml_clipsim" else None,
            )  # fmt: skip
            for row, image_id in enumerate(shown):
                cell = frame[(frame["arm"] == arm) & (frame["image_id"] == image_id)].iloc[0]
                top = height - _TOP_MM - row * block
                _image(place.axes(left, top - side, side, side), cell)
                if arm != "original":
                    _map(place.axes(left, top - _TEXT_MM - 2 * side, side, side), cell)
        _scale(place.axes(3, 6.5, 40, 2.2))


def _title(arm: str, side_mm: float) -> str:
    """In lines that fit the column."""
    return "\n".join(textwrap.wrap(label(arm), int(side_mm / 1.15)))


def _image(axes: Axes, cell: pd.Series) -> None:
    axes.imshow(decode_image(cell["image"]), interpolation="none")
    axes.set_axis_off()
    if cell["arm"] != "original":
        text = f"{number(cell['bpp'])} bpp, S {number(cell['score'])}\n{cell['psnr_db']:.1f} dB"
        axes.text(0.5, -0.04, text, transform=axes.transAxes, ha="center", va="top", fontsize="xx-small")


def _map(axes: Axes, cell: pd.Series) -> None:
    shape = decode_image(cell["image"]).shape[:2]
    similarity = np.asarray(cell["similarity"], float).reshape(shape)
    axes.imshow(colours(similarity), interpolation="none")
    axes.set_axis_off()


def _scale(axes: Axes) -> None:
    differences = np.geomspace(FLOOR, 1, 256)
    axes.imshow(colours(1 - differences)[None], aspect="auto", extent=(np.log10(FLOOR), 0, 0, 1))
    ticks = np.arange(np.log10(FLOOR), 0.5)
    axes.set_xticks(ticks, [f"{10**tick:g}" for tick in ticks], fontsize="xx-small")
    axes.set_yticks([])
    axes.text(
        1.03, 0.5, "1 - similarity of patches", transform=axes.transAxes, va="center", fontsize="xx-small"
    )
