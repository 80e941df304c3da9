"""figure_1: a sheet of PCMP, one reference and its distortions at equal PSNR with the machines' votes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from mlclipsim.artifacts import ArtifactError, read_table
from mlclipsim.images import decode_image
from mlclipsim.report.style import VOTER_COLOURS, Millimetres, label, page, tidy_axes
from mlclipsim.report.tables.writer import number, write_csv

__all__ = ["make"]

ROWS, COLUMNS = 3, 6  # PSNR levels and images of a level that a page has room for
GROUPS = ("held_out", "seen")
MINUS = "\N{MINUS SIGN}"
TOLERANCE_DB = 0.1  # of a pair (method)
_CELL_MM, _ROW_MM, _BOTTOM_MM = 22.0, 33.0, 56.0


def make(spec: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path]) -> None:
    """Step ``figure_1``: references, images, pairs, labels -> pdf, svg, png, csv.

    The sheet shows the test reference that is typical, not the one that pleases: of those with most
    labelled pairs, the one whose labels are as decided as the median's. ``spec["reference"]``, a prefix of
    reference ids, restricts the choice, for sheets whose pictures must be free to print.
    """
    pairs = read_table(inputs["pairs"], "pairs").sort_values("pair_id", ignore_index=True)
    labels = read_table(inputs["labels"], "labels")
    test = pairs[pairs["role"] == "pcmp_test"]
    if test.empty:
        raise ArtifactError("expected pairs of role pcmp_test, got none; check references.roles")
    won = labels.groupby(["pair_id", "group"])["label"].mean().unstack("group").reindex(columns=list(GROUPS))
    reference = _typical(test, won, spec.get("reference", ""))
    mine = test[test["reference_id"] == reference].merge(won, left_on="pair_id", right_index=True, how="left")
    levels = sorted(mine["target_db"].unique())
    if len(levels) > ROWS:  # the ends and the middle
        levels = [levels[0], levels[len(levels) // 2], levels[-1]]
    images = read_table(
        inputs["images"], "images", columns=["image_id", "reference_id", "target_db", "family", "psnr_db"]
    )
    images = images[images["reference_id"] == reference]
    shares = pd.concat(
        [_shares(mine[mine["target_db"] == level], images) for level in levels], ignore_index=True
    )
    residual = (test["psnr_a_db"] - test["psnr_b_db"]).to_numpy()
    middle = levels[len(levels) // 2]

    with page(spec, outputs, height_mm=_ROW_MM * len(levels) + _BOTTOM_MM) as figure:
        place = Millimetres(figure)
        _draw_sheet(place, inputs, reference, levels, shares)
        counts, edges = _draw_residuals(place.axes(13, 13, 76, _BOTTOM_MM - 24), residual)
        of_middle = mine[mine["target_db"] == middle]
        _draw_votes(place.axes(112, 13, 60, _BOTTOM_MM - 24), of_middle, shares, middle)
    bins = pd.DataFrame(
        {"panel": "residual", "bin_low_db": edges[:-1], "bin_high_db": edges[1:], "count": counts}
    )
    votes = mine[["pair_id", "target_db", "family_a", "family_b", *GROUPS]].assign(panel="pair")
    table = pd.concat([shares.assign(panel="image"), votes.rename(columns=_LABEL), bins], ignore_index=True)
    write_csv(outputs["csv"], table[["panel", *(name for name in table.columns if name != "panel")]])


_LABEL = {group: f"label_{group}" for group in GROUPS}


def _typical(test: pd.DataFrame, won: pd.DataFrame, prefix: str) -> str:
    chosen = test[test["reference_id"].str.startswith(prefix)]
    if chosen.empty:
        raise ValueError(
            f"expected test references beginning with {prefix!r}, got none; mend the figure's reference"
        )
    decided = (chosen["pair_id"].map(won["held_out"]) - 0.5).abs()
    table = decided.groupby(chosen["reference_id"]).agg(["count", "mean"])
    full = table[table["count"] == table["count"].max()].reset_index().sort_values(["mean", "reference_id"])
    return str(full["reference_id"].iloc[len(full) // 2])


def _shares(pairs: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """Of each image of a level: the share of votes that it won against the others; the best first."""
    sides = pd.concat(
        [
            pairs[["image_a", *GROUPS]].rename(columns={"image_a": "image_id"}),
            pairs[["image_b"]].rename(columns={"image_b": "image_id"}).join(1 - pairs[list(GROUPS)]),
        ]
    )
    mean = sides.groupby("image_id")[list(GROUPS)].mean().rename(columns=lambda name: f"share_{name}")
    frame = images.merge(mean, left_on="image_id", right_index=True)
    return frame.sort_values(["share_held_out", "family"], ascending=[False, True]).head(COLUMNS)


def _draw_sheet(
    place: Millimetres,
    inputs: dict[str, Path],
    reference: str,
    levels: list[float],
    shares: pd.DataFrame,
) -> None:
    original = pq.read_table(
        inputs["references"], columns=["image"], filters=[("reference_id", "=", reference)]
    )
    stored = pq.read_table(
        inputs["images"],
        columns=["image_id", "image"],
        filters=[("image_id", "in", list(shares["image_id"]))],
    )
    pixels = dict(zip(stored["image_id"].to_pylist(), stored["image"].to_pylist(), strict=True))
    for row, level in enumerate(levels):
        y = place.height - 5 - _CELL_MM - row * _ROW_MM
        if row == 0:
            first = place.axes(1.5, y, _CELL_MM, _CELL_MM)
            _show(first, decode_image(original["image"][0].as_py()), "reference")
            _legend(first)
        for column, image in enumerate(shares[shares["target_db"] == level].itertuples()):
            axes = place.axes(30.5 + column * (_CELL_MM + 2), y, _CELL_MM, _CELL_MM)
            _show(axes, decode_image(pixels[image.image_id]), label(image.family))
            if column == 0:
                axes.set_ylabel(f"{level:g} dB", fontweight="bold", labelpad=2)
            _bars(axes, {group: getattr(image, f"share_{group}") for group in GROUPS})


def _show(axes: Axes, image: np.ndarray, title: str) -> None:
    axes.imshow(image, interpolation="none")
    axes.set_title(title, pad=2.5)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _bars(axes: Axes, shares: dict[str, float]) -> None:
    """Under an image: the share of votes won, a bar per group of voters, with a mark at one half."""
    for row, (group, share) in enumerate(shares.items()):
        y, length = -0.065 - 0.10 * row, 0.8
        _box(axes, 0, y, length, "0.92")
        if share > 0:
            _box(axes, 0, y, length * share, VOTER_COLOURS[group])
        _box(axes, length / 2 - 0.006, y, 0.012, "white")
        axes.text(1, y, number(share, 2), transform=axes.transAxes, ha="right", va="center", fontsize="small")


def _legend(axes: Axes) -> None:
    axes.text(0, -0.09, "share of votes won", transform=axes.transAxes, va="center", fontsize="small")
    for row, group in enumerate(GROUPS):
        y = -0.23 - 0.13 * row
        _box(axes, 0, y, 0.09, VOTER_COLOURS[group])
        axes.text(0.13, y, label(group), transform=axes.transAxes, va="center", fontsize="small")


def _box(axes: Axes, x: float, y: float, width: float, colour: str) -> None:
    """A bar outside the image, in the image's own unit; a patch, since dozens of axes would take seconds."""
    bar = Rectangle((x, y - 0.035), width, 0.07, facecolor=colour, linewidth=0, transform=axes.transAxes)
    bar.set_clip_on(False)
    axes.add_patch(bar)


def _draw_residuals(axes: Axes, residual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    reach = max(0.11, float(np.abs(residual).max()) * 1.05)
    counts, edges = np.histogram(residual, bins=np.linspace(-reach, reach, 45))
    axes.stairs(counts, edges, fill=True, color="0.55")
    for side in (-TOLERANCE_DB, TOLERANCE_DB):
        axes.axvline(side, color="0.2", linewidth=0.7, linestyle=(0, (3, 2)))
    axes.text(
        TOLERANCE_DB,
        1.01,
        "tolerance",
        transform=axes.get_xaxis_transform(),
        ha="center",
        fontsize="x-small",
        color="0.3",
    )
    axes.set_xlabel("PSNR of A minus PSNR of B (dB)")
    axes.set_ylabel("test pairs")
    axes.set_title(
        f"mean {residual.mean():+.4f} dB, n = {len(residual):,}".replace("-", MINUS), loc="left", color="0.35"
    )
    tidy_axes(axes)
    return counts, edges


def _draw_votes(axes: Axes, pairs: pd.DataFrame, shares: pd.DataFrame, level: float) -> None:
    """The held-out label of every pair of one level: how far the row is preferred to the column."""
    order = list(shares.loc[shares["target_db"] == level, "family"])
    matrix = np.full((len(order), len(order)), np.nan)
    for pair in pairs.itertuples():
        if pair.family_a in order and pair.family_b in order:
            a, b = order.index(pair.family_a), order.index(pair.family_b)
            matrix[a, b], matrix[b, a] = pair.held_out, 1 - pair.held_out
    axes.imshow(matrix, cmap="PuOr", vmin=-0.15, vmax=1.15, aspect="auto")
    for (row, column), value in np.ndenumerate(matrix):
        if not np.isnan(value):
            colour = "white" if abs(value - 0.5) > 0.42 else "black"
            axes.text(
                column, row, number(value, 2), ha="center", va="center", fontsize="x-small", color=colour
            )
    names = [label(name) for name in order]
    axes.set_xticks(range(len(order)), names, rotation=25, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(order)), names)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(f"votes for the row against the column, {level:g} dB", loc="left", color="0.35")
