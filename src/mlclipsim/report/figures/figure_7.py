"""figure_7: humans and machines, what people think of images against what machines still see in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from matplotlib.axes import Axes
from scipy import stats

from mlclipsim.artifacts import read_table
from mlclipsim.benchmarks.utility import machine_utility
from mlclipsim.images import decode_image
from mlclipsim.report.style import Millimetres, label, page, tidy_axes
from mlclipsim.report.tables.writer import number, write_csv

__all__ = ["make"]

SHOWN = 3  # images of either kind of disagreement
_HEIGHT_MM = 86.0
# Okabe and Ito's, but black; more types than these are not told apart.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
_COLUMNS = [
    *("dataset", "image_id", "reference_id", "distortion", "rating", "utility"),
    *("human_rank", "machine_rank", "mark"),
]


def make(spec: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path]) -> None:
    """Step ``figure_7``: ratings, predictions, voters, references, images of the first data set that people
    judged -> pdf, svg, png, csv. Without one, a page that says so.

    Shown are the images whose ranks by people and by machines (0 the worst, 1 the best) differ most, at most
    one of a reference in either row.
    """
    ratings = read_table(inputs["ratings"], "ratings") if "ratings" in inputs else pd.DataFrame()
    if ratings.empty:
        write_csv(outputs["csv"], pd.DataFrame(columns=_COLUMNS))
        with page(spec, outputs, height_mm=20) as figure:
            reason = "no photographs rated by people in this preset (human.datasets)"
            figure.text(0.5, 0.55, f"not run: {reason}", ha="center", va="center")
        return
    frame = _ranked(ratings, spec, inputs)
    rises = bool(ratings["higher_is_better"].iloc[0])
    name = spec["human"]["datasets"][0]
    with page(spec, outputs, height_mm=_HEIGHT_MM) as figure:
        place = Millimetres(figure)
        _scatter(place.axes(11, 12, 62, 66), frame, name, rises)
        for row, (sign, title) in enumerate(
            ((-1, "people rate higher than machines"), (1, "machines rate higher than people"))
        ):
            _images(place, _HEIGHT_MM - 40 * row, frame[np.sign(frame["gap"]) == sign], title, inputs)
    write_csv(outputs["csv"], frame.assign(dataset=name)[_COLUMNS])


def _ranked(ratings: pd.DataFrame, spec: dict[str, Any], inputs: dict[str, Path]) -> pd.DataFrame:
    """Per image: rating, utility, their ranks in [0, 1], and the letters of the images that are shown."""
    predictions = read_table(inputs["predictions"], "predictions")
    utility = machine_utility(
        predictions, read_table(inputs["voters"], "voters"), spec["votes"]["divergence"]
    )
    frame = ratings.merge(utility, left_on="image_id", right_index=True, validate="1:1")
    frame = frame[frame["utility"].notna()].sort_values("image_id", ignore_index=True)
    quality = frame["rating"] * np.where(frame["higher_is_better"], 1, -1)
    for column, values in (("human_rank", quality), ("machine_rank", frame["utility"])):
        frame[column] = (stats.rankdata(values) - 1) / max(len(values) - 1, 1)
    frame["quality"], frame["gap"] = quality, frame["machine_rank"] - frame["human_rank"]
    frame["mark"] = ""
    letters = iter("abcdef")
    for ascending in (True, False):
        order = frame.sort_values(["gap", "image_id"], ascending=[ascending, True], kind="stable")
        for row in order.drop_duplicates("reference_id").index[:SHOWN]:
            frame.loc[row, "mark"] = next(letters)
    return frame


def _scatter(axes: Axes, frame: pd.DataFrame, name: str, rises: bool) -> None:
    types = sorted(frame["distortion"].unique())
    told_apart = len(types) <= len(_COLOURS)
    for distortion, colour in zip(types, _COLOURS if told_apart else ["0.5"] * len(types), strict=False):
        part = frame[frame["distortion"] == distortion]
        within = stats.spearmanr(part["quality"], part["utility"]).statistic
        title = f"{label(distortion)} ({number(within, 2)})" if told_apart else None
        axes.scatter(
            part["rating"], part["utility"], s=7, color=colour, alpha=0.75, linewidths=0, label=title
        )
    for row in frame[frame["mark"] != ""].itertuples():
        axes.scatter(row.rating, row.utility, s=22, facecolors="none", edgecolors="black", linewidths=0.7)
        axes.annotate(row.mark, (row.rating, row.utility), xytext=(4, -6), textcoords="offset points")
    if not rises:
        axes.invert_xaxis()
    axes.set_xlabel(f"rating by people{'' if rises else ' (DMOS, better to the right)'}")
    axes.set_ylabel("machine utility (mean rank)")
    axes.set_ylim(-0.02, 1.27 if told_apart else 1.02)  # room for the legend
    axes.set_yticks(np.linspace(0, 1, 6))
    overall = stats.spearmanr(frame["quality"], frame["utility"]).statistic
    axes.set_title(f"{name}: SRCC {number(overall, 2)}, n = {len(frame):,}", loc="left", color="0.35")
    tidy_axes(axes)
    if told_apart:
        axes.legend(
            loc="upper left", ncols=2, handletextpad=0.1, borderaxespad=0.2, title="type (SRCC within it)",
            title_fontsize="x-small", alignment="left",
        )  # fmt: skip


def _images(
    place: Millimetres, top_mm: float, frame: pd.DataFrame, title: str, inputs: dict[str, Path]
) -> None:
    """A row of the marked images of ``frame``, each with what people and machines make of it."""
    left, width, height = 80.0, 30.0, 22.5
    chosen = frame[frame["mark"] != ""].sort_values("mark")
    title += "" if len(chosen) else ": none"
    place.figure.text(
        left / place.width, (top_mm - 5) / place.height, title, fontweight="bold", fontsize="small", va="top"
    )
    if chosen.empty:
        return
    stored = pq.read_table(
        inputs["images"],
        columns=["image_id", "image"],
        filters=[("image_id", "in", list(chosen["image_id"]))],
    ).to_pylist()
    pixels = {row["image_id"]: decode_image(row["image"]) for row in stored}
    for column, row in enumerate(chosen.itertuples()):
        axes = place.axes(left + column * (width + 1.5), top_mm - 10 - height, width, height)
        axes.imshow(pixels[row.image_id], interpolation="none")
        axes.set_axis_off()
        text = (
            f"{row.mark}  {label(row.distortion)}, {row.reference_id}\n"
            f"people {number(row.human_rank, 2)}, machines {number(row.machine_rank, 2)}"
        )
        axes.text(0, -0.04, text, transform=axes.transAxes, va="top", fontsize="x-small")
