"""table_1: what PCMP holds, what was left out and why, how far the machines agree."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlclipsim.artifacts import read_json, read_table
from mlclipsim.benchmarks import consensus
from mlclipsim.pcmp.labels import soft_label
from mlclipsim.report.style import label
from mlclipsim.report.tables.writer import number, write

__all__ = ["make"]

SPLITS = ("pcmp_train", "pcmp_val", "pcmp_test")
GROUPS = ("seen", "held_out")


def make(spec: dict[str, Any], inputs: dict[str, Any], outputs: dict[str, Path]) -> None:
    """Step ``table_1``: all PCMP tables -> csv ``split, quantity, value`` (tidy), md and tex (a column per
    split).

    Inputs: ``references, images, pairs, drops`` (one file or several), ``predictions, votes, labels,
        voters``, and ``ceilings``, which names the voters of each fold.
    """
    references = read_table(
        inputs["references"], "references", columns=["reference_id", "photograph", "role"]
    )
    images = read_table(
        inputs["images"],
        "images",
        columns=["image_id", "reference_id", "role", "target_db", "family", "psnr_db"],
    )
    pairs = read_table(inputs["pairs"], "pairs").sort_values("pair_id", ignore_index=True)
    drops = _several(inputs["drops"], "drops")
    voters = read_table(inputs["voters"], "voters").set_index("voter")
    votes = read_table(inputs["votes"], "votes").pivot(index="pair_id", columns="voter", values="vote")
    labels = read_table(inputs["labels"], "labels")
    predictions = read_table(
        inputs["predictions"], "predictions", columns=["image_id", "voter", "correct", "reference_correct"]
    ).merge(images[["image_id", "reference_id", "role", "target_db"]], on="image_id")
    folds = {group: read_json(inputs["ceilings"])[group]["voters"] for group in GROUPS}
    rows = []
    for split in SPLITS:
        here = pairs[pairs["role"] == split]
        ours = votes.reindex(here["pair_id"])
        parts = [
            _contents(references[references["role"] == split], images[images["role"] == split], here),
            _matching(here),
            _left_out(drops[drops["role"] == split], here, labels, len(folds["seen"])),
            _voting(ours, voters, folds),
            _accuracy(predictions[predictions["role"] == split], voters),
            _composition(images[images["role"] == split], here),
        ]
        rows += [(split, quantity, value) for part in parts for quantity, value in part]
    tidy = pd.DataFrame(rows, columns=["split", "quantity", "value"])
    tidy["value"] = tidy["value"].astype(float)
    printed, rules = _pivot(tidy)
    notes = [
        "Agreement is Krippendorff's alpha of the votes (interval scale). Ceilings are 2AFC: attainable, "
        "mean max(p, 1 - p); coin flip, the same if as many voters tossed coins; leave one voter out, the "
        "majority of the others against each voter. Accuracy is the voters' mean on ground truth.",
        "Pairs per pair of families and images per level and family are in the csv.",
    ]
    write(
        spec, outputs, tidy=tidy, printed=printed, caption="The PCMP data set", name="table_1",
        notes=notes, rules=rules,
    )  # fmt: skip


Quantities = Iterator[tuple[str, float]]


def _contents(references: pd.DataFrame, images: pd.DataFrame, pairs: pd.DataFrame) -> Quantities:
    yield "references", len(references)
    yield "photographs", references["photograph"].nunique()
    yield "families", images["family"].nunique()
    yield "targets", images["target_db"].nunique()
    yield "images", len(images)
    yield "pairs", len(pairs)
    yield "pairs_photometric", int(pairs["photometric"].sum())
    between = _between(pairs)
    yield "family_pairs", len(between)
    yield "pairs_per_family_pair_min", between.min() if len(between) else np.nan
    yield "pairs_per_family_pair_max", between.max() if len(between) else np.nan
    sides = pd.concat([pairs["family_a"], pairs["family_b"]]).value_counts()
    yield "smallest_family_share", sides.min() / len(pairs) if len(pairs) else np.nan


def _matching(pairs: pd.DataFrame) -> Quantities:
    residual = (pairs["psnr_a_db"] - pairs["psnr_b_db"]).to_numpy()
    yield "psnr_residual_mean_db", residual.mean() if len(residual) else np.nan
    yield "psnr_residual_median_abs_db", np.median(np.abs(residual)) if len(residual) else np.nan
    yield "psnr_residual_max_abs_db", np.abs(residual).max() if len(residual) else np.nan


def _left_out(drops: pd.DataFrame, pairs: pd.DataFrame, labels: pd.DataFrame, n_folds: int) -> Quantities:
    by_cause = drops.groupby("cause")["count"].sum()
    unattainable = [cause for cause in by_cause.index if cause.startswith("unattainable")]
    yield "dropped_unattainable", by_cause[unattainable].sum()
    for cause in sorted(by_cause.index):
        if cause != "unattainable":
            yield f"dropped_{cause}", by_cause[cause]
    present = labels[labels["pair_id"].isin(pairs["pair_id"])]
    for group in GROUPS:
        yield f"dropped_unlabelled_{group}", len(pairs) * n_folds - int((present["group"] == group).sum())


def _voting(votes: pd.DataFrame, voters: pd.DataFrame, folds: dict[str, list[list[str]]]) -> Quantities:
    yield "voters", len(voters)
    yield "voter_families", voters["family"].nunique()
    for group in GROUPS:
        yield f"voters_{group}", len({name for fold in folds[group] for name in fold})
    yield "votes", int(votes.notna().to_numpy().sum())
    yield "abstentions", int(votes.isna().to_numpy().sum())
    yield "ties", int((votes == 0.5).to_numpy().sum())
    yield "voter_agreement", consensus.agreement(votes.to_numpy(float))
    for group in GROUPS:
        # Means over folds: each fold is a jury of its own.
        juries = [
            (
                votes[names].to_numpy(float),
                *(voters.loc[names, key].to_numpy(str) for key in ("task", "family")),
            )
            for names in folds[group]
        ]
        yield f"voter_agreement_{group}", _mean([consensus.agreement(jury[0]) for jury in juries])
        attainable = _mean([_mean(consensus.attainable(soft_label(*jury))) for jury in juries])
        if group == "held_out":
            yield "ceiling", attainable  # the figure that a metric's 2AFC on held-out voters is read against
        yield f"ceiling_{group}", attainable
        yield f"ceiling_coin_flip_{group}", _mean([_mean(consensus.coin_flip(*jury)) for jury in juries])
        yield (
            f"ceiling_leave_one_voter_out_{group}",
            _mean([_mean(consensus.leave_one_voter_out(*jury)) for jury in juries]),
        )


def _accuracy(predictions: pd.DataFrame, voters: pd.DataFrame) -> Quantities:
    """Mean over voters of their accuracy, clean on this split's references and at each PSNR level."""
    clean = predictions.drop_duplicates(["reference_id", "voter"])
    yield "accuracy clean", _over_voters(clean, "reference_correct")
    for target in sorted(predictions["target_db"].unique()):
        yield (
            f"accuracy at {target:g} dB",
            _over_voters(predictions[predictions["target_db"] == target], "correct"),
        )


def _over_voters(predictions: pd.DataFrame, column: str) -> float:
    known = predictions.dropna(subset=[column])
    return _mean(known[column].astype(float).groupby(known["voter"]).mean().to_numpy())


def _composition(images: pd.DataFrame, pairs: pd.DataFrame) -> Quantities:
    for (first, second), count in _between(pairs).items():
        yield f"pairs {first} vs {second}", count
    for (target, family), count in images.groupby(["target_db", "family"]).size().items():
        yield f"images {family} at {target:g} dB", count


def _between(pairs: pd.DataFrame) -> pd.Series:
    """Pairs per unordered pair of families."""
    names = np.sort(pairs[["family_a", "family_b"]].to_numpy(str), axis=1)
    return pd.Series(list(map(tuple, names)), dtype=object).value_counts().sort_index()


def _mean(values: Sequence[float] | np.ndarray) -> float:
    kept = np.asarray(values, float)
    kept = kept[np.isfinite(kept)]
    return float(kept.mean()) if len(kept) else float("nan")


def _several(paths: Path | Sequence[Path], schema: str) -> pd.DataFrame:
    files = [paths] if isinstance(paths, (str, Path)) else list(paths)
    return pd.concat([read_table(path, schema) for path in files], ignore_index=True)


def _pivot(tidy: pd.DataFrame) -> tuple[pd.DataFrame, list[int]]:
    """A row per quantity, a column per split; compositions stay in the csv."""
    shown = tidy[~tidy["quantity"].str.match(r"(pairs|images) .* (vs|at) ")]
    order = list(dict.fromkeys(shown["quantity"]))
    for before in ("dropped_unattainable",):  # causes that only one split knows belong beside the others
        start = order.index(before)
        causes = sorted((q for q in order if q.startswith("dropped_")), key=lambda q: ("unlabelled" in q, q))
        order = order[:start] + causes + [q for q in order[start:] if q not in causes]
    values = shown.set_index(["quantity", "split"])["value"].to_dict()
    rows = []
    for quantity in order:
        row = {"quantity": quantity.replace("_", " ").replace(" db", " (dB)").replace("held out", "held-out")}
        for split in SPLITS:
            # A cause that a split did not meet is no missing value.
            value = values.get((quantity, split), 0.0 if quantity.startswith("dropped_") else float("nan"))
            row[label(split)] = _cell(quantity, value)
        rows.append(row)
    starts = (
        "references",
        "psnr_residual_mean_db",
        "dropped_unattainable",
        "voters",
        "voter_agreement",
        "accuracy clean",
    )
    return pd.DataFrame(rows), [order.index(name) for name in starts if name in order]


_PROPORTIONS = ("share", "agreement", "ceiling", "accuracy")


def _cell(quantity: str, value: float) -> str:
    if quantity.startswith("psnr"):
        return number(value, 4)
    if any(word in quantity for word in _PROPORTIONS) or math.isnan(value):
        return number(value)
    return f"{int(value):,}"
