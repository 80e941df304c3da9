"""figure_1: a sheet of PCMP, every family at one PSNR with the votes of the machines."""

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

ROWS, COLUMNS = 5, 6  # references, and images of one, that a page has room for
GROUPS = ("held_out", "seen")
MINUS = "\N{MINUS SIGN}"
TOLERANCE_DB = 0.1  # of a pair (method)
_CELL_MM, _ROW_MM, _TOP_MM, _BOTTOM_MM = 22.0, 33.0, 9.0, 58.0


def make(spec: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path]) -> None:
    """Step ``figure_1``: references, images, pairs, labels -> pdf, svg, png, csv.

    The middle PSNR level, of as few test references as show every family. Among those that show equally many
    further ones, a typical one is taken, not one that pleases: its labels are as decided as the median's.
    """
    pairs = read_table(inputs["pairs"], "pairs").sort_values("pair_id", ignore_index=True)
    labels = read_table(inputs["labels"], "labels")
    test = pairs[pairs["role"] == "pcmp_test"]
    if test.empty:
        raise ArtifactError("expected pairs of role pcmp_test, got none; check references.roles")
    won = labels.groupby(["pair_id", "group"])["label"].mean().unstack("group").reindex(columns=list(GROUPS))
    levels = sorted(test["target_db"].unique())
    level = levels[len(levels) // 2]
    of_level = test[test["target_db"] == level].merge(won, left_on="pair_id", right_index=True, how="left")
    columns = ["image_id", "reference_id", "target_db", "family", "psnr_db"]
    images = read_table(inputs["images"], "images", columns=columns)
    chosen = _cover(of_level)
    shares = pd.concat(
        [_shares(of_level[of_level["reference_id"] == reference], images) for reference in chosen],
        ignore_index=True,
    )
    residual = (test["psnr_a_db"] - test["psnr_b_db"]).to_numpy()

    with page(spec, outputs, height_mm=_TOP_MM + _ROW_MM * len(chosen) + _BOTTOM_MM) as figure:
        place = Millimetres(figure)
        _draw_sheet(place, inputs, chosen, shares)
        _draw_legend(place, level, sorted(set(images["family"]) - set(shares["family"])))
        counts, edges = _draw_residuals(place.axes(13, 15, 76, _BOTTOM_MM - 26), residual)
        first = of_level[of_level["reference_id"] == chosen[0]]
        _draw_votes(place.axes(112, 15, 60, _BOTTOM_MM - 26), first, shares)
    bins = pd.DataFrame(
        {"panel": "residual", "bin_low_db": edges[:-1], "bin_high_db": edges[1:], "count": counts}
    )
    votes = of_level[of_level["reference_id"].isin(chosen)]
    votes = votes[["pair_id", "target_db", "family_a", "family_b", *GROUPS]].assign(panel="pair")
    table = pd.concat([shares.assign(panel="image"), votes.rename(columns=_LABEL), bins], ignore_index=True)
    write_csv(outputs["csv"], table[["panel", *(name for name in table.columns if name != "panel")]])


_LABEL = {group: f"label_{group}" for group in GROUPS}


def _cover(pairs: pd.DataFrame) -> list[str]:
    """References that show every family of ``pairs`` between them, at most as many as there is room for."""
    one = pairs.groupby("reference_id")
    decided = (pairs["held_out"] - 0.5).abs().groupby(pairs["reference_id"]).mean()
    typical = (decided - decided.median()).abs()
    families = {reference: {*of["family_a"], *of["family_b"]} for reference, of in one}
    chosen: list[str] = []
    shown: set[str] = set()
    while len(chosen) < ROWS:
        gain = pd.Series({reference: len(of - shown) for reference, of in families.items()})
        if not gain.max():
            break
        best = typical.reindex(gain.index[gain == gain.max()]).sort_values(kind="stable").index[0]
        chosen.append(best)
        shown |= families[best]
    return chosen


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


def _draw_sheet(place: Millimetres, inputs: dict[str, Path], chosen: list[str], shares: pd.DataFrame) -> None:
    originals = _pixels(inputs["references"], "reference_id", chosen)
    distorted = _pixels(inputs["images"], "image_id", list(shares["image_id"]))
    for row, reference in enumerate(chosen):
        y = place.height - _TOP_MM - 4 - _CELL_MM - row * _ROW_MM
        _show(place.axes(1.5, y, _CELL_MM, _CELL_MM), originals[reference], "reference")
        for column, image in enumerate(shares[shares["reference_id"] == reference].itertuples()):
            axes = place.axes(30.5 + column * (_CELL_MM + 2), y, _CELL_MM, _CELL_MM)
            _show(axes, distorted[image.image_id], label(image.family))
            _bars(axes, {group: getattr(image, f"share_{group}") for group in GROUPS})


def _pixels(path: Path, key: str, ids: list[str]) -> dict[str, np.ndarray]:
    """Images by id; the bytes of all others never enter memory."""
    stored = pq.read_table(path, columns=[key, "image"], filters=[(key, "in", ids)])
    return {row[key]: decode_image(row["image"]) for row in stored.to_pylist()}


def _show(axes: Axes, image: np.ndarray, title: str) -> None:
    axes.imshow(image, interpolation="none")
    axes.set_title(title, pad=2.5, fontsize="small")
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


def _draw_legend(place: Millimetres, level: float, hidden: list[str]) -> None:
    axes = place.axes(1.5, place.height - 6, 170, 4)
    axes.axis("off")
    axes.set(xlim=(0, 170), ylim=(0, 4))
    axes.text(0, 2, f"all at {level:g} dB", va="center", fontweight="bold")
    axes.text(29, 2, "share of votes won:", va="center", fontsize="small")
    for x, group in zip((56, 83), GROUPS, strict=True):
        axes.add_patch(Rectangle((x, 1.2), 2, 1.6, facecolor=VOTER_COLOURS[group], linewidth=0))
        axes.text(x + 3, 2, label(group), va="center", fontsize="small")
    if hidden:
        names = ", ".join(map(label, hidden))
        axes.text(170, 2, f"not in this sheet: {names}", va="center", ha="right", fontsize="x-small")


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


def _draw_votes(axes: Axes, pairs: pd.DataFrame, shares: pd.DataFrame) -> None:
    """The held-out label of every pair of one reference: how far the row is preferred to the column."""
    order = list(shares.loc[shares["reference_id"] == pairs["reference_id"].iloc[0], "family"])
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
    axes.set_title("held-out votes for the row, first reference", loc="left", color="0.35")
