"""figure_training: have the codecs learnt all they can? Validation loss over steps, an arm a panel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes

from mlclipsim.artifacts import read_json
from mlclipsim.report.style import arm_order, label, page, tidy_axes
from mlclipsim.report.tables.writer import write_csv

__all__ = ["make"]

_PER_ROW = 4
_COLUMNS = ["codec", "arm", "point", "seed", "step"]


def make(spec: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path]) -> None:
    """Step ``figure_training``: manifest of the trained codecs -> pdf, svg, png, csv.

    Losses of other points and arms have other units, so each is drawn relative to its own start.
    """
    frame = _tidy(read_json(inputs["manifest"])["codecs"])
    write_csv(outputs["csv"], frame)
    frame["relative"] = frame["validation_loss"] / frame.groupby("codec")["validation_loss"].transform(
        "first"
    )
    arms = sorted(frame["arm"].unique(), key=arm_order)
    points = sorted(frame["point"].unique())
    # From light, few bits, to dark.
    shades = matplotlib.colormaps["viridis_r"].resampled(len(points) + 2)
    colours = {point: shades((number + 1) / (len(points) + 1)) for number, point in enumerate(points)}
    rows = -(-len(arms) // _PER_ROW)
    per_row = -(-len(arms) // rows)  # as even as they go: five panels are three and two, not four and one
    height = 12 + 38 * rows
    with page(spec, outputs, height_mm=height) as figure:
        panels = figure.subplots(rows, per_row, sharex=True, sharey=True, squeeze=False)
        figure.subplots_adjust(
            left=0.07, right=0.99, top=1 - 9 / height, bottom=13 / height, wspace=0.08, hspace=0.3
        )
        for axes in panels.flat[len(arms) :]:
            axes.set_axis_off()
        for axes, arm in zip(panels.flat, arms, strict=False):
            _panel(axes, frame[frame["arm"] == arm], colours)
            axes.set_title(label(arm), loc="left", fontweight="bold")
        for axes in panels.flat[len(arms) - per_row : len(arms)]:  # the lowest panel of each column
            axes.set_xlabel("step")
            axes.tick_params(labelbottom=True)
        for axes in panels[:, 0]:
            axes.set_ylabel("validation loss / start")
        figure.legend(
            *panels.flat[0].get_legend_handles_labels(), loc="upper right", ncols=len(points),
            bbox_to_anchor=(0.995, 1.005), columnspacing=1.0, handlelength=1.4,
        )  # fmt: skip


def _tidy(codecs: dict[str, dict[str, Any]]) -> pd.DataFrame:
    rows = [
        {"codec": name, "arm": record["arm"], "point": record["point"], "seed": record["seed"]} | row
        for name, record in codecs.items()
        for row in record["curve"]
    ]
    measured = sorted({key for row in rows for key in row} - set(_COLUMNS))
    return pd.DataFrame(rows, columns=[*_COLUMNS, *measured])


def _panel(axes: Axes, frame: pd.DataFrame, colours: dict[str, Any]) -> None:
    for (point, seed), line in frame.groupby(["point", "seed"]):
        name = point if seed == frame["seed"].min() else None
        axes.plot(line["step"], line["relative"], color=colours[point], linewidth=0.8, alpha=0.85, label=name)
    tidy_axes(axes)
