"""Soft labels by hand, and which of them rest on enough votes."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mlclipsim.pcmp.labels import enough_votes, soft_labels

VOTERS = pd.DataFrame(
    {
        "task": ["classification", "classification", "classification", "detection"],
        "family": ["alpha", "alpha", "beta", "gamma"],
    },
    index=["a1", "a2", "b1", "c1"],
)
VOTES = pd.DataFrame(
    {
        "a1": [1, 1, np.nan, np.nan],
        "a2": [0, 1, np.nan, np.nan],
        "b1": [1, 0.5, 1, np.nan],
        "c1": [0, np.nan, np.nan, np.nan],
    },
    index=["p", "q", "r", "s"],
)


def test_soft_label_by_hand():
    result = soft_labels(VOTES, VOTERS["family"], VOTERS["task"])
    # p: classification = mean(alpha = mean(1, 0), beta = 1) = .75; detection = 0; label = .375
    # q: classification = mean(1, .5); the detector abstains, so its task does not count
    # r: beta alone; s: nobody
    np.testing.assert_array_equal(result["label"], [0.375, 0.75, 1.0, np.nan])
    assert result["n_votes"].tolist() == [4, 3, 1, 0]
    assert result["n_families"].tolist() == [3, 2, 1, 0]


def test_seen_voters_need_more_votes_than_held_out_ones():
    labels = soft_labels(VOTES, VOTERS["family"], VOTERS["task"])
    settings = {"min_families": 1, "min_votes": 3}
    assert enough_votes(labels, "seen", settings).tolist() == [True, True, False, False]
    assert enough_votes(labels, "held_out", settings).tolist() == [True, True, True, False]
    settings = {"min_families": 3, "min_votes": 3}
    assert enough_votes(labels, "held_out", settings).tolist() == [True, False, False, False]
