"""figure_2: family against family at equal PSNR, whom machines prefer, and whether metrics say the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from mlclipsim.artifacts import ArtifactError, read_table
from mlclipsim.benchmarks import statistics
from mlclipsim.benchmarks.consensus import preference
from mlclipsim.pcmp.labels import mean
from mlclipsim.report.style import COLOURS, Millimetres, label, page, tidy_axes
from mlclipsim.report.tables.writer import number, write_csv

__all__ = ["FEW", "make"]

FEW = 30  # pairs: a cell with fewer is shown in grey
COLUMNS = ["panel", "judge", "variant", "class", "family", "against", "photometric",
           "estimate", "ci_low", "ci_high", "n_pairs", "n_references"]  # fmt: skip
MACHINES, OURS = "machines", "ml_clipsim"
_MARKERS = "sv^DPX<>dp"
_ROOMY = 12  # families: with more there is no room for the number of pairs in a cell
_NAMES_MM, _MATRIX_MM, _CELL_MM, _TOP_MM, _BOTTOM_MM, _LEGEND_MM = 28.0, 100.0, 9.5, 7.0, 37.0, 11.5


def make(spec: dict[str, Any], inputs: dict[str, Any], outputs: dict[str, Path]) -> None:
    """Step ``figure_2``: pairs, labels, scores (one file or several) -> pdf, svg, png, csv.

    Test pairs with labels of held-out voters; those of several folds are averaged per pair. A cell of the
    ``matrix`` is the mean soft label for the row's family over the column's. A family's ``share`` of pairs
    won is the mean of its row, so that every opponent counts alike however often it was met; a metric's is
    the same of its own preferences, as if it were a machine. Intervals are cluster-robust t.
    """
    pairs = read_table(inputs["pairs"], "pairs").sort_values("pair_id", ignore_index=True)
    labels = read_table(inputs["labels"], "labels")
    labels = labels[labels["group"] == "held_out"].pivot(index="pair_id", columns="fold", values="label")
    test = pairs[(pairs["role"] == "pcmp_test") & pairs["pair_id"].isin(labels.index)]
    if test.empty:
        raise ArtifactError(
            "expected pcmp_test pairs with labels of held-out voters, got none; check references.roles"
        )
    label_of = labels.reindex(test["pair_id"]).to_numpy()  # (pairs, folds)
    files = inputs["scores"] if isinstance(inputs["scores"], list) else [inputs["scores"]]
    scores = pd.concat([read_table(path, "scores") for path in files], ignore_index=True)
    judges = {(MACHINES, "", MACHINES): label_of} | _preferences(test, scores)
    won = np.stack(
        [mean(np.where(np.isfinite(label_of), values, np.nan)) for values in judges.values()], axis=1
    )  # (pairs, judges): share for A
    keys = pd.DataFrame(list(judges), columns=["judge", "variant", "class"])
    cells, shares = _of_families(test, won, keys)
    write_csv(outputs["csv"], pd.concat([cells, shares], ignore_index=True))
    families = list(shares["family"].drop_duplicates())
    side = min(_MATRIX_MM, _CELL_MM * len(families))
    with page(spec, outputs, height_mm=_TOP_MM + side + _BOTTOM_MM) as figure:
        place = Millimetres(figure)
        _draw_cells(place.axes(_NAMES_MM, _BOTTOM_MM, side, side), cells, families)
        left = _NAMES_MM + side + 4
        right = place.axes(left, _BOTTOM_MM, place.width - left - 3, side)
        _draw_shares(right, shares, families, legend_at=-_LEGEND_MM / side)
        few = f"grey: fewer than {FEW} pairs" if (cells["n_pairs"] < FEW).any() else ""
        small = "small numbers: pairs" if len(families) <= _ROOMY else ""
        starred = "*: photometric" if cells["photometric"].any() else ""
        notes = "\n".join(filter(None, (small, few, starred)))
        figure.text(2 / place.width, 2 / place.height, notes, color="0.35", va="bottom", fontsize="x-small")


def _preferences(test: pd.DataFrame, scores: pd.DataFrame) -> dict[tuple[str, str, str], np.ndarray]:
    """(metric, variant, class) -> which side it prefers: (pairs, folds) for ours, fitted per fold, else
    (pairs, 1). Of class ``ours`` only ours.
    """
    chosen = scores[(scores["metric"] == OURS) | (scores["class"] != "ours")]
    found: dict[tuple[str, str, str], list[np.ndarray]] = {}
    for (metric, variant), part in chosen.groupby(["metric", "variant"]):
        by_image = part.set_index("image_id")["score"]
        a, b = (test[side].map(by_image).to_numpy(float) for side in ("image_a", "image_b"))
        sign = 1 if part["higher_is_better"].iloc[0] else -1
        key = (metric, "fitted" if metric == OURS else variant, part["class"].iloc[0])
        found.setdefault(key, []).append(preference(sign * (a - b)))
    return {key: np.stack(values, axis=1) for key, values in found.items()}


def _of_families(
    test: pd.DataFrame, won: np.ndarray, judges: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The two panels as tidy tables, families in the order of the machines' shares."""
    names = sorted(set(test["family_a"]) | set(test["family_b"]))
    a, b = (pd.Index(names).get_indexer(test[side]) for side in ("family_a", "family_b"))
    # Every pair counts for both of its families.
    family, opponent = np.append(a, b), np.append(b, a)
    values = np.concatenate([won, 1 - won])
    clusters = np.tile(pd.factorize(test["reference_id"], sort=True)[0], 2)
    size, photometric = len(names), _photometric(test, names)

    by_cell = statistics.reduce(values[:, :1], clusters, family * size + opponent)
    flat = (len(by_cell.sums), 1, -1)  # each cell an estimate of its own
    by_cell = statistics.Clustered(by_cell.sums.reshape(flat), by_cell.counts.reshape(flat))
    row, column = np.divmod(np.arange(by_cell.n.size), size)
    cells = _estimates(by_cell).assign(
        panel="matrix", judge=MACHINES, family=np.array(names)[row], against=np.array(names)[column]
    )
    parts = []
    for number_, name in enumerate(names):
        mine = family == number_
        data = statistics.reduce(values[mine], clusters[mine], opponent[mine])
        parts.append(judges.join(_estimates(data)).assign(panel="share", family=name))
    shares = pd.concat(parts, ignore_index=True)
    machines = shares[shares["judge"] == MACHINES].sort_values("estimate", ascending=False, kind="stable")
    order = {name: place for place, name in enumerate(machines["family"])}

    def arranged(frame: pd.DataFrame, *keys: str) -> pd.DataFrame:
        frame["photometric"] = frame["family"].map(photometric)
        frame = frame.sort_values(list(keys), key=lambda name: name.map(order), kind="stable")
        return frame.reindex(columns=COLUMNS).reset_index(drop=True)

    return arranged(cells[cells["n_pairs"] > 0], "family", "against"), arranged(shares, "family")


def _photometric(test: pd.DataFrame, names: list[str]) -> dict[str, bool]:
    """A pair is photometric if either side is, so a family is if all its pairs are."""
    sides = pd.concat([test[["family_a", "photometric"]], test[["family_b", "photometric"]].set_axis(
        ["family_a", "photometric"], axis=1)])  # fmt: skip
    return sides.groupby("family_a")["photometric"].all().to_dict()


def _estimates(data: statistics.Clustered) -> pd.DataFrame:
    intervals = statistics.interval(data, None)
    return pd.DataFrame(
        {
            "estimate": data.estimate,
            "ci_low": [interval.low for interval in intervals],
            "ci_high": [interval.high for interval in intervals],
            "n_pairs": data.n,
            "n_references": data.n_clusters,
        }
    )


def _draw_cells(axes: Axes, cells: pd.DataFrame, families: list[str]) -> None:
    size = len(families)
    starred = set(cells.loc[cells["photometric"], "family"])
    names = [f"{label(name)}{' *' if name in starred else ''}" for name in families]
    matrix, count = (
        cells.pivot(index="family", columns="against", values=value)
        .reindex(index=families, columns=families)
        .to_numpy(float)
        for value in ("estimate", "n_pairs")
    )
    axes.imshow(np.where(count >= FEW, matrix, np.nan), cmap="PuOr", vmin=-0.15, vmax=1.15, aspect="auto")
    roomy = size <= _ROOMY
    for row, column in zip(*np.nonzero(count > 0), strict=True):
        value, few = matrix[row, column], count[row, column] < FEW
        if few:
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor="0.94", linewidth=0))
        colour = "0.45" if few else "white" if abs(value - 0.5) > 0.42 else "black"
        centred: dict[str, Any] = {"ha": "center", "va": "center", "color": colour}
        axes.text(
            column, row - 0.12 * roomy, number(value, 2), fontsize="small" if roomy else "x-small", **centred
        )
        if roomy:
            axes.text(column, row + 0.28, f"{count[row, column]:.0f}", fontsize="x-small", **centred)
    axes.set_xticks(range(size), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(size), names)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title("held-out votes, row over column", loc="left", color="0.35")


def _draw_shares(axes: Axes, shares: pd.DataFrame, families: list[str], legend_at: float) -> None:
    """A row per family, as in the matrix: the machines' share as a line in its interval, metrics as marks.

    ``legend_at``: its upper edge, in units of the axes' height.
    """
    rows = np.arange(len(families))
    of_judge = dict(iter(shares.groupby(["judge", "variant", "class"], sort=False)))
    machines = of_judge.pop((MACHINES, "", MACHINES))
    low, high = machines["ci_low"], machines["ci_high"]
    axes.barh(rows, high - low, left=low, height=0.8, color="0.82")
    line = axes.vlines(machines["estimate"], rows - 0.4, rows + 0.4, color="black")
    handles: dict[str, Artist] = {"machines, 95 %": line}
    ours = of_judge.pop((OURS, "fitted", "ours"), None)
    if ours is not None:
        handles[label(OURS)] = axes.plot(ours["estimate"], rows, "o", color=COLOURS["ours"], markersize=4)[0]
    # Marks of one row lie one under another, so that none hides the next.
    offsets = np.linspace(-0.34, 0.34, len(of_judge)) if len(of_judge) > 1 else [0.0]
    tones = matplotlib.colormaps["Blues"](np.linspace(0.45, 0.95, len(of_judge)))
    names = [metric for metric, _, _ in of_judge]
    for place, ((metric, variant, kind), mine) in enumerate(of_judge.items()):
        name = label(metric) if names.count(metric) == 1 else f"{label(metric)} ({label(variant)})"
        colour = tones[place] if kind == "fidelity" else COLOURS[kind]
        marker = _MARKERS[place % len(_MARKERS)]
        y = rows + offsets[place]
        handles[name] = axes.plot(mine["estimate"], y, marker, color=colour, markersize=3)[0]
    axes.axvline(0.5, color="0.5", linewidth=0.7, linestyle=(0, (3, 2)), zorder=0)
    axes.set_xlim(-0.02, 1.02)
    ticks = np.linspace(0, 1, 5)
    axes.set_xticks(ticks, [number(tick, 2) for tick in ticks])
    axes.set_ylim(len(families) - 0.5, -0.5)
    axes.set_yticks(rows[:-1] + 0.5, [])
    axes.tick_params(axis="y", length=0)
    axes.set_title("share of pairs won", loc="left", color="0.35")
    tidy_axes(axes)
    axes.legend(
        handles.values(), handles.keys(), loc="upper right", bbox_to_anchor=(1.06, legend_at), ncols=2,
        borderpad=0, labelspacing=0.35, handlelength=1.4,
    )  # fmt: skip
