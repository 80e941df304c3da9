"""Severity: does a metric know that more of one distortion is worse?

PCMP pairs have equal PSNR, so nothing in the fit says that 31 dB beats 22 dB. Here the images of one
reference and one family stand against each other, at the levels of PSNR where PCMP has them: Kendall's tau
between score and minus the strength, a mean over families of the means over references. Strengths are what
it took to reach a PSNR, so PSNR itself scores 1 by construction; coins score 0. No label enters, and no
network runs: the scores are stored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlclipsim.artifacts import SCHEMAS, read_table, write_table
from mlclipsim.benchmarks import statistics
from mlclipsim.benchmarks.machine_preference import OURS
from mlclipsim.randomness import derive_seed, generator

__all__ = ["evaluate", "tau"]

_GROUP = ["reference_id", "family"]


def evaluate(spec: dict[str, Any], inputs: dict[str, Any], outputs: dict[str, Path]) -> None:
    """Step ``severity``: images, scores (several files) -> severity, further rows of table_2.

    Slices: ``macro``, the mean over families without photometric ones, ``all``, over all, and
    ``family=..``; intervals are clustered by reference. ``n_pairs`` counts pairs of levels that a metric
    scored, ``n_ties`` those to which it gives one score, ``n_alone`` images without another level of their
    family and reference: with them nothing can be compared. Without any pair of levels, as where PCMP has
    one PSNR only, there are no rows.

    ``spec``: ``seed``; ``benchmark`` with ``resamples`` and ``roles`` (default pcmp_test).
    """
    options = spec.get("benchmark", {})
    roles = list(options.get("roles") or ["pcmp_test"])
    columns = ["image_id", "role", *_GROUP, "photometric", "strength"]
    images = read_table(inputs["images"], "images", columns=columns)
    images = images[images["role"].isin(roles)].sort_values("image_id", ignore_index=True)
    pairs = _levels(images)
    if pairs.empty:
        write_table(outputs["severity"], pd.DataFrame(columns=SCHEMAS["preference"].names), "preference")
        return
    scores = pd.concat([read_table(path, "scores") for path in inputs["scores"]], ignore_index=True)
    entrants = _entrants(spec, images, scores)
    concordance = {key: _concordance(pairs, by_image) for key, by_image in entrants.items()}

    groups = pairs.drop_duplicates("group").sort_values("group")
    taus = np.stack([tau(values, pairs["group"].to_numpy()) for values in concordance.values()], axis=1)
    clusters = pd.factorize(groups["reference_id"], sort=True)[0]
    draws = statistics.resample_counts(
        int(clusters.max()) + 1,
        int(options.get("resamples", 10_000)),
        generator(spec["seed"], "severity", "bootstrap"),
    )
    strata = pd.factorize(groups["family"], sort=True)[0]
    alone = images[~images["image_id"].isin({*pairs["milder"], *pairs["stronger"]})]
    rows = []
    for name in ("macro", "all", *(f"family={family}" for family in sorted(groups["family"].unique()))):
        inside = _inside(name, groups)
        data = statistics.reduce(taus[inside], clusters[inside], strata[inside], draws.shape[1])
        by_t, main = statistics.interval(data, None), statistics.interval(data, draws)
        n_alone = int(_inside(name, alone).sum())
        for m, ((metric, variant, kind), of_metric) in enumerate(concordance.items()):
            values = of_metric[_inside(name, pairs)]
            scored = np.isfinite(values).all(axis=1)
            rows.append(
                {
                    "benchmark": "severity",
                    "voters": "none",
                    "slice": name,
                    "metric": metric,
                    "variant": variant,
                    "estimate": data.estimate[m],
                    "ci_low": main[m].low,
                    "ci_high": main[m].high,
                    "n_pairs": int(scored.sum()),
                    "n_references": data.n_clusters[m],
                    "class": kind,
                    "interval": main[m].method,
                    "t_low": by_t[m].low,
                    "t_high": by_t[m].high,
                    "n_unlabelled": 0,
                    "n_unscored": int((~scored).sum()),
                    "note": "" if scored.any() else "no pair of this slice",
                    "n_ties": int((values == 0).any(axis=1).sum()),
                    "n_alone": n_alone,
                }
            )
    write_table(outputs["severity"], pd.DataFrame(rows), "preference")


def _inside(name: str, frame: pd.DataFrame) -> np.ndarray:
    """Which rows belong to a slice."""
    if name == "all":
        return np.ones(len(frame), bool)
    if name == "macro":
        return ~frame["photometric"].to_numpy(bool)
    return (frame["family"] == name.removeprefix("family=")).to_numpy()


def _levels(images: pd.DataFrame) -> pd.DataFrame:
    """Every two images of one reference and family whose strengths differ; ``group`` numbers the two's."""
    columns = images[["image_id", *_GROUP, "strength", "photometric"]]
    both = columns.merge(columns, on=_GROUP, suffixes=("", "_stronger"))
    both = both[both["strength"] < both["strength_stronger"]].reset_index(drop=True)
    both["group"] = both.groupby(_GROUP, sort=True).ngroup()
    return both.rename(columns={"image_id": "milder", "image_id_stronger": "stronger"})


def _entrants(
    spec: dict[str, Any], images: pd.DataFrame, scores: pd.DataFrame
) -> dict[tuple[str, str, str], pd.DataFrame]:
    """(metric, variant, class) -> scores by image, larger is better; a column per fold of a fitted metric."""
    here = scores[scores["image_id"].isin(images["image_id"])]
    sign = np.where(here["higher_is_better"], 1.0, -1.0)
    fitted = here["metric"] == OURS
    here = here.assign(
        column=here["variant"],
        variant=here["variant"].mask(fitted, "fitted"),
        score=here["score"] * sign,
        kind=here["class"].mask(here["metric"] == "untrained", "control"),
    )
    entrants = {
        (str(metric), str(variant), str(kind)): part.pivot(index="image_id", columns="column", values="score")
        for (metric, variant, kind), part in here.groupby(["metric", "variant", "kind"], sort=False)
    }
    coins = [derive_seed(spec["seed"], "severity", "random", image) / 2**63 for image in images["image_id"]]
    entrants["random", "uniform", "control"] = pd.DataFrame({"": coins}, index=images["image_id"])
    ours = entrants.get((OURS, "fitted", "ours"))
    if ours is not None:
        entrants["inverted", OURS, "control"] = -ours
    return entrants


def _concordance(pairs: pd.DataFrame, by_image: pd.DataFrame) -> np.ndarray:
    """1 where the milder image scores higher, -1 where the stronger does, 0 for a tie, NaN without a score;
    (pairs, columns).
    """
    milder, stronger = (by_image.reindex(pairs[side]).to_numpy(float) for side in ("milder", "stronger"))
    return np.sign(milder - stronger)


def tau(concordance: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Kendall's tau of each group, (groups,): its mean concordance, averaged over columns (folds).

    No two strengths of a group are equal and a tied score counts 0, which is tau-a; tau-b would drop ties,
    and with all of them a group has none.

    Args:
        concordance: -1, 0 or 1 per pair, (pairs, columns); pairs with a NaN are left out, groups with only
            such are NaN.
        group: number of each pair's group.
    """
    value = concordance.mean(axis=1)
    data = statistics.reduce(value[:, None], group)
    sums, counts = data.sums[:, 0, 0], data.counts[:, 0, 0]
    return np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)
