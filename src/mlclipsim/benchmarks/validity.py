"""Are consistency votes a fair stand-in for machine utility?

They are held against ground truth, cleared of voters that misread the reference, and asked whether one number
per image explains them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from statsmodels.genmod.families import Binomial
from statsmodels.genmod.generalized_linear_model import GLM

from mlclipsim.artifacts import ArtifactError, read_table
from mlclipsim.benchmarks import statistics
from mlclipsim.benchmarks.consensus import attainable, credit, preference
from mlclipsim.pcmp.labels import enough_votes, soft_labels
from mlclipsim.randomness import generator

__all__ = ["COLUMNS", "JURIES", "OTHERS", "measure"]

SPLITS = ("pcmp_train", "pcmp_val", "pcmp_test")
OTHERS = {"seen": "held_out", "held_out": "seen"}
JURIES = ("all", *OTHERS)
COLUMNS = ["quantity", "split", "voters", "voter", "family", "reference_read",
           "estimate", "ci_low", "ci_high", "interval", "n", "n_references"]  # fmt: skip


@dataclass(frozen=True)
class Split:
    """The pairs of one split and, row by row, what voters said of them and knew about them."""

    name: str
    pairs: pd.DataFrame
    votes: pd.DataFrame  # (pairs, voters)
    # Each (pairs, voters): 1 where the voter reads the image rightly, else 0; NaN without ground truth.
    right_a: np.ndarray
    right_b: np.ndarray
    right_reference: np.ndarray
    members: dict[str, list[list[str]]]  # who sits in a jury, per fold; all voters are one jury
    labels: dict[str, np.ndarray]  # of each jury: (pairs, folds), NaN where there is none
    clusters: np.ndarray  # number of each pair's reference
    draws: np.ndarray

    def columns(self, names: list[str]) -> np.ndarray:
        """Where voters stand in ``votes``."""
        return self.votes.columns.get_indexer(names)

    def mean(self, values: np.ndarray, rows: np.ndarray | None = None) -> dict[str, Any]:
        """Mean of what is not NaN in ``values`` (N, M), with its interval; ``rows`` of pairs of the N."""
        clusters = self.clusters if rows is None else self.clusters[rows]
        flat = values.reshape(-1, 1)
        repeated = clusters.repeat(flat.size // max(len(clusters), 1))
        data = statistics.reduce(flat, repeated, size=self.draws.shape[1])
        interval = statistics.interval(data, self.draws)[0]
        return {
            "estimate": data.estimate[0], "ci_low": interval.low, "ci_high": interval.high,
            "interval": interval.method, "n": data.n[0], "n_references": data.n_clusters[0],
        }  # fmt: skip

    def correlation(self, x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
        """Pearson's r over what neither lacks; with too few references for a bootstrap no interval."""
        both = np.isfinite(x) & np.isfinite(y)
        moments = np.stack([np.where(both, m, np.nan).ravel() for m in (x, y, x * x, y * y, x * y)], axis=1)
        data = statistics.reduce(moments, self.clusters.repeat(x.shape[1]), size=self.draws.shape[1])

        def pearson(mean: np.ndarray) -> np.ndarray:
            x, y, xx, yy, xy = mean.T
            with np.errstate(invalid="ignore", divide="ignore"):  # labels may all be equal
                return (xy - x * y) / np.sqrt((xx - x * x) * (yy - y * y))

        enough = data.n_clusters[0] >= statistics.MIN_CLUSTERS
        low, high = (
            np.nanquantile(pearson(statistics.bootstrap(data, self.draws)), [0.025, 0.975])
            if enough
            else (np.nan, np.nan)
        )
        return {
            "estimate": pearson(data.estimate), "ci_low": low, "ci_high": high,
            "interval": "bootstrap" if enough else "none", "n": data.n[0], "n_references": data.n_clusters[0],
        }  # fmt: skip


def measure(spec: dict[str, Any], inputs: dict[str, Path], voters: pd.DataFrame) -> pd.DataFrame:
    """Every quantity of every split, tidy, in COLUMNS.

    ``voters`` is the group that judges; *others* are the group that it shares no family with. Means are over
    ``n`` votes, labels or triads, all folds together. Quantities, by ``reference_read`` (all, right, wrong)
    where ground truth is asked:

    - ``one_right``: share of (pair, voter) on which the voter reads one image rightly and the other wrongly,
      so that ground truth says which is better; all others in this block are over those
    - ``own_truth``: credit of the voter's own vote; per voter too
    - ``others_truth``: credit of the majority of the other group's label; per voter (who was right) too
    - ``label_left``, ``majority_kept``, ``majority_kept_where_votes_fell_out``, ``correlation``: labels from
      only those voters that read the reference rightly, against the full ones
    - ``circular_triads``, ``circular_triads_of_random_rankings``, ``tied_triads``: of three images of a block
      whose majorities run in a circle (Kendall and Babington Smith, Biometrika 31, 1940)
    - ``utility``: Bradley-Terry utility of a family in log-odds, fitted on pcmp_train, mean over families 0
    - ``family_utility``, ``image_utility``, ``others_label``, ``attainable``: 2AFC against the group's labels

    Args:
        spec: ``seed``, ``folds``, ``votes`` (``min_families``, ``min_votes``), ``benchmark`` (``resamples``).
        inputs: ``pairs``, ``predictions``, ``votes``, ``labels``.
        voters: the table of that name, by voter.
    """
    splits = {split.name: split for split in _splits(spec, inputs, voters)}
    utilities = {jury: _family_utilities(splits["pcmp_train"], jury) for jury in JURIES}
    rows: list[dict[str, Any]] = []
    for name, split in splits.items():
        parts = (
            _against_truth(split),
            _of_right_readers(split, voters, spec["votes"]),
            _triads(split, voters, spec),
            _explained(split, utilities),
        )
        rows += [{"split": name} | row for part in parts for row in part]
    for jury, of_jury in utilities.items():
        rows += of_jury.assign(quantity="utility", split="pcmp_train", voters=jury).to_dict("records")
    names = ("voter", "family", "reference_read")
    return pd.DataFrame(rows, columns=COLUMNS).fillna(dict.fromkeys(names, ""))


def _splits(spec: dict[str, Any], inputs: dict[str, Path], voters: pd.DataFrame) -> Iterator[Split]:
    pairs = read_table(inputs["pairs"], "pairs").sort_values("pair_id", ignore_index=True)
    votes = read_table(inputs["votes"], "votes").pivot(index="pair_id", columns="voter", values="vote")
    predictions = read_table(
        inputs["predictions"], "predictions", columns=["image_id", "voter", "correct", "reference_correct"]
    )
    reads, reads_reference = (
        predictions.assign(value=predictions[column].astype("float64"))
        .pivot(index="image_id", columns="voter", values="value")
        .reindex(columns=votes.columns)
        for column in ("correct", "reference_correct")
    )
    members = {"all": [list(votes.columns)]}
    members |= {group: [list(fold[group]) for fold in spec["folds"]] for group in OTHERS}
    labels = read_table(inputs["labels"], "labels")
    labels = labels.pivot(index="pair_id", columns=["group", "fold"], values="label")
    labels["all", 0] = _labels(votes, "all", voters, spec["votes"])
    for name in SPLITS:
        mine = pairs[pairs["role"] == name].reset_index(drop=True)
        if mine.empty:
            raise ArtifactError(f"expected pairs of role {name}, got none; check references.roles")
        clusters = pd.factorize(mine["reference_id"], sort=True)[0]
        rng = generator(spec["seed"], "table_8", "bootstrap", name)
        yield Split(
            name=name,
            pairs=mine,
            votes=votes.reindex(mine["pair_id"]),
            right_a=reads.reindex(mine["image_a"]).to_numpy(),
            right_b=reads.reindex(mine["image_b"]).to_numpy(),
            right_reference=reads_reference.reindex(mine["image_a"]).to_numpy(),
            members=members,
            labels={jury: labels[jury].reindex(mine["pair_id"]).to_numpy() for jury in JURIES},
            clusters=clusters,
            draws=statistics.resample_counts(
                int(clusters.max()) + 1, int(spec["benchmark"]["resamples"]), rng
            ),
        )


def _labels(votes: pd.DataFrame, jury: str, voters: pd.DataFrame, settings: dict[str, Any]) -> pd.Series:
    """Soft labels of a jury's votes, NaN where they are too few."""
    found = soft_labels(votes, voters["family"], voters["task"])
    return found["label"].where(enough_votes(found, jury, settings))


Rows = Iterator[dict[str, Any]]


def _majority(label: np.ndarray) -> np.ndarray:
    """1 where a label is for A, 0 for B, 1/2 where it is undecided."""
    return preference(np.round(label - 0.5, 9))


def _against_truth(split: Split) -> Rows:
    one_right = np.abs(split.right_a - split.right_b)
    own = credit(split.votes.to_numpy(float), split.right_a)
    for jury, members in split.members.items():
        columns = split.columns([name for names in members for name in names])
        values = {"one_right": one_right[:, columns], "own_truth": own[:, columns]}
        if jury in OTHERS:
            majority = _majority(split.labels[OTHERS[jury]])
            per_voter = np.repeat(majority, [len(names) for names in members], axis=1)
            values["others_truth"] = credit(per_voter, split.right_a[:, columns])
        read = split.right_reference[:, columns]
        for part, here in (("all", np.isfinite(read)), ("right", read == 1), ("wrong", read == 0)):
            for quantity, value in values.items():
                tested = here if quantity == "one_right" else here & (one_right[:, columns] == 1)
                chosen = np.where(tested, value, np.nan)
                row = {"quantity": quantity, "voters": jury, "reference_read": part}
                yield row | split.mean(chosen)
                # Single voters once, in the group in which they judge.
                for column in dict.fromkeys(columns) if jury in OTHERS else ():
                    of_voter = {"voter": split.votes.columns[column]}
                    yield row | of_voter | split.mean(chosen[:, columns == column])


def _of_right_readers(split: Split, voters: pd.DataFrame, settings: dict[str, Any]) -> Rows:
    """Labels without the votes of voters that misread the reference; where there is no truth, they stay."""
    misread = split.votes.notna() & (split.right_reference == 0)
    heard = split.votes.mask(misread)
    for jury, members in split.members.items():
        full = split.labels[jury]
        again = np.stack([_labels(heard[names], jury, voters, settings) for names in members], axis=1)
        fell_out = np.stack([misread[names].any(axis=1) for names in members], axis=1)
        majority = _majority(full)
        kept = np.where(majority == 0.5, np.nan, credit(majority, _majority(again)))
        for quantity, values in (
            ("label_left", np.where(np.isfinite(full), np.isfinite(again), np.nan)),
            ("majority_kept", kept),
            ("majority_kept_where_votes_fell_out", np.where(fell_out, kept, np.nan)),
        ):
            yield {"quantity": quantity, "voters": jury} | split.mean(values)
        yield {"quantity": "correlation", "voters": jury} | split.correlation(full, again)


def _triads(split: Split, voters: pd.DataFrame, spec: dict[str, Any]) -> Rows:
    rows, flipped = _three_by_three(split.pairs)
    votes = split.votes.to_numpy(float)[rows]  # (triads, 3, voters)
    votes = np.where(flipped[..., None], 1 - votes, votes)
    for jury, members in split.members.items():
        observed, at_random, tied = [], [], []
        for fold, names in enumerate(members):
            label = split.labels[jury][rows, fold]
            circular = _circular(np.where(flipped, 1 - label, label))
            observed.append(circular)
            tied.append(np.where(np.isfinite(label).all(axis=1), np.isnan(circular), np.nan))
            rng = generator(spec["seed"], "table_8", "random rankings", split.name, jury, fold)
            shuffled = _ranked_at_random(votes[..., split.columns(names)], rng)
            flat = pd.DataFrame(shuffled.reshape(-1, len(names)), columns=names)
            drawn = _labels(flat, jury, voters, spec["votes"])
            at_random.append(_circular(drawn.to_numpy().reshape(-1, 3)))
        for quantity, parts in (
            ("circular_triads", observed),
            ("circular_triads_of_random_rankings", at_random),
            ("tied_triads", tied),
        ):
            yield {"quantity": quantity, "voters": jury} | split.mean(np.stack(parts, axis=1), rows[:, 0])


def _three_by_three(pairs: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Every three images i < j < k that are all paired with each other: the rows of their pairs ij, jk, ik,
    (triads, 3), and whether the row has them the other way round.
    """
    a, b = pairs["image_a"].to_numpy(str), pairs["image_b"].to_numpy(str)
    flipped = a > b
    edges = pd.DataFrame(
        {"low": np.where(flipped, b, a), "high": np.where(flipped, a, b), "row": np.arange(len(a))}
    )
    two = edges.merge(edges, left_on="high", right_on="low", suffixes=("_ij", "_jk"))
    three = two.merge(edges, left_on=["low_ij", "high_jk"], right_on=["low", "high"])
    rows = three[["row_ij", "row_jk", "row"]].to_numpy()
    return rows, flipped[rows]


def _circular(label: np.ndarray) -> np.ndarray:
    """1 where the majorities of ij, jk and ik run in a circle, else 0; NaN where one is tied or missing."""
    ij, jk, ik = np.sign(np.round(label - 0.5, 9)).T
    return np.where(np.isfinite(ij * jk * ik) & (ij * jk * ik != 0), (ij == jk) & (ij == -ik), np.nan)


def _ranked_at_random(votes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same votes (triads, 3, voters) after each voter has mixed up the three images for itself.

    A voter compares divergences, so its own votes never run in a circle; only a group's majority can. What
    chance gives is therefore less than the 1/4 of tossed coins: 1/18 for three voters without ties.
    """
    ij, jk, ik = np.moveaxis(votes, 1, 0)
    same = np.full_like(ij, 0.5)
    matrix = np.stack([same, ij, ik, 1 - ij, same, jk, 1 - ik, 1 - jk, same], axis=-1)
    matrix = matrix.reshape(*ij.shape, 3, 3)  # (triads, voters, 3, 3): vote for the row over the column
    order = rng.permuted(np.broadcast_to(np.arange(3), (*ij.shape, 3)), axis=-1)
    triad, voter = np.ogrid[: len(ij), : ij.shape[1]]
    i, j, k = np.moveaxis(order, -1, 0)
    return np.stack([matrix[triad, voter, x, y] for x, y in ((i, j), (j, k), (i, k))], axis=1)


def _family_utilities(split: Split, jury: str) -> pd.DataFrame:
    """Bradley-Terry on soft labels, ``P(A > B) = sigmoid(u_A - u_B)``, a utility per family: ``family,
    estimate, ci_low, ci_high, interval, n, n_references``, centred, with cluster-robust intervals.

    Each family is also given one tie with an image of utility 0, so that one that wins or loses every pair
    keeps a finite utility; beside thousands of pairs that tie weighs nothing.
    """
    families = sorted(set(split.pairs["family_a"]) | set(split.pairs["family_b"]))
    label = split.labels[jury]
    row, fold = np.nonzero(np.isfinite(label))
    ties = np.full(len(families), 0.5)
    unit = np.eye(len(families))
    a, b = (unit[pd.Index(families).get_indexer(split.pairs[side])] for side in ("family_a", "family_b"))
    design, won = np.vstack([(a - b)[row], unit]), np.append(label[row, fold], ties)
    tied = np.full(len(ties), split.clusters.max() + 1)  # a cluster of their own
    clusters = np.append(split.clusters[row], tied)
    fitted = GLM(won, design, family=Binomial()).fit(
        cov_type="cluster", cov_kwds={"groups": clusters}, use_t=True
    )
    centred = fitted.t_test(unit - 1 / len(families))
    low, high = centred.conf_int().T
    sides = np.abs(a - b)[row].astype(bool)
    return pd.DataFrame(
        {
            "family": families, "estimate": centred.effect, "ci_low": low, "ci_high": high, "interval": "t",
            "n": sides.sum(axis=0),
            "n_references": [len(np.unique(split.clusters[row[side]])) for side in sides.T],
        }
    )  # fmt: skip


def _explained(split: Split, utilities: dict[str, pd.DataFrame]) -> Rows:
    """2AFC of utilities against each jury's labels. What was fitted to pcmp_train is not judged there."""
    for jury, label in split.labels.items():
        preferred = {}
        if split.name != "pcmp_train":
            of_family = utilities[jury].set_index("family")["estimate"]
            a, b = (split.pairs[side].map(of_family).to_numpy() for side in ("family_a", "family_b"))
            preferred["family_utility"] = preference(a - b)[:, None]
        if jury in OTHERS:
            others = split.labels[OTHERS[jury]]
            preferred["image_utility"] = np.stack([_by_image(split.pairs, one) for one in others.T], axis=1)
            preferred["others_label"] = _majority(others)
        for quantity, choice in preferred.items():
            yield {"quantity": quantity, "voters": jury} | split.mean(credit(choice, label))
        yield {"quantity": "attainable", "voters": jury} | split.mean(attainable(label))


def _by_image(pairs: pd.DataFrame, label: np.ndarray) -> np.ndarray:
    """The preference for the image with the larger share of its block's votes, where the pair has a label.

    In a round robin that is the order of the images' Bradley-Terry utilities (Ford, Amer. Math. Monthly 64,
    1957), and needs no fit that unanimous votes would send to infinity.
    """
    images = pd.concat([pairs["image_a"], pairs["image_b"]], ignore_index=True)
    share = pd.Series(np.append(label, 1 - label)).groupby(images).mean()
    a, b = (pairs[side].map(share).to_numpy() for side in ("image_a", "image_b"))
    return np.where(np.isfinite(label), _majority(a - b + 0.5), np.nan)
