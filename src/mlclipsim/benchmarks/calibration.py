"""Is the metric's confidence earned? Its margin against the votes, and its errors where machines disagree.

On the test pairs without photometric families, pair by pair: there are too few in a bin for a macro average.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

from mlclipsim.artifacts import write_table
from mlclipsim.benchmarks import statistics
from mlclipsim.benchmarks.consensus import credit, preference
from mlclipsim.benchmarks.machine_preference import OURS, Jury, of_scores
from mlclipsim.benchmarks.refit import Study, similarity_differences
from mlclipsim.pcmp.labels import mean

__all__ = ["calibrate"]

BINS = 10  # of the margin, by its deciles
LABEL_EDGES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # of |2 p - 1|; open on the left


def calibrate(spec: dict[str, Any], inputs: dict[str, Any], outputs: dict[str, Path]) -> None:
    """Step ``calibration``: pairs, labels, similarities, baselines, weights -> ``calibration``.

    ``panel`` is ``votes`` or ``accuracy``. Of ``votes``: in each bin of the margin ``|S(A) - S(B)| / tau``
    (``bin_low`` to ``bin_high``), ``predicted`` is the mean probability of the fitted model that the image
    which it prefers wins, ``estimate`` the mean share of votes that this image got. Of ``accuracy``: in each
    bin of the label's own margin ``|2 p - 1|``, the share of pairs on which a metric sides with the majority,
    ties counting half; pairs without a majority are left out.
    """
    study = Study.read(spec, inputs)
    _, deltas = similarity_differences(study.pairs, inputs["similarities"])
    inside = study.primary[study.test]
    rows, clusters = study.test[inside], study.clusters[inside]
    taus = np.array([fold["tau"] for fold in study.weights["folds"]])
    margin = deltas[rows] @ np.stack(study.fitted, axis=1) / taus  # (pairs, folds)
    only_global = [np.eye(deltas.shape[1])[-1]] * study.n_folds
    metrics = {
        (OURS, "fitted", "ours"): preference(margin),
        ("ml_clipsim_uniform", "uniform", "ours"): study.prefer(deltas, study.uniform(deltas.shape[1]), rows),
        ("clip_global", "global", "ours"): study.prefer(deltas, only_global, rows),
    }
    frames = []
    for group, every in study.labels.items():
        label = every[rows]
        frames.append(_votes(margin, label, clusters, study.draws).assign(voters=group))
        majority = np.where(label == 0.5, np.nan, preference(label - 0.5))
        sided = {key: credit(preferred, majority) for key, preferred in metrics.items()}
        judged = Jury(majority, [], [], [])
        for entrant in of_scores(study.pairs.iloc[rows], inputs["baselines"]):
            sided[entrant.metric, entrant.variant, entrant.kind] = entrant.credits(judged)
        for (metric, variant, kind), credits in sided.items():
            frame = _accuracy(mean(credits), mean(np.abs(2 * label - 1)).round(9), clusters, study.draws)
            frames.append(frame.assign(voters=group, metric=metric, variant=variant, **{"class": kind}))
    write_table(outputs["calibration"], pd.concat(frames, ignore_index=True), "calibration")


def _votes(margin: np.ndarray, label: np.ndarray, clusters: np.ndarray, draws: np.ndarray) -> pd.DataFrame:
    """Every pair turned so that the metric prefers A; each fold's margin stands for itself."""
    size = np.abs(margin)
    edges = np.quantile(size, np.linspace(0, 1, BINS + 1))
    which = np.clip(np.searchsorted(edges, size, side="right") - 1, 0, BINS - 1)
    turned = np.where(margin >= 0, label, 1 - label)
    columns = [np.where(which == b, turned, np.nan).ravel() for b in range(BINS)]
    frame = _estimates(np.stack(columns, axis=1), np.repeat(clusters, margin.shape[1]), draws)
    frame["bin_low"], frame["bin_high"] = edges[:-1], edges[1:]
    frame["predicted"] = [expit(size[which == b]).mean() for b in range(BINS)]
    return frame.assign(panel="votes", metric=OURS, variant="fitted", **{"class": "ours"})


def _accuracy(
    credits: np.ndarray, decided: np.ndarray, clusters: np.ndarray, draws: np.ndarray
) -> pd.DataFrame:
    bins = list(itertools.pairwise(LABEL_EDGES))
    columns = [np.where((low < decided) & (decided <= high), credits, np.nan) for low, high in bins]
    frame = _estimates(np.stack(columns, axis=1), clusters, draws)
    frame["bin_low"], frame["bin_high"] = np.transpose(bins)
    return frame.assign(panel="accuracy", predicted=np.nan)


def _estimates(values: np.ndarray, clusters: np.ndarray, draws: np.ndarray) -> pd.DataFrame:
    data = statistics.reduce(values, clusters, size=draws.shape[1])
    intervals = statistics.interval(data, draws)
    return pd.DataFrame(
        {
            "estimate": data.estimate,
            "ci_low": [one.low for one in intervals],
            "ci_high": [one.high for one in intervals],
            "interval": [one.method for one in intervals],
            "n_pairs": data.n,
            "n_references": data.n_clusters,
        }
    )
