"""What votes alone can tell: how well voters agree, and what a perfect metric could reach on their labels.

Votes are arrays (pairs, voters) of 1 (A is closer to the reference), 0 (B), 1/2 (tie), NaN (the voter
abstains).
"""

from __future__ import annotations

import itertools

import krippendorff
import numpy as np

from mlclipsim.pcmp.labels import mean, soft_label

__all__ = [
    "agreement",
    "attainable",
    "coin_flip",
    "credit",
    "leave_one_voter_out",
    "preference",
]


def preference(difference: np.ndarray) -> np.ndarray:
    """Which of two scores is larger: 1 for A, 0 for B, 1/2 for equal, NaN where a score is missing."""
    return (np.sign(difference) + 1) / 2


def credit(preferred: np.ndarray, label: np.ndarray) -> np.ndarray:
    """2AFC credit on soft labels: ``p`` for preferring A, ``1 - p`` for B, 1/2 for a tie."""
    return preferred * label + (1 - preferred) * (1 - label)


def attainable(label: np.ndarray) -> np.ndarray:
    """Credit of the best possible metric on a pair: ``max(p, 1 - p)``."""
    return np.maximum(label, 1 - label)


def coin_flip(votes: np.ndarray, tasks: np.ndarray, families: np.ndarray) -> np.ndarray:
    """Expected attainable credit if the same voters tossed fair coins, shape (pairs,).

    By enumeration of all outcomes for each pattern of who votes; .75 for three voters of three families.
    Only what a ceiling exceeds this by is agreement.
    """
    patterns, which = np.unique(np.isfinite(votes), axis=0, return_inverse=True)
    expected = np.full(len(patterns), np.nan)
    for row, voting in enumerate(patterns):
        if voting.any():
            outcomes = np.array(list(itertools.product((0.0, 1.0), repeat=int(voting.sum()))))
            expected[row] = attainable(soft_label(outcomes, tasks[voting], families[voting])).mean()
    return expected[which.reshape(-1)]


def leave_one_voter_out(votes: np.ndarray, tasks: np.ndarray, families: np.ndarray) -> np.ndarray:
    """Credit of the majority of the others against each voter, averaged over voters, shape (pairs,).

    What a metric would score that knew all voters but the one it is judged by.
    """
    credits = []
    for voter in range(votes.shape[1]):
        others = np.arange(votes.shape[1]) != voter
        majority = preference(soft_label(votes[:, others], tasks[others], families[others]) - 0.5)
        credits.append(credit(majority, votes[:, voter]))
    return mean(np.stack(credits, axis=-1)) if credits else np.full(len(votes), np.nan)


def agreement(votes: np.ndarray) -> float:
    """Krippendorff's alpha of the votes as an interval scale (a tie lies halfway); NaN where it is undefined.

    1 is perfect agreement, 0 what chance gives. Undefined without two votes on some pair or with one value
    only.
    """
    votes = votes[np.isfinite(votes).sum(axis=1) > 1]
    if len(np.unique(votes[np.isfinite(votes)])) < 2:
        return float("nan")
    return float(krippendorff.alpha(reliability_data=votes.T, level_of_measurement="interval"))
