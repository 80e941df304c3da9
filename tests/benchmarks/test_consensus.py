"""Soft labels, credits and ceilings by hand and against the values that the method quotes."""

from __future__ import annotations

import numpy as np
import pytest

from mlclipsim.benchmarks import consensus
from mlclipsim.pcmp.labels import soft_label

NAN = np.nan


def test_soft_label_averages_voters_families_tasks_in_turn():
    votes = np.array([[1, 1, 0, 0], [NAN, 1, 0, NAN], [NAN] * 4])
    tasks = np.array(["c", "c", "c", "d"])
    families = np.array(["x", "x", "y", "z"])
    # row 0: classifiers ((1 + 1)/2 + 0)/2 = .5, detector 0 -> .25; row 1: (1 + 0)/2, the detector abstains
    np.testing.assert_allclose(soft_label(votes, tasks, families), [0.25, 0.5, NAN])


def test_credit_by_hand():
    preferred = consensus.preference(np.array([0.3, -0.1, 0.0, NAN]))
    np.testing.assert_array_equal(preferred, [1, 0, 0.5, NAN])
    np.testing.assert_allclose(consensus.credit(preferred, np.full(4, 0.8)), [0.8, 0.2, 0.5, NAN])


@pytest.mark.parametrize(("voters", "expected"), [(1, 1.0), (3, 0.75), (5, 0.6875)])
def test_coin_flip_ceiling(voters, expected):
    """.75 for three voters, .69 for five (the method's figures; E max(k, n - k) / n of a fair binomial)."""
    names = np.array([f"f{n}" for n in range(voters)])
    flips = consensus.coin_flip(np.ones((4, voters)), np.full(voters, "c"), names)
    np.testing.assert_allclose(flips, expected)


def test_coin_flip_ceiling_counts_who_votes_and_their_families():
    votes = np.array([[1, 1, 0], [1, NAN, 0], [NAN, NAN, NAN]])
    tasks, families = np.full(3, "c"), np.array(["x", "x", "y"])
    # weights 1/4, 1/4, 1/2: |p - 1/2| is 1/2 in 2, 1/4 in 4, 0 in 2 of 8 outcomes; two equal voters: 1/2 in
    # 2 of 4
    np.testing.assert_allclose(consensus.coin_flip(votes, tasks, families), [0.75, 0.75, NAN])


def test_leave_one_voter_out_by_hand():
    votes = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    tasks, families = np.full(3, "c"), np.array(["x", "y", "z"])
    # row 0: others of voter 1 are split (1/2), of voter 2 too, of voter 3 say A: 0 -> 1/3
    np.testing.assert_allclose(consensus.leave_one_voter_out(votes, tasks, families), [1 / 3, 1])


def test_agreement_of_krippendorffs_own_example():
    """Krippendorff, 'Computing Krippendorff's Alpha-Reliability' (2011), example C: interval alpha .849."""
    data = np.array(
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
            [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
        ]
    )
    assert consensus.agreement(data.T) == pytest.approx(0.849, abs=5e-4)


def test_agreement_is_undefined_without_two_votes_or_values():
    assert np.isnan(consensus.agreement(np.array([[1, NAN], [NAN, 0.0]])))
    assert np.isnan(consensus.agreement(np.ones((3, 2))))
