"""Machine utility of single images: how little the machines' predictions moved, averaged by rank."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from mlclipsim.artifacts import ArtifactError
from mlclipsim.pcmp.labels import soft_label

__all__ = ["machine_utility"]

_OF_OTHER_TASKS = ["box_f1", "mean_iou"]  # a detector has the one, a segmenter the other


def machine_utility(predictions: pd.DataFrame, voters: pd.DataFrame, divergence: str) -> pd.Series:
    """Utility in [0, 1] by image, larger where machines see more of what they saw in the reference.

    A voter ranks all images by minus its (calibrated) divergence, 0 the worst and 1 the best, equal ones
    alike: nats of one network and F1 of another have no common unit. Ranks are averaged as votes are, over
    tasks, families, voters. A voter that abstains on a reference is left out of its images; NaN where all do.

    Args:
        predictions: of the declared columns, every voter on every image.
        voters: of the declared columns.
        divergence: the kind that classifiers are ranked by.
    """
    voters = voters.set_index("voter")
    missing = sorted(set(predictions["voter"]) - set(voters.index))
    if missing:
        raise ArtifactError(f"expected task and family of every voter, not those of {missing}; predict anew")
    classifies = predictions["voter"].map(voters["task"]) == "classification"
    value = predictions[divergence].where(classifies, predictions[_OF_OTHER_TASKS].max(axis=1))
    wide = predictions.assign(value=value).pivot(index="image_id", columns="voter", values="value")
    ranks = wide.apply(_rank).to_numpy(float)
    of = voters.loc[wide.columns]
    return pd.Series(
        soft_label(ranks, of["task"].to_numpy(str), of["family"].to_numpy(str)), wide.index, name="utility"
    )


def _rank(divergence: pd.Series) -> np.ndarray:
    ranks = stats.rankdata(-divergence, nan_policy="omit")
    return (ranks - 1) / max(divergence.notna().sum() - 1, 1)
