"""The votes of a study, cast again by other rules or counted among other voters, without inference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlclipsim.artifacts import read_table
from mlclipsim.benchmarks.refit import Labels, Study
from mlclipsim.pcmp.labels import cast_votes, own_divergences, own_kinds, soft_label

__all__ = ["Ballots"]


class Ballots:
    """Votes of every voter of a study.

    Who abstains does not depend on the rule, so the pairs with enough votes are always those of the study.
    """

    def __init__(
        self, study: Study, folds: Sequence[dict[str, list[str]]], votes: Path, voters: Path
    ) -> None:
        self._study, self._folds = study, folds
        self._voters = read_table(voters, "voters").set_index("voter")
        stored = read_table(votes, "votes").pivot(index="pair_id", columns="voter", values="vote")
        self._stored = stored.reindex(study.pairs["pair_id"])

    @property
    def tasks(self) -> list[str]:
        return sorted(self._voters["task"].unique())

    def of_task(self, task: str) -> Labels:
        """Labels of the voters of one task alone."""
        return {
            group: self._label(
                self._stored,
                group,
                [[v for v in fold[group] if self._voters.at[v, "task"] == task] for fold in self._folds],
            )
            for group in self._study.labels
        }

    def seen_by(self, members: Sequence[list[str]]) -> np.ndarray:
        """Labels (pairs, folds) of some of the seen voters of each fold."""
        return self._label(self._stored, "seen", members)

    def cast(self, predictions: pd.DataFrame, rule: dict[str, Any]) -> Labels:
        """Labels of everybody's votes by another ``rule``, as the config's ``votes`` spells it."""
        kinds = own_kinds(self._voters["task"], rule["divergence"])
        table = own_divergences(predictions, kinds).pivot(index="image_id", columns="voter", values="value")
        a, b = (
            table.reindex(self._study.pairs[side]).reset_index(drop=True) for side in ("image_a", "image_b")
        )
        votes = cast_votes(a, b, kinds, rule)
        return {
            group: self._label(votes, group, [fold[group] for fold in self._folds])
            for group in self._study.labels
        }

    def _label(self, votes: pd.DataFrame, group: str, members: Sequence[list[str]]) -> np.ndarray:
        """Soft labels of a group, (pairs, folds), from the votes of ``members`` of each fold."""
        columns = []
        for names, usual in zip(members, self._study.labels[group].T, strict=True):
            voters = self._voters.loc[names]
            label = soft_label(
                votes[names].to_numpy(float), voters["task"].to_numpy(str), voters["family"].to_numpy(str)
            )
            columns.append(np.where(np.isfinite(usual), label, np.nan))
        return np.stack(columns, axis=1)
