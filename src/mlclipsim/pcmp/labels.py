"""From divergences to votes, and from votes to soft labels: how the opinions of several voters become one,
and when they are too few.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mlclipsim.pcmp.divergence import OF_TASK, prefers

__all__ = ["cast_votes", "enough_votes", "mean", "own_divergences", "own_kinds", "soft_label", "soft_labels"]


def own_kinds(tasks: pd.Series, divergence: str) -> pd.Series:
    """By which divergence each voter votes: classifiers by that named, others by their only one."""
    return tasks.map(OF_TASK | {"classification": divergence})


def own_divergences(predictions: pd.DataFrame, kinds: pd.Series) -> pd.DataFrame:
    """Rows of ``predictions`` as ``image_id``, ``voter``, ``value``, the divergence of the voter's kind."""
    columns = list(kinds.unique())
    column = kinds[predictions["voter"]].map(columns.index).to_numpy()
    value = predictions[columns].to_numpy(float)[np.arange(len(predictions)), column]
    return predictions[["image_id", "voter"]].assign(value=value)


def cast_votes(a: pd.DataFrame, b: pd.DataFrame, kinds: pd.Series, settings: dict[str, Any]) -> pd.DataFrame:
    """Every voter's vote on every pair: :func:`prefers`, NaN where one abstains; (pairs, voters).

    Args:
        a, b: divergences of the two images of each pair, (pairs, voters), rows alike.
        kinds: of divergence, by voter.
        settings: ``tie_log``, ``epsilon`` and ``tie_bounded``, among others.
    """
    rule = {key: settings[key] for key in ("tie_log", "epsilon", "tie_bounded")}
    votes = pd.DataFrame(np.nan, index=a.index, columns=kinds.index)
    for kind, names in kinds.groupby(kinds).groups.items():
        votes[names] = prefers(a[names].to_numpy(), b[names].to_numpy(), kind=str(kind), **rule)
    return votes


def mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is not NaN; NaN where nothing is left."""
    present = np.isfinite(values)
    total, count = np.where(present, values, 0.0).sum(axis=-1), present.sum(axis=-1)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def soft_label(votes: np.ndarray, tasks: np.ndarray, families: np.ndarray) -> np.ndarray:
    """Mean over tasks of mean over architecture families of mean over voters, shape (pairs,).

    So a task with many voters, or a family with many members, counts no more than another. A voter that
    abstains (NaN) is left out, and so is a family or task that has no other; NaN where nobody voted.

    Args:
        votes: (pairs, voters) in {0, 1/2, 1, NaN}.
        tasks, families: of each voter, (voters,).
    """
    by_task = []
    for task in np.unique(tasks):
        of_task = tasks == task
        groups = [votes[:, of_task & (families == family)] for family in np.unique(families[of_task])]
        by_task.append(mean(np.stack([mean(group) for group in groups], axis=-1)))
    if not by_task:
        return np.full(len(votes), np.nan)
    return mean(np.stack(by_task, axis=-1))


def soft_labels(votes: pd.DataFrame, families: pd.Series, tasks: pd.Series) -> pd.DataFrame:
    """:func:`soft_label` of each pair, and how many votes are behind it.

    Args:
        votes: (pairs, voters) in {0, 1/2, 1, NaN}.
        families, tasks: of each voter, by its name.

    Returns:
        per pair: ``label`` in [0, 1] (NaN without any vote), ``n_votes``, ``n_families``.
    """
    voters = votes.columns
    of_voter = (tasks[voters].to_numpy(str), families[voters].to_numpy(str))
    families_heard = votes.T.groupby(of_voter[1]).count() > 0
    return pd.DataFrame(
        {
            "label": soft_label(votes.to_numpy(float), *of_voter),
            "n_votes": votes.notna().sum(axis=1),
            "n_families": families_heard.sum(),
        }
    )


def enough_votes(labels: pd.DataFrame, group: str, settings: dict[str, Any]) -> pd.Series:
    """Which pairs of :func:`soft_labels` have the votes that a label of ``group`` needs.

    Args:
        group: ``seen`` or ``held_out``.
        settings: ``min_families``, and ``min_votes``, which binds seen voters only: the metric is fitted on
            their labels, which must not hang on one or two networks.
    """
    least = settings["min_votes"] if group == "seen" else 1
    return (labels["n_families"] >= settings["min_families"]) & (labels["n_votes"] >= least)
