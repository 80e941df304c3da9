"""From scores of single images to rate-task curves, and to what each arm gains over the anchor.

A curve of an arm is the mean score over images, judges and training seeds, over the mean rate. Judges of one
task count alike, and an image on which some of them abstain has the mean of the others. An arm and the anchor
are compared seed by seed, on the same resamples of images; what was trained without seeds meets each of them.
Intervals are those of :func:`mlclipsim.compression.bd_rate.estimate`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlclipsim.artifacts import SCHEMAS, read_table, write_table
from mlclipsim.benchmarks.statistics import holm, resample_counts
from mlclipsim.compression.bd_rate import (
    LEAST_RATE_OVERLAP,
    Curve,
    Estimate,
    bd_rate,
    bd_score,
    estimate,
    rate_for,
    rate_overlap,
)
from mlclipsim.compression.rate_task import BASE, ORIGINAL, UNTRAINED
from mlclipsim.randomness import generator

__all__ = ["ANCHOR", "CONSISTENCY", "OURS", "evaluate"]

ANCHOR, OURS = "mse", "ml_clipsim"
FIDELITY = "fidelity"  # stands for a task where PSNR and MS-SSIM are measured
CONSISTENCY = "consistency"  # the primary measure: 1 on uncoded images, by definition
_SHARES = {"bpp_90": 0.90, "bpp_95": 0.95}  # of the uncoded score, whose rates are asked for
_GROUP = ["images", "task", "measure"]
_ARM = ["codec", "arm"]


@dataclass(frozen=True)
class _Arm:
    """Rates (bpp) and scores of the same images: (P points in the order of rates, S seeds, N images)."""

    codec: str
    name: str
    qualities: list[int]
    seeds: list[int]
    rates: np.ndarray
    scores: np.ndarray

    def curve(self) -> Curve:
        """Over all images and seeds."""
        return Curve.of(self.rates.mean(axis=(1, 2)), self.scores.mean(axis=(1, 2)))

    def curves(self, weights: np.ndarray) -> list[list[Curve]]:
        """Under ``weights`` (B, N) of the images, which sum to 1: a list over B of a list over seeds."""
        rates, scores = self.rates @ weights.T, self.scores @ weights.T  # (P, S, B)
        return [
            [Curve.of(rates[:, s, b], scores[:, s, b]) for s in range(len(self.seeds))]
            for b in range(len(weights))
        ]


def evaluate(spec: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path]) -> None:
    """Step ``rate_task_curves``: codes, scores, truth -> curves (a row per arm and point), gains (per arm).

    Consistency has intervals; truth and fidelity, the secondary measures, are means over seeds alone.
    """
    codes = read_table(inputs["codes"], "rate_task_codes")
    for column, spent in (
        ("bpp", codes["payload_bytes"]),
        ("bpp_file", codes["payload_bytes"] + codes["container_bytes"]),
        ("bpp_without_constant", codes["payload_bytes"] - codes["constant_bytes"]),
    ):
        codes[column] = 8 * spent / codes["pixels"]
    scores = read_table(inputs["scores"], "rate_task_scores")
    rates = codes.set_index(["images", "arm", "quality", "seed", "unit_id"])["bpp"].sort_index()
    parts: list[pd.DataFrame] = []
    gains: list[dict[str, Any]] = []
    for (images, task), of_task in scores.groupby(["images", "task"], sort=False):
        arms = _arms(of_task, rates[images])
        n = arms[0].scores.shape[-1]
        rng = generator(spec["seed"], "rate_task_curves", images, task)
        draws = resample_counts(n, spec["rate_task"]["resamples"], rng) / n
        judged = {"images": images, "task": task, "measure": CONSISTENCY, "uncoded": 1.0, "n_images": n}
        parts.append(pd.DataFrame(_points(arms, draws)).assign(**judged))
        excluded = of_task["image_id"].nunique() - n
        note = f"{excluded} images on which no judge sees anything left out" if excluded else ""
        gains += [row | judged for row in _gains(arms, draws, note)]
    means = codes.groupby(["images", *_ARM, "quality"], sort=False)
    extra = means[["bpp_file", "bpp_without_constant"]].mean().reset_index()
    secondary = pd.concat(
        [_of_truth(codes, read_table(inputs["truth"], "rate_task_truth")), _of_fidelity(codes)]
    )
    for group, part in secondary.groupby(_GROUP, sort=False):
        gains += _secondary_gains(part, dict(zip(_GROUP, group, strict=True)))
    keys = [*_GROUP, *_ARM, "quality"]
    over_seeds = secondary.groupby(keys, sort=False).agg(
        bpp=("bpp", "mean"), value=("value", "mean"), uncoded=("uncoded", "first"),
        n_images=("n_images", "first"), n_seeds=("seed", "nunique"),
    )  # fmt: skip
    points = pd.concat([*parts, over_seeds.reset_index()], ignore_index=True)
    points = points.merge(extra, on=["images", *_ARM, "quality"], validate="m:1")
    write_table(outputs["curves"], points, "rate_task_curves")
    write_table(outputs["gains"], _with_holm(pd.DataFrame(gains)), "rate_task_gains")


def _arms(scores: pd.DataFrame, rates: pd.Series) -> list[_Arm]:
    """The arms of one set and task; a seed that lacks a point is left out, an arm without one too."""
    coder = [*_ARM, "quality", "seed"]
    table = scores.groupby([*coder, "image_id"])["score"].mean().unstack("image_id")
    table = table.loc[:, table.notna().all()]  # judges abstain by the original: on it for every codec
    unit = scores.drop_duplicates("image_id").set_index("image_id")["unit_id"][table.columns]
    arms = []
    for (codec, name), part in table.groupby(level=_ARM):
        part = part.droplevel(_ARM)
        whole = part.groupby(level="seed").size() == part.index.unique("quality").size
        seeds = sorted(whole.index[whole])
        if not seeds:
            continue
        spent = {key: rates[(name, *key)].reindex(unit).to_numpy() for key in part.index if key[1] in seeds}
        qualities = sorted(
            part.index.unique("quality"), key=lambda quality: sum(spent[quality, s].mean() for s in seeds)
        )
        arms.append(
            _Arm(
                codec,
                name,
                [int(quality) for quality in qualities],
                [int(seed) for seed in seeds],
                np.array([[spent[quality, seed] for seed in seeds] for quality in qualities]),
                np.array([[part.loc[(quality, seed)] for seed in seeds] for quality in qualities]),
            )
        )
    return arms


def _points(arms: list[_Arm], draws: np.ndarray) -> Iterator[dict[str, Any]]:
    for arm in arms:
        for p, quality in enumerate(arm.qualities):
            found = _mean(arm.scores[p], draws)
            low, high = found.interval()
            yield {
                "codec": arm.codec,
                "arm": arm.name,
                "quality": quality,
                "bpp": arm.rates[p].mean(),
                "value": found.value,
                "ci_low": low,
                "ci_high": high,
                "n_seeds": len(arm.seeds),
            }


def _mean(scores: np.ndarray, draws: np.ndarray) -> Estimate:
    """Of scores (S, N)."""
    return estimate(scores.mean(axis=1), draws @ scores.T, scores.shape[1])


def _inversions(arm: _Arm, draws: np.ndarray) -> int:
    """How often the score falls from one point to the next, its interval below 0."""
    steps = np.diff(arm.scores, axis=0)
    return sum(_mean(step, draws).interval()[1] < 0 for step in steps)


def _gains(arms: list[_Arm], draws: np.ndarray, note: str) -> Iterator[dict[str, Any]]:
    """Each arm against the anchor, and what the anchor itself needs."""
    named = {arm.name: arm for arm in arms}
    anchor = named.get(ANCHOR) or named[BASE]
    n = anchor.scores.shape[-1]
    everything = np.full((1, n), 1 / n)
    of_anchor = anchor.curves(everything)[0], anchor.curves(draws), _inversions(anchor, draws)
    for arm in arms:
        curve = arm.curve()
        inversions = _inversions(arm, draws)
        row = {
            "codec": arm.codec,
            "arm": arm.name,
            "anchor": anchor.name,
            "inversions": inversions,
            "lowest_bpp": curve.rates[0],
            "highest_bpp": curve.rates[-1],
            "highest_score": curve.monotone().scores[-1],
            **{name: rate_for(curve, share) for name, share in _SHARES.items()},
        }
        if arm is anchor:
            yield row | {"n_seeds": len(arm.seeds), "note": note}
            continue
        pairs = _seed_pairs(anchor, arm)
        if not pairs:
            yield row | {"n_seeds": 0, "note": "no training seed in common with the anchor"}
            continue
        whole, resampled = arm.curves(everything)[0], arm.curves(draws)
        found = estimate(
            np.array([bd_score(of_anchor[0][a], whole[b]) for a, b in pairs]),
            np.array(
                [
                    [bd_score(one[a], other[b]) for a, b in pairs]
                    for one, other in zip(of_anchor[1], resampled, strict=True)
                ]
            ),
            n,
        )
        saved, refused = bd_rate(anchor.curve(), curve, max(inversions, of_anchor[2]))
        overlap = rate_overlap(anchor.curve(), curve)
        low, high = found.interval()
        notes = [
            note,
            f"BD-rate refused: {refused}" if refused else "",
            f"rates overlap by {overlap:.0%} of the anchor's" if overlap < LEAST_RATE_OVERLAP else "",
            "one training seed" if len(pairs) == 1 else "",
        ]
        yield row | {
            "bd_score": found.value,
            "bd_score_ci_low": low,
            "bd_score_ci_high": high,
            "error": found.error,
            "freedom": found.freedom,
            "p": found.p,
            "detectable": found.detectable,
            "bd_rate_percent": saved,
            "rate_overlap": overlap,
            "n_seeds": len(pairs),
            "note": "; ".join(part for part in notes if part),
        }


def _seed_pairs(anchor: _Arm, arm: _Arm) -> list[tuple[int, int]]:
    """Places of seeds to compare: equal ones, which saw the same images in the same order.

    One side without seeds meets each of the other's.
    """
    if UNTRAINED in (*anchor.seeds, *arm.seeds):
        return [(a, b) for a in range(len(anchor.seeds)) for b in range(len(arm.seeds))]
    return [(anchor.seeds.index(s), arm.seeds.index(s)) for s in arm.seeds if s in anchor.seeds]


def _of_truth(codes: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """Per codec the mean over judges, and that of the originals."""
    keys = [*_GROUP, *_ARM, "quality", "seed"]
    known = truth[truth["n"] > 0]
    found = (
        known.groupby(keys, sort=False).agg(value=("value", "mean"), n_images=("n", "first")).reset_index()
    )
    uncoded = found[found["arm"] == ORIGINAL][[*_GROUP, "value"]].rename(columns={"value": "uncoded"})
    coded = found[found["arm"] != ORIGINAL].merge(uncoded, on=_GROUP)
    bpp = codes.groupby(["images", *_ARM, "quality", "seed"])["bpp"].mean()
    return coded.join(bpp, on=["images", *_ARM, "quality", "seed"])


def _of_fidelity(codes: pd.DataFrame) -> pd.DataFrame:
    """PSNR in dB and MS-SSIM, means over what was coded, as a task of their own."""
    coder = ["images", *_ARM, "quality", "seed"]
    means = codes.groupby(coder, sort=False)[["bpp", "psnr_db", "ms_ssim"]].mean()
    n = codes.groupby(coder, sort=False).size().rename("n_images")
    tidy = means.join(n).reset_index().melt(
        [*coder, "bpp", "n_images"], var_name="measure", value_name="value"
    )  # fmt: skip
    return tidy.dropna(subset="value").assign(task=FIDELITY, uncoded=np.nan)


def _secondary_gains(part: pd.DataFrame, group: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """BD-scores of a secondary measure, mean over seeds."""
    curves = {
        (arm, codec): {
            seed: Curve.of(points["bpp"], points["value"]) for seed, points in of_arm.groupby("seed")
        }
        for (arm, codec), of_arm in part.groupby(["arm", "codec"], sort=False)
    }
    anchor_name = ANCHOR if ANCHOR in part["arm"].to_numpy() else BASE
    anchor = next(seeds for (arm, _), seeds in curves.items() if arm == anchor_name)
    for (arm, codec), seeds in curves.items():
        if arm == anchor_name:
            continue
        pairs = [
            (one, other)
            for a, one in anchor.items()
            for b, other in seeds.items()
            if a == b or UNTRAINED in (a, b)
        ]
        yield group | {
            "codec": codec,
            "arm": arm,
            "anchor": anchor_name,
            "bd_score": np.mean([bd_score(one, other) for one, other in pairs]) if pairs else np.nan,
            "uncoded": part["uncoded"].iloc[0],
            "n_images": part["n_images"].iloc[0],
            "n_seeds": len(pairs),
            "note": "",
        }


def _with_holm(gains: pd.DataFrame) -> pd.DataFrame:
    """Ours against the anchor, adjusted for the number of tasks."""
    gains = gains.reindex(columns=gains.columns.union(["p", "error", "freedom"], sort=False))
    ours = (gains["measure"] == CONSISTENCY) & (gains["arm"] == OURS) & (gains["anchor"] == ANCHOR)
    adjusted, levels = holm(gains.loc[ours, "p"].to_numpy(float))
    gains.loc[ours, "p_holm"] = adjusted
    rows = gains.loc[ours].itertuples()
    intervals = [
        Estimate(row.bd_score, row.error, row.freedom).interval(1 - level)
        for row, level in zip(rows, levels, strict=True)
    ]
    gains.loc[ours, ["holm_ci_low", "holm_ci_high"]] = np.array(intervals).reshape(-1, 2)
    return gains.reindex(columns=SCHEMAS["rate_task_gains"].names)
