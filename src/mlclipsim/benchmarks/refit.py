"""Fit again and judge again: what every ablation of the metric shares. No forward pass, only stored tables.

An ablation varies one thing about the fit (layers, labels, loss, data) and asks what that is worth: the
2AFC on the test pairs of the primary slice, by both groups of voters, and the paired difference to the
metric as it was fitted. Whatever is chosen is chosen on pcmp_val, by the seen voters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mlclipsim import fit
from mlclipsim.artifacts import ArtifactError, read_json, read_table
from mlclipsim.benchmarks import consensus, statistics
from mlclipsim.benchmarks.machine_preference import GROUPS, family_pairs
from mlclipsim.pcmp.labels import mean
from mlclipsim.randomness import generator

__all__ = ["Arm", "Labels", "Study", "similarity_differences"]

Labels = Mapping[str, np.ndarray]  # by group of voters: soft labels (pairs, folds), NaN with too few votes
_DECIMALS = 12  # two ways to one sum must not break a tie


class Arm(NamedTuple):
    """One variant: what it is, and which image of each test pair it prefers in each fold, (test, folds)."""

    key: dict[str, Any]
    preferred: np.ndarray


@dataclass(frozen=True, eq=False)
class Study:
    """Pairs of every role by ``pair_id``, their labels, and the fit that is varied (``weights.json``)."""

    pairs: pd.DataFrame
    labels: Labels
    weights: dict[str, Any]
    roles: tuple[str, ...]  # that are judged
    draws: np.ndarray  # resamples of the judged references

    @classmethod
    def read(cls, spec: dict[str, Any], inputs: dict[str, Any]) -> Study:
        """From ``pairs``, ``labels`` and ``weights``; ``spec``: ``seed``, ``folds``, ``benchmark``.

        The resamples are those of the step ``preference``, so that a metric has one interval everywhere.
        """
        roles = tuple(spec["benchmark"]["roles"])
        pairs = read_table(inputs["pairs"], "pairs").sort_values("pair_id", ignore_index=True)
        stored, weights = read_table(inputs["labels"], "labels"), read_json(inputs["weights"])
        n_folds = len(spec["folds"])
        if len(weights["folds"]) != n_folds:
            raise ArtifactError(
                f"expected weights of {n_folds} folds, got {len(weights['folds'])}; run the fit again"
            )
        labels = {}
        for group in GROUPS:
            of_group = stored[stored["group"] == group].pivot(index="pair_id", columns="fold", values="label")
            labels[group] = of_group.reindex(index=pairs["pair_id"], columns=range(n_folds)).to_numpy(float)
        references = pairs.loc[pairs["role"].isin(roles), "reference_id"].nunique()
        if not references:
            raise ArtifactError(f"expected pairs of roles {list(roles)}, got none; check references.roles")
        rng = generator(spec["seed"], "preference", "bootstrap")
        draws = statistics.resample_counts(references, int(spec["benchmark"]["resamples"]), rng)
        return cls(pairs, labels, weights, roles, draws)

    @property
    def n_folds(self) -> int:
        return len(self.weights["folds"])

    @cached_property
    def test(self) -> np.ndarray:
        """Rows of ``pairs`` that are judged."""
        return np.flatnonzero(self.pairs["role"].isin(self.roles))

    @cached_property
    def primary(self) -> np.ndarray:
        """Which pairs are without a photometric distortion, (pairs,)."""
        return ~self.pairs["photometric"].to_numpy(bool)

    @cached_property
    def clusters(self) -> np.ndarray:
        """Number of each judged pair's reference, (test,)."""
        return pd.factorize(self.pairs["reference_id"].to_numpy()[self.test], sort=True)[0]

    @cached_property
    def _strata(self) -> np.ndarray:
        return family_pairs(self.pairs)[0]

    def refit(
        self,
        deltas: np.ndarray,
        labels: np.ndarray | None = None,
        *,
        kept: np.ndarray | None = None,
        kind: str = "bradley_terry",
    ) -> list[fit.Fit | None]:
        """One fit per fold on pcmp_train, its penalty chosen on pcmp_val; None for a fold without labels.

        Args:
            deltas: (pairs, L), differences of whatever is aggregated.
            labels: (pairs, folds), default those of the seen voters.
            kept: which pairs of pcmp_train and pcmp_val may be used, (pairs,), default all; or per fold,
                (pairs, folds).
            kind: of loss.
        """
        labels = self.labels["seen"] if labels is None else labels
        allowed = np.ones(len(self.pairs), bool) if kept is None else kept
        allowed = np.broadcast_to(allowed[:, None] if allowed.ndim == 1 else allowed, labels.shape)
        fits: list[fit.Fit | None] = []
        for fold in range(self.n_folds):
            rows = self.fitting(np.isfinite(labels[:, fold]) & allowed[:, fold])
            if not all(len(part) for part in rows):
                fits.append(None)
                continue
            train, validation = ((deltas[part], labels[part, fold]) for part in rows)
            fits.append(fit.choose_penalty(train, validation, self.weights["penalties"], kind)[0])
        return fits

    def fitting(self, usable: np.ndarray) -> list[np.ndarray]:
        """Rows of pcmp_train, and of pcmp_val, among the ``usable`` pairs, (pairs,)."""
        return [np.flatnonzero(usable & (self.pairs["role"] == role)) for role in ("pcmp_train", "pcmp_val")]

    @cached_property
    def fitted(self) -> list[np.ndarray]:
        """Weights of the metric as it is, one per fold."""
        return [np.array(fold["weights"]) for fold in self.weights["folds"]]

    def uniform(self, size: int) -> list[np.ndarray]:
        return [np.full(size, 1 / size)] * self.n_folds

    def prefer(
        self,
        deltas: np.ndarray,
        weights: Sequence[np.ndarray | fit.Fit | None],
        rows: np.ndarray | None = None,
    ) -> np.ndarray:
        """Preferences of weights per fold on ``rows`` (default: the test pairs), (rows, folds); NaN where a
        fold has none.
        """
        rows = self.test if rows is None else rows
        columns = []
        for of_fold in weights:
            if of_fold is None:
                columns.append(np.full(len(rows), np.nan))
            else:
                w = of_fold.weights if isinstance(of_fold, fit.Fit) else of_fold
                columns.append(consensus.preference(deltas[rows] @ w))
        return np.stack(columns, axis=1)

    def on_validation(self, deltas: np.ndarray, weights: Sequence[np.ndarray | fit.Fit | None]) -> float:
        """2AFC on pcmp_val by the seen voters, primary slice: what a choice may be based on."""
        rows = np.flatnonzero((self.pairs["role"] == "pcmp_val") & self.primary)
        credits = _earned(self.prefer(deltas, weights, rows), self.labels["seen"][rows])
        data = statistics.reduce(credits[:, None], np.zeros(len(rows), int), self._strata[rows])
        return float(data.estimate[0])

    def estimates(self, preferred: Sequence[np.ndarray], group: str) -> np.ndarray:
        """2AFC of each on the primary slice, without intervals."""
        inside, label = self.primary[self.test], self.labels[group][self.test]
        values = np.stack([_earned(one, label)[inside] for one in preferred], axis=1)
        return statistics.reduce(values, self.clusters[inside], self._strata[self.test][inside]).estimate

    def judge(
        self,
        arms: Sequence[Arm],
        reference: np.ndarray,
        *,
        labels: Labels | None = None,
        part: np.ndarray | None = None,
    ) -> list[dict[str, Any]]:
        """A row per group of voters and arm: 2AFC, interval, and the paired difference to ``reference``.

        Args:
            reference: preferences of the metric that is varied, (test, folds).
            labels: by which to judge, default those of the study.
            part: which pairs, (pairs,), default those of the primary slice; macro average over family pairs.
        """
        inside = (self.primary if part is None else part)[self.test]
        if not arms or not inside.any():
            return []
        strata = pd.factorize(self._strata[self.test][inside])[0]
        clusters, rows = self.clusters[inside], []
        for group, label in (self.labels if labels is None else labels).items():
            judged = label[self.test][inside]
            if not np.isfinite(judged).any():
                continue  # none of these voters judges such a pair
            values = np.stack(
                [_earned(one[inside], judged) for one in (reference, *(arm.preferred for arm in arms))],
                axis=1,
            )
            data = statistics.reduce(values[:, 1:], clusters, strata, self.draws.shape[1])
            intervals = statistics.interval(data, self.draws)
            # Negated, so that a variant which is better has a positive difference.
            against = statistics.compare(-values[:, 0], -values[:, 1:], clusters, strata, self.draws)
            rows += [
                arm.key
                | {
                    "voters": group,
                    "estimate": data.estimate[m],
                    "ci_low": intervals[m].low,
                    "ci_high": intervals[m].high,
                    "interval": intervals[m].method,
                    "difference": found.difference,
                    "difference_low": found.interval.low,
                    "difference_high": found.interval.high,
                    "p": found.p,
                    "p_holm": found.p_holm,  # over the arms of this call
                    "effect_size": found.effect_size,
                    "references_won": found.won,
                    "n_pairs": data.n[m],
                    "n_references": data.n_clusters[m],
                }
                for m, (arm, found) in enumerate(zip(arms, against, strict=True))
            ]
        return rows


def _earned(preferred: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Credit per pair, averaged over the folds that have both, (pairs,)."""
    return mean(consensus.credit(preferred, label))


def similarity_differences(pairs: pd.DataFrame, path: Path) -> tuple[list[str], np.ndarray]:
    """Names of an encoder's layers, ``global`` last, and the differences (pairs, L) that a fit takes."""
    similarities = read_table(path, "similarities")
    return fit.layer_names(similarities), np.round(fit.differences(pairs, similarities), _DECIMALS)
