"""The paper's directional claims, each with estimate, interval and verdict, from the comparisons of the
benchmarks.

``holds``: ours is better than every metric of the claim's class, the Holm-adjusted paired interval above 0
each time. ``fails``: it is not. ``not_tested``: what it needs was not there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlclipsim.artifacts import read_json, read_table, write_json
from mlclipsim.compression.bd_rate import LEAST_RATE_OVERLAP
from mlclipsim.report.style import TASKS, caveat, label
from mlclipsim.report.tables.writer import number, write_text

__all__ = ["CLAIMS", "Claim", "write"]

# Perceptual metrics that the claim about their class is decided on; "-like" stand-ins never are.
PERCEPTUAL = ("lpips", "dists", "dreamsim")
HUMAN, MARGIN = "human_competitive", -0.05  # in SRCC: less than this behind the best fidelity metric
RATE_TASK, LEAST_SEEDS = "rate_task_better_on_", 3


@dataclass(frozen=True)
class Claim:
    """``against`` picks the comparisons that decide the claim; None where no comparison can yet, and
    ``needs`` why.
    """

    name: str
    against: Callable[[dict[str, Any]], bool] | None
    needs: str
    least: int = 1  # comparisons that it takes


def _is(metric: str) -> Callable[[dict[str, Any]], bool]:
    return lambda row: row["metric"] == metric


CLAIMS = (
    Claim(
        "machine_preference_better_than_fidelity",
        lambda row: row["class"] == "fidelity",
        "scores of fidelity metrics",
    ),
    Claim(
        "machine_preference_better_than_perceptual",
        lambda row: row["metric"] in PERCEPTUAL,
        "at least two of LPIPS, DISTS and DreamSim with official weights",
        least=2,
    ),
    Claim("multi_layer_better_than_global", _is("clip_global"), "similarities of the global embedding"),
    Claim("multi_layer_better_than_best_single", _is("best_single_layer"), "similarities of single layers"),
    Claim("learned_better_than_uniform", _is("ml_clipsim_uniform"), "a fit"),
    Claim("better_than_family_prior", _is("family_prior"), "training labels of the families"),
    Claim(HUMAN, None, "photographs rated by people (human.datasets)"),
    *(
        Claim(f"{RATE_TASK}{task}", None, f"codecs trained with {LEAST_SEEDS} seeds or more")
        for task in TASKS
    ),
)


def write(spec: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path]) -> None:
    """Step ``claims``: comparisons -> claims (.json) ``{claim, verdict, estimate, ci_low, ci_high, n,
    preset, evidence}`` and the same for readers (.md). The estimate is the smallest difference in 2AFC to a
    metric of the class, held-out voters, primary slice; its interval is Holm-adjusted. ``human_competitive``
    is decided by the comparisons in ``human``: a difference in SRCC, above the margin on every data set.
    ``rate_task_better_on_<task>`` is decided by ``gains``: the BD-score of the codecs trained with
    ML-CLIPSim over those trained on, Holm-adjusted over the tasks.
    """
    source = read_json(inputs["comparisons"])
    rows = [row for row in source["comparisons"] if row["voters"] == source["primary_voters"]]
    seen = {(row["metric"], row["variant"]): row for row in source["comparisons"] if row["voters"] == "seen"}
    prior = next((row for row in rows if row["metric"] == "family_prior"), None)
    human = read_json(inputs["human"])["comparisons"] if "human" in inputs else []
    gains = read_table(inputs["gains"], "rate_task_gains").to_dict("records") if "gains" in inputs else []

    def decided(claim: Claim) -> dict[str, Any]:
        if claim.name == HUMAN:
            return _human(claim, human)
        if claim.name.startswith(RATE_TASK):
            return _rate_task(claim, gains, spec)
        return _decide(claim, rows, seen, prior)

    claims = [decided(claim) | {"preset": spec["preset"]} for claim in CLAIMS]
    write_json(outputs["json"], claims)
    write_text(outputs["md"], _markdown(spec, source, claims))


def _decide(
    claim: Claim,
    rows: list[dict[str, Any]],
    seen: dict[tuple[str, str], dict[str, Any]],
    prior: dict[str, Any] | None,
) -> dict[str, Any]:
    against = [
        row for row in rows if claim.against is not None and claim.against(row) and row["p_holm"] is not None
    ]
    if len(against) < claim.least:
        return _not_tested(claim)
    # The hardest opponent speaks for the class: all must be beaten.
    hardest = min(against, key=lambda row: row["holm_ci_low"])
    holds = all(row["difference"] > 0 and row["p_holm"] < 0.05 for row in against)
    return {
        "claim": claim.name,
        "verdict": "holds" if holds else "fails",
        "estimate": hardest["difference"],
        "ci_low": hardest["holm_ci_low"],
        "ci_high": hardest["holm_ci_high"],
        "n": hardest["n_pairs"],
        "evidence": _evidence(claim, against, hardest, seen, prior),
    }


def _not_tested(claim: Claim, reason: str = "") -> dict[str, Any]:
    return {
        "claim": claim.name,
        "verdict": "not_tested",
        "estimate": None,
        "ci_low": None,
        "ci_high": None,
        "n": 0,
        "evidence": reason or f"needs {claim.needs}",
    }


def _human(claim: Claim, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Against the fidelity metric of the highest SRCC, on every data set that people rated."""
    best: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["class"] == "fidelity" and row["ci_low"] is not None:
            known = best.get(row["dataset"])
            best[row["dataset"]] = row if known is None or row["srcc"] > known["srcc"] else known
    if not best:
        return _not_tested(claim)
    hardest = min(best.values(), key=lambda row: row["ci_low"])
    each = ", ".join(
        f"{name}: {number(row['difference'], signed=True)} to {label(row['metric'])}, whose SRCC is "
        f"{number(row['srcc'])}"
        for name, row in best.items()
    )
    return {
        "claim": claim.name,
        "verdict": "holds" if hardest["ci_low"] > MARGIN else "fails",
        "estimate": hardest["difference"],
        "ci_low": hardest["ci_low"],
        "ci_high": hardest["ci_high"],
        "n": hardest["n"],
        "evidence": f"SRCC on {each}; holds above {number(MARGIN, 2)}; {hardest['n_references']} references",
    }


def _rate_task(claim: Claim, gains: list[dict[str, Any]], spec: dict[str, Any]) -> dict[str, Any]:
    """Our arm against the anchor, where nothing about judges, seeds or rates forbids a verdict."""
    task = claim.name.removeprefix(RATE_TASK)
    row = next(
        (
            row
            for row in gains
            if (row["task"], row["measure"], row["arm"], row["anchor"])
            == (task, "consistency", "ml_clipsim", "mse")
        ),
        None,
    )
    if row is None:
        return _not_tested(claim)
    if marked := [name for name in spec["marked_judges"] if spec["judged_tasks"][name] == task]:
        reason = f"needs judges of another family than the encoder's, not {', '.join(marked)}"
        return _not_tested(claim, reason)
    if row["n_seeds"] < LEAST_SEEDS or math.isnan(row["holm_ci_low"]):
        return _not_tested(claim)
    if row["rate_overlap"] < LEAST_RATE_OVERLAP:
        overlap = f"{LEAST_RATE_OVERLAP:.0%}, not {row['rate_overlap']:.0%}"
        return _not_tested(claim, f"needs rates that overlap by {overlap}; train anew")
    saved = row["bd_rate_percent"]
    parts = [
        f"BD-score over {label(row['anchor'])}, {row['n_seeds']:.0f} seeds",
        "BD-rate refused" if math.isnan(saved) else f"BD-rate {saved:+.1f} %",
        f"{number(row['detectable'])} detectable with 80 % power",
    ]
    return {
        "claim": claim.name,
        "verdict": "holds" if row["bd_score"] > 0 and row["p_holm"] < 0.05 else "fails",
        "estimate": row["bd_score"],
        "ci_low": row["holm_ci_low"],
        "ci_high": row["holm_ci_high"],
        "n": row["n_images"],
        "evidence": "; ".join(parts),
    }


def _evidence(
    claim: Claim,
    against: list[dict[str, Any]],
    hardest: dict[str, Any],
    seen: dict[tuple[str, str], dict[str, Any]],
    prior: dict[str, Any] | None,
) -> str:
    parts = []
    if len(against) > 1:
        each = ", ".join(
            f"{label(row['metric'])} {number(row['difference'], signed=True)}" for row in against
        )
        parts.append(f"hardest of {len(against)}: {label(hardest['metric'])} ({each})")
    else:
        parts.append(f"against {label(hardest['metric'])} ({hardest['variant']})")
    if hardest["range_low"] is not None:
        low, high = (number(hardest[key], signed=True) for key in ("range_low", "range_high"))
        parts.append(f"{low} to {high} over leaving out each voter family")
    judged_by_seen = seen.get((hardest["metric"], hardest["variant"]))
    if judged_by_seen and judged_by_seen["difference"] is not None:
        parts.append(f"{number(judged_by_seen['difference'], signed=True)} on seen voters")
    if prior and prior["difference"] is not None and claim.name != "better_than_family_prior":
        low, high = number(prior["holm_ci_low"], signed=True), number(prior["holm_ci_high"], signed=True)
        parts.append(f"family prior: {number(prior['difference'], signed=True)} [{low}, {high}]")
    if hardest["interval"] == "t":
        parts.append(f"only {hardest['n_references']} references")
    return "; ".join(parts)


def _markdown(spec: dict[str, Any], source: dict[str, Any], claims: list[dict[str, Any]]) -> str:
    note = f" ({caveat(spec['preset'])})" if caveat(spec["preset"]) else ""
    lines = [
        f"**Claims, preset {spec['preset']}{note}, run {spec['run']}.**",
        "",
        "Difference in 2AFC between ML-CLIPSim and the hardest metric of the class; held-out voters, slice "
        f"`{source['slice']}`; interval Holm-adjusted over the table's comparisons, clustered by reference. "
        f"`{HUMAN}` is a difference in SRCC over rated images, with its own 95 % interval; "
        f"`{RATE_TASK}...` is a BD-score, a gain in consistency at equal rate, Holm-adjusted over the tasks.",
        "",
        "| claim | verdict | difference | interval | n | evidence |",
        "| --- | --- | ---: | ---: | ---: | --- |",
    ]
    for claim in claims:
        tested = claim["verdict"] != "not_tested"
        low, high = number(claim["ci_low"], signed=True), number(claim["ci_high"], signed=True)
        verdict = claim["verdict"].replace("_", " ")
        lines.append(
            f"| `{claim['claim']}` | {f'**{verdict}**' if tested else verdict} "
            f"| {number(claim['estimate'], signed=True)} | {f'[{low}, {high}]' if tested else ''} "
            f"| {claim['n']:,} | {claim['evidence']} |"
        )
    return "\n".join(lines) + "\n"
