"""What each part of the metric is worth: layers, encoder, label, loss, and what the fit never saw.

Everything runs on stored similarities, predictions and votes. Each variant is fitted as the metric itself is
(penalty chosen on pcmp_val) and judged as :mod:`mlclipsim.benchmarks.refit` says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlclipsim.artifacts import read_table, write_table
from mlclipsim.benchmarks import consensus
from mlclipsim.benchmarks.ballots import Ballots
from mlclipsim.benchmarks.channel_weights import Products, choose
from mlclipsim.benchmarks.refit import Arm, Study, similarity_differences
from mlclipsim.fit import LOSSES
from mlclipsim.pcmp.divergence import KINDS

__all__ = ["choices", "layers"]


def layers(spec: dict[str, Any], inputs: dict[str, Any], outputs: dict[str, Path]) -> None:
    """Step ``layer_ablation``: pairs, labels, similarities, weights -> ``ablation``, a row per set of layers,
    with and without the global embedding, uniform and learned, and group of voters.

    ``factor`` says how the set came about (``alone``, ``first``, ``last``, ``all``, ``none``); ``setting``
    names its layers, ``n_layers`` counts them. ``validation`` is the 2AFC on pcmp_val by the seen voters.
    """
    study = Study.read(spec, inputs)
    names, deltas = similarity_differences(study.pairs, inputs["similarities"])
    arms = []
    for factor, columns in _layer_sets(len(names) - 1):
        for with_global in (False, True):
            chosen = [*columns, len(names) - 1] if with_global else list(columns)
            if not chosen:
                continue
            part = deltas[:, chosen]
            setting = f"{names[columns[0]]} to {names[columns[-1]]}" if len(columns) > 1 else names[chosen[0]]
            key = {"factor": factor, "setting": setting, "n_layers": len(columns), "with_global": with_global}
            variants: dict[str, Any] = {"uniform": study.uniform(len(chosen))}
            if len(chosen) == len(names):
                variants["learned"] = study.fitted
            elif len(chosen) > 1:
                variants["learned"] = study.refit(part)
            for variant, weights in variants.items():
                validation = {"variant": variant, "validation": study.on_validation(part, weights)}
                arms.append(Arm(key | validation, study.prefer(part, weights)))
    frame = pd.DataFrame(study.judge(arms, study.prefer(deltas, study.fitted)))
    write_table(outputs["ablation"], frame.assign(slice="macro"), "ablation")


def _layer_sets(n: int) -> Iterator[tuple[str, range]]:
    """Sets of consecutive layers: none, each alone, growing from either end, all."""
    yield "none", range(0)
    for layer in range(n):
        yield "alone", range(layer, layer + 1)
    for size in range(2, n):
        yield "first", range(size)
    for size in range(2, n):
        yield "last", range(n - size, n)
    if n > 1:
        yield "all", range(n)


def choices(spec: dict[str, Any], inputs: dict[str, Any], outputs: dict[str, Path]) -> None:
    """Step ``ablation``: pairs, labels, votes, voters, predictions, similarities (one file per encoder of
    ``spec["towers"]``, the main one first), products (of the main one), weights -> ``ablation``, a row per
    variant and group of voters.

    ``factor`` is what was varied, ``setting`` its value; ``judges`` says whose labels decide where it is not
    the study's own (``same rule``: held-out voters too vote by the variant's rule), ``slice`` on which pairs.
    The difference is always to the metric as fitted, on the same pairs and labels.
    """
    study = Study.read(spec, inputs)
    layers, deltas = similarity_differences(study.pairs, inputs["similarities"][0])
    ballots = Ballots(study, spec["folds"], inputs["votes"], inputs["voters"])
    full = study.prefer(deltas, study.fitted)

    def refit(**how: Any) -> np.ndarray:
        return study.prefer(deltas, study.refit(deltas, **how))

    rows = study.judge(_encoders(study, spec["towers"], inputs["similarities"]), full)
    rows += study.judge([_per_channel(study, Products.read(inputs["products"], study.pairs, layers))], full)
    hard = consensus.preference(study.labels["seen"] - 0.5)
    plain = [Arm({"factor": "label", "setting": "soft"}, full)]
    plain.append(Arm({"factor": "label", "setting": "hard"}, refit(labels=hard)))
    plain += [Arm({"factor": "loss", "setting": kind}, refit(kind=kind)) for kind in LOSSES]
    rows += study.judge(plain, full)
    rule = spec["votes"]
    rules = [("divergence", kind, {"divergence": kind}) for kind in KINDS]
    rules += [
        ("ties", f"{scale:g}", {key: scale * rule[key] for key in ("tie_log", "tie_bounded")})
        for scale in spec["ablation"]["tie_scales"]
    ]
    predictions = read_table(inputs["predictions"], "predictions")
    recast = []
    for factor, name, change in rules:
        labels = ballots.cast(predictions, rule | change)
        recast.append((Arm({"factor": factor, "setting": name}, refit(labels=labels["seen"])), labels))
    rows += study.judge([arm for arm, _ in recast], full)
    for arm, labels in recast:
        again = arm._replace(key=arm.key | {"judges": "same rule"})
        rows += study.judge([again], full, labels=labels)
    rows += _left_out(study, refit, full)
    rows += _across_tasks(study, ballots, refit, full)
    frame = pd.DataFrame(rows)
    for column, default in (("variant", ""), ("judges", ""), ("slice", "macro")):
        frame[column] = frame[column].fillna(default)
    write_table(outputs["ablation"], frame, "ablation")


def _encoders(study: Study, names: list[str], paths: list[Path]) -> list[Arm]:
    arms = []
    for name, path in zip(names, paths, strict=True):
        layers, deltas = similarity_differences(study.pairs, path)
        only_global = np.eye(len(layers))[-1]
        variants: dict[str, Any] = {
            "fitted": study.fitted if name == names[0] else study.refit(deltas),
            "uniform": study.uniform(len(layers)),
            "global": [only_global] * study.n_folds,
        }
        key = {"factor": "encoder", "setting": name}
        arms += [Arm(key | {"variant": v}, study.prefer(deltas, w)) for v, w in variants.items()]
    return arms


def _per_channel(study: Study, products: Products) -> Arm:
    preferred = [
        np.full(len(study.test), np.nan)
        if weights is None
        else consensus.preference(products.differences(weights, study.test))
        for weights in choose(study, products)
    ]
    return Arm({"factor": "weights", "setting": "per channel"}, np.stack(preferred, axis=1))


def _left_out(study: Study, refit: Callable[..., np.ndarray], full: np.ndarray) -> list[dict[str, Any]]:
    """Fits that never saw a family or a level, judged on the primary slice and on what they never saw."""
    pairs, rows, everywhere = study.pairs, [], []
    unseen = []
    for family in sorted(set(pairs["family_a"]) | set(pairs["family_b"])):
        of_family = ((pairs["family_a"] == family) | (pairs["family_b"] == family)).to_numpy()
        unseen.append(("without family", family, f"family={family}", of_family))
    for level in sorted(pairs["target_db"].unique()):
        unseen.append(
            ("without level", f"{level:g}", f"psnr={level:g}", (pairs["target_db"] == level).to_numpy())
        )
    for factor, setting, name, part in unseen:
        arm = Arm({"factor": factor, "setting": setting}, refit(kept=~part))
        everywhere.append(arm)
        rows += study.judge([arm._replace(key=arm.key | {"slice": name})], full, part=part & study.primary)
    return study.judge(everywhere, full) + rows


def _across_tasks(
    study: Study, ballots: Ballots, refit: Callable[..., np.ndarray], full: np.ndarray
) -> list[dict[str, Any]]:
    """Fitted on the seen voters of one task, judged by the voters of each.

    A fold whose seen voters do not do the task has no such fit; the metric as fitted is left out there too.
    """
    labels = {task: ballots.of_task(task) for task in ballots.tasks}
    arms = [
        Arm({"factor": "task", "setting": task}, refit(labels=of_task["seen"]))
        for task, of_task in labels.items()
        if np.isfinite(of_task["seen"]).any()
    ]
    rows = []
    for arm in arms:
        same_folds = np.where(np.isnan(arm.preferred), np.nan, full)
        rows += study.judge([arm], same_folds)
        for judges, of_task in labels.items():
            again = arm._replace(key=arm.key | {"judges": judges})
            rows += study.judge([again], same_folds, labels=of_task)
    return rows
