"""From votes to soft labels: how the opinions of several voters become one, and when they are too few."""

from __future__ import annotations

from typing import Any

import pandas as pd

__all__ = ["enough_votes", "soft_labels"]


def soft_labels(votes: pd.DataFrame, families: pd.Series, tasks: pd.Series) -> pd.DataFrame:
    """Soft label: mean over tasks of the mean over architecture families of the mean over voters.

    So neither a task with many networks nor a family with many members outvotes the others. A voter that
    abstains (NaN) is left out; so is a family or task that has no other.

    Args:
        votes: (pairs, voters) in {0, 1/2, 1, NaN}.
        families, tasks: of each voter, by its name.

    Returns:
        per pair: ``label`` in [0, 1] (NaN without any vote), ``n_votes``, ``n_families``.
    """
    voters = votes.columns
    by_voter = votes.T
    by_family = by_voter.groupby([tasks[voters].to_numpy(), families[voters].to_numpy()]).mean()
    by_task = by_family.groupby(level=0).mean()
    families_heard = by_voter.groupby(families[voters].to_numpy()).count() > 0
    return pd.DataFrame(
        {
            "label": by_task.mean(),
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
