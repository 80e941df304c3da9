"""The paper's directional claims, each with estimate, interval and verdict, from the comparisons of the
benchmarks.

``holds``: ours is better than every metric of the claim's class, the Holm-adjusted paired interval above 0
each time. ``fails``: it is not. ``not_tested``: what it needs was not there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlclipsim.artifacts import read_json, write_json
from mlclipsim.report.style import caveat, label
from mlclipsim.report.tables.writer import number, write_text

__all__ = ["CLAIMS", "Claim", "write"]

# Perceptual metrics that the claim about their class is decided on; "-like" stand-ins never are.
PERCEPTUAL = ("lpips", "dists", "dreamsim")
HUMAN, MARGIN = "human_competitive", -0.05  # in SRCC: less than this behind the best fidelity metric
TASKS = ("classification", "detection", "segmentation")


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
    *(Claim(f"rate_task_better_on_{task}", None, "codecs trained with at least 3 seeds") for task in TASKS),
)


def write(spec: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path]) -> None:
    """Step ``claims``: comparisons -> claims (.json) ``{claim, verdict, estimate, ci_low, ci_high, n,
    preset, evidence}`` and the same for readers (.md). The estimate is the smallest difference in 2AFC to a
    metric of the class, held-out voters, primary slice; its interval is Holm-adjusted. ``human_competitive``
    is decided by the comparisons in ``human``: a difference in SRCC, above the margin on every data set.
    """
    source = read_json(inputs["comparisons"])
    rows = [row for row in source["comparisons"] if row["voters"] == source["primary_voters"]]
    seen = {(row["metric"], row["variant"]): row for row in source["comparisons"] if row["voters"] == "seen"}
    prior = next((row for row in rows if row["metric"] == "family_prior"), None)
    human = read_json(inputs["human"])["comparisons"] if "human" in inputs else []
    claims = [
        (_human(claim, human) if claim.name == HUMAN else _decide(claim, rows, seen, prior))
        | {"preset": spec["preset"]}
        for claim in CLAIMS
    ]
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


def _not_tested(claim: Claim) -> dict[str, Any]:
    return {
        "claim": claim.name,
        "verdict": "not_tested",
        "estimate": None,
        "ci_low": None,
        "ci_high": None,
        "n": 0,
        "evidence": f"needs {claim.needs}",
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
        f"`{HUMAN}` is a difference in SRCC over rated images, with its own 95 % interval.",
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
