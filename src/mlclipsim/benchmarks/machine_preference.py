"""Machine preference: with whom do the machines side, and which metric knows it?

Two-alternative forced choice on PCMP's test pairs: a metric that prefers A earns the soft label ``p``, one
that prefers B earns ``1 - p``, a tie 1/2. Credits of several folds of voters are averaged per pair;
references are the clusters. The primary figure is the macro average over family pairs without photometric
families (slice ``macro``): the mean over pairs would mostly tell how strong a family is, which a rule that
sees no pixel knows too (``family_prior``).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlclipsim import fit
from mlclipsim.artifacts import ArtifactError, read_json, read_table, write_json, write_table
from mlclipsim.benchmarks import consensus, statistics
from mlclipsim.benchmarks.consensus import credit, preference
from mlclipsim.pcmp.labels import mean, soft_label
from mlclipsim.randomness import derive_seed, generator

__all__ = [
    "GROUPS",
    "OURS",
    "PRIMARY_SLICE",
    "SLICES",
    "Jury",
    "challenge",
    "evaluate",
    "family_pairs",
    "of_scores",
]

log = logging.getLogger(__name__)

OURS, PRIMARY_SLICE = "ml_clipsim", "macro"
SLICES = (
    "macro",
    "all",
    "no_photometric",
    "photometric",
    "exceptions",
    "unanimous",
    "unseen_family",
    "psnr",
    "task",
)
GROUPS = ("held_out", "seen")
# Whom ours, or a newcomer, is compared with, all in one Holm family: whatever a reader may call a baseline.
_COMPARED = ("fidelity", "perceptual", "machine", "ours", "prior")
# Rows of PCMP that not every preset can have: metric -> (class, needs).
_NOT_EVERYWHERE = {
    "one_classifier_kl": ("machine", "a classifier among the training voters of every fold"),
    "supervised_layers": ("ours", "an encoder that is a supervised network, its layers left as they were"),
}


@dataclass(frozen=True, eq=False)  # compared, and cached, by identity
class Jury:
    """Who judges the test pairs, per fold: soft labels (pairs, folds), and the voters behind them."""

    label: np.ndarray
    votes: list[np.ndarray]  # per fold (pairs, voters)
    tasks: list[np.ndarray]
    families: list[np.ndarray]

    def among(self, *, task: str | None = None, without_family: str | None = None) -> Jury:
        """The same pairs judged by the voters of one task, or by all but those of one family."""
        masks = [
            ((tasks == task) if task is not None else True) & (families != without_family)
            for tasks, families in zip(self.tasks, self.families, strict=True)
        ]
        votes, tasks, families = (
            [part[..., mask] for part, mask in zip(parts, masks, strict=True)]
            for parts in (self.votes, self.tasks, self.families)
        )
        label = np.stack([soft_label(*args) for args in zip(votes, tasks, families, strict=True)], axis=1)
        return Jury(np.where(np.isfinite(self.label), label, np.nan), votes, tasks, families)

    def per_fold(self, ceiling: Callable[..., np.ndarray]) -> np.ndarray:
        """A function of :mod:`consensus` on each fold's voters, (pairs, folds)."""
        return np.stack(
            [ceiling(*a) for a in zip(self.votes, self.tasks, self.families, strict=True)], axis=1
        )


@dataclass(frozen=True)
class Entrant:
    """One row of the table: what it earns from a jury, (pairs, folds)."""

    metric: str
    variant: str
    kind: str  # ours | fidelity | perceptual | machine | control | prior | ceiling
    credits: Callable[[Jury], np.ndarray]
    unseen: Callable[[Jury], np.ndarray] | None = None  # of fits that never saw the pair's families


@dataclass(frozen=True)
class Slice:
    """Which (pair, fold) a figure is over, and how it is averaged."""

    name: str
    mask: np.ndarray  # (pairs, folds)
    jury: Jury
    strata: np.ndarray | None = None  # macro average over these
    unseen: bool = False
    n_unlabelled: int = 0

    def values(self, entrants: Sequence[Entrant]) -> np.ndarray:
        """Credit per pair, averaged over folds, (pairs, entrants); NaN outside the slice."""
        columns = []
        for entrant in entrants:
            earn = entrant.unseen if self.unseen and entrant.unseen else entrant.credits
            columns.append(mean(np.where(self.mask, earn(self.jury), np.nan)))
        return np.stack(columns, axis=1)


@dataclass(frozen=True)
class _Contest:
    """Test pairs, who judges them, in which slices, and who stands; ours is the first entrant."""

    test: pd.DataFrame
    juries: dict[str, Jury]  # by group of voters
    slices: dict[str, list[Slice]]
    entrants: list[Entrant]
    clusters: np.ndarray  # (pairs,) number of the reference
    draws: np.ndarray  # resamples of references

    def rows(self, group: str, part: Slice, entrants: Sequence[Entrant]) -> list[dict[str, Any]]:
        return _rows(group, part, entrants, self.clusters, self.draws)

    def compare(self, group: str, entrants: Sequence[Entrant]) -> list[dict[str, Any]]:
        """The first of ``entrants`` against each of the others, in the primary slice."""
        primary = [part for part in self.slices[group] if part.name == PRIMARY_SLICE]
        return _compare(group, primary[0], entrants, self.clusters, self.draws) if primary else []


def evaluate(spec: dict[str, Any], inputs: dict[str, Any], outputs: dict[str, Path]) -> None:
    """Step ``preference``: every metric and control against seen and held-out voters, in every slice.

    Inputs: ``pairs, labels, votes, voters, baselines`` (scores; one file or several), ``similarities``,
        ``weights``, ``predictions``, optionally ``untrained`` (similarities of an encoder of the same shape
        that never learnt). Outputs: ``preference`` (table_2's rows), ``comparisons`` (ours against each,
        paired, with Holm's correction), ``ceilings``.

    ``spec``: ``seed``; ``folds`` [{seen, held_out}]; ``benchmark`` with ``resamples``, ``roles`` (default
    pcmp_test) and ``slices`` (``psnr``, ``task`` and ``unseen_family`` come by themselves); optionally
    ``metrics``, the catalog entries asked for, so that those without scores appear as not run, and
    ``encoder``, its catalog entry in ``entry``.
    """
    contest = _contest(spec, inputs)
    rows, compared, ceilings = [], [], {}
    for group, jury in contest.juries.items():
        for part in contest.slices[group]:
            rows += contest.rows(group, part, contest.entrants)
        compared += contest.compare(group, contest.entrants)
        ceilings[group] = {
            "agreement": [_number(consensus.agreement(votes)) for votes in jury.votes],
            "voters": [list(fold[group]) for fold in spec["folds"]],
        }
    frame = pd.DataFrame(rows)
    for group, of_group in ceilings.items():
        mine = frame[(frame["voters"] == group) & (frame["metric"] == "ceiling")]
        of_group |= {
            variant: {s: _number(e) for s, e in zip(part["slice"], part["estimate"], strict=True)}
            for variant, part in mine.groupby("variant")
        }
    frame = pd.concat([frame, _not_run(frame, spec.get("metrics") or {})], ignore_index=True)
    write_table(outputs["preference"], frame, "preference")
    write_json(
        outputs["comparisons"],
        {
            "ours": OURS,
            "slice": PRIMARY_SLICE,
            "primary_voters": "held_out",
            "alpha": 0.05,
            "comparisons": compared,
        },
    )
    write_json(outputs["ceilings"], ceilings)


def challenge(
    spec: dict[str, Any], inputs: dict[str, Any], scores: Path
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """A metric that was no entrant, judged as the entrants were.

    Args:
        spec, inputs: as :func:`evaluate` had them.
        scores: of the newcomer, on all images of those pairs.

    Returns:
        Its rows of table_2; the entrants' rows of the primary slice; and the newcomer against each entrant
        that ours is compared with, paired, in the primary slice, Holm's correction over all of one group.

    Raises:
        ValueError: the run has no primary slice.
    """
    slices = list(spec.get("benchmark", {}).get("slices") or SLICES)
    if PRIMARY_SLICE not in slices:
        raise ValueError(
            f"expected benchmark.slices with {PRIMARY_SLICE}, in which metrics are compared, got {slices}; "
            "add it and run the workflow again"
        )
    contest = _contest(spec, inputs)
    (newcomer,) = of_scores(contest.test, scores)
    own, standing, compared = [], [], []
    for group, parts in contest.slices.items():
        for part in parts:
            own += contest.rows(group, part, [newcomer])
            standing += contest.rows(group, part, contest.entrants) if part.name == PRIMARY_SLICE else []
        compared += contest.compare(group, [newcomer, *contest.entrants])
    return pd.DataFrame(own), pd.DataFrame(standing), pd.DataFrame(compared)


def _contest(spec: dict[str, Any], inputs: dict[str, Any]) -> _Contest:
    options = spec.get("benchmark", {})
    roles = list(options.get("roles") or ["pcmp_test"])
    wanted = list(options.get("slices") or SLICES)
    unknown = sorted(set(wanted) - set(SLICES))
    if unknown:
        raise ValueError(f"benchmark.slices: expected some of {list(SLICES)}, got {unknown}")
    pairs = read_table(inputs["pairs"], "pairs").sort_values("pair_id", ignore_index=True)
    test = pairs[pairs["role"].isin(roles)]
    if test.empty:
        raise ArtifactError(f"expected pairs of roles {roles}, got none; check the roles of the references")
    labels, weights = read_table(inputs["labels"], "labels"), read_json(inputs["weights"])
    folds = spec["folds"]
    if len(weights["folds"]) != len(folds):
        raise ArtifactError(
            f"expected weights of {len(folds)} folds, got {len(weights['folds'])}; run the fit again"
        )
    juries = {group: _jury(group, folds, test, labels, inputs) for group in GROUPS}

    entrants = _of_encoder(spec, pairs, test, labels, inputs, weights)
    entrants += of_scores(test, inputs["baselines"])
    entrants += _one_classifier(folds, pairs, test, labels, inputs)
    prior = _family_prior(pairs, test, labels, len(folds))
    entrants += _controls(spec, test, prior, entrants[0])
    # Most slices share a jury: what an entrant earns from one is computed once.
    entrants = [replace(e, credits=cache(e.credits), unseen=e.unseen and cache(e.unseen)) for e in entrants]

    clusters = pd.factorize(test["reference_id"], sort=True)[0]
    draws = statistics.resample_counts(
        int(clusters.max()) + 1,
        int(options.get("resamples", 10_000)),
        generator(spec["seed"], "preference", "bootstrap"),
    )
    slices = {group: _slices(test, jury, prior, wanted) for group, jury in juries.items()}
    return _Contest(test, juries, slices, entrants, clusters, draws)


def _jury(
    group: str,
    folds: list[dict[str, list[str]]],
    test: pd.DataFrame,
    labels: pd.DataFrame,
    inputs: dict[str, Any],
) -> Jury:
    votes, voters = (
        read_table(inputs["votes"], "votes"),
        read_table(inputs["voters"], "voters").set_index("voter"),
    )
    members = [list(fold[group]) for fold in folds]
    unknown = sorted({name for fold in members for name in fold} - set(voters.index))
    if unknown:
        raise ArtifactError(
            f"expected votes of every voter of the folds, none of {unknown}; cast the votes again"
        )
    wide = votes.pivot(index="pair_id", columns="voter", values="vote").reindex(test["pair_id"])
    columns = []
    for fold in range(len(folds)):
        chosen = labels[(labels["fold"] == fold) & (labels["group"] == group)].set_index("pair_id")["label"]
        columns.append(test["pair_id"].map(chosen).to_numpy(float))
    return Jury(
        np.stack(columns, axis=1),
        [wide.reindex(columns=names).to_numpy(float) for names in members],
        [voters.loc[names, "task"].to_numpy(str) for names in members],
        [voters.loc[names, "family"].to_numpy(str) for names in members],
    )


def _earns(preferred: np.ndarray) -> Callable[[Jury], np.ndarray]:
    """Credit of fixed preferences, (pairs,) or (pairs, folds)."""
    preferred = preferred[:, None] if preferred.ndim == 1 else preferred
    return lambda jury: credit(preferred, jury.label)


def _of_encoder(
    spec: dict[str, Any],
    pairs: pd.DataFrame,
    test: pd.DataFrame,
    labels: pd.DataFrame,
    inputs: dict[str, Any],
    weights: dict[str, Any],
) -> list[Entrant]:
    """Everything that is an aggregation of stored similarities, ours first. Refits happen here: they take
    seconds.
    """
    similarities = read_table(inputs["similarities"], "similarities")
    layers, deltas = fit.layer_names(similarities), fit.differences(pairs, similarities)
    if layers != weights["layers"]:
        raise ArtifactError(
            f"weights are for {weights['layers']}, the similarities hold {layers}; run the fit again"
        )
    deltas = np.round(deltas, 12)  # two ways to one sum must not break a tie
    here, n_folds = test.index.to_numpy(), len(weights["folds"])
    train = [fit.labelled(pairs, labels, role="pcmp_train", fold=f, group="seen") for f in range(n_folds)]
    validation = [fit.labelled(pairs, labels, role="pcmp_val", fold=f, group="seen") for f in range(n_folds)]

    def by_fold(weigh: Callable[[int], np.ndarray], table: np.ndarray = deltas) -> np.ndarray:
        return preference(np.stack([table[here] @ weigh(f) for f in range(n_folds)], axis=1))

    def aggregated(metric: str, kind: str, table: np.ndarray) -> list[Entrant]:
        """Other columns than ours, fitted anew and with uniform weights."""

        def refitted(fold: int) -> np.ndarray:
            data = [(table[part[fold].index], part[fold].to_numpy()) for part in (train, validation)]
            return fit.choose_penalty(data[0], data[1], weights["penalties"])[0].weights

        size = table.shape[1]
        return [
            Entrant(metric, "fitted", kind, _earns(by_fold(refitted, table))),
            Entrant(metric, "uniform", kind, _earns(by_fold(lambda f: np.full(size, 1 / size), table))),
        ]

    def shuffled(fold: int) -> np.ndarray:
        order = generator(spec["seed"], "preference", "shuffled_labels", fold).permutation(len(train[fold]))
        rows, targets = train[fold].index, train[fold].to_numpy()[order]
        return fit.fit_weights(deltas[rows], targets, weights["folds"][fold]["penalty"]).weights

    best = [_best_alone(pairs, validation[f], deltas[:, :-1]) for f in range(n_folds)]
    unit = np.eye(len(layers))
    fitted = by_fold(lambda f: np.array(weights["folds"][f]["weights"]))
    uniform = by_fold(lambda f: np.full(len(layers), 1 / len(layers)))
    names = ", ".join(dict.fromkeys(layers[layer] for layer in best))
    result = [
        Entrant(OURS, "fitted", "ours", _earns(fitted), _earns(_unseen(pairs, test, deltas, train, weights))),
        Entrant("ml_clipsim_uniform", "uniform", "ours", _earns(uniform)),
        Entrant("clip_global", "global", "ours", _earns(by_fold(lambda f: unit[-1]))),
        Entrant("best_single_layer", names, "ours", _earns(by_fold(lambda f: unit[best[f]]))),
        Entrant("shuffled_labels", "train", "control", _earns(by_fold(shuffled))),
    ]
    if spec.get("encoder", {}).get("entry", {}).get("source") == "lit":
        # Locked-image tuning leaves the supervised trunk as it was: all columns but the last are its own,
        # and only the global embedding has seen a caption.
        result += aggregated("supervised_layers", "ours", deltas[:, :-1])
    if "untrained" in inputs:
        other = fit.differences(pairs, read_table(inputs["untrained"], "similarities"))
        result += aggregated("untrained", "control", other)
    return result


def _best_alone(pairs: pd.DataFrame, labels: pd.Series, deltas: np.ndarray) -> int:
    """The column of ``deltas`` that alone sides best with the seen voters on pcmp_val, by the primary
    average.
    """
    chosen = pairs.loc[labels.index]
    primary = ~chosen["photometric"].to_numpy()
    if not primary.any():
        primary[:] = True
    credits = credit(preference(deltas[labels.index]), labels.to_numpy()[:, None])[primary]
    data = statistics.reduce(credits, np.zeros(len(credits), int), family_pairs(chosen)[0][primary])
    return int(np.argmax(data.estimate))


def _unseen(
    pairs: pd.DataFrame,
    test: pd.DataFrame,
    deltas: np.ndarray,
    train: list[pd.Series],
    weights: dict[str, Any],
) -> np.ndarray:
    """Preferences of fits that left a family out, on the pairs of that family; mean over a pair's two
    families.

    Credit is linear in the preference, so averaging preferences averages credits.
    """
    preferred = np.full((len(test), len(train)), np.nan)
    for fold, labels in enumerate(train):
        trained = pairs.loc[labels.index]
        sides: dict[str, np.ndarray] = {}
        for family in sorted(set(test["family_a"]) | set(test["family_b"])):
            kept = ((trained["family_a"] != family) & (trained["family_b"] != family)).to_numpy()
            if kept.any():
                penalty = weights["folds"][fold]["penalty"]
                refit = fit.fit_weights(deltas[labels.index[kept]], labels.to_numpy()[kept], penalty)
                sides[family] = preference(deltas[test.index] @ refit.weights)
        missing = np.full(len(test), np.nan)
        both = [
            np.select([test[side] == name for name in sides], list(sides.values()), missing)
            if sides
            else missing
            for side in ("family_a", "family_b")
        ]
        preferred[:, fold] = (both[0] + both[1]) / 2
    return preferred


def of_scores(test: pd.DataFrame, paths: Path | Sequence[Path]) -> list[Entrant]:
    """Metrics whose scores were stored, in their own direction, with ``higher_is_better`` beside them."""
    files = [paths] if isinstance(paths, (str, Path)) else list(paths)
    scores = pd.concat([read_table(path, "scores") for path in files], ignore_index=True)
    if "higher_is_better" not in scores:
        raise ArtifactError(
            "scores lack the column higher_is_better: the direction of a metric cannot be guessed"
        )
    entrants = []
    for (metric, variant), part in scores[scores.get("class") != "ours"].groupby(
        ["metric", "variant"], sort=False
    ):
        by_image = part.set_index("image_id")["score"]
        sign = 1 if part["higher_is_better"].iloc[0] else -1
        a, b = (test[side].map(by_image).to_numpy(float) for side in ("image_a", "image_b"))
        with np.errstate(invalid="ignore"):
            difference = np.where(a == b, np.where(np.isnan(a), np.nan, 0.0), sign * (a - b))
        kind = str(part["class"].iloc[0]) if "class" in part else "fidelity"
        entrants.append(Entrant(str(metric), str(variant), kind, _earns(preference(difference))))
    return entrants


def _one_classifier(
    folds: list[dict[str, list[str]]],
    pairs: pd.DataFrame,
    test: pd.DataFrame,
    labels: pd.DataFrame,
    inputs: dict[str, Any],
) -> list[Entrant]:
    """Why not just one classifier: of each fold's training voters the one whose own divergence from its
    prediction on the reference sides best with pcmp_val.

    Temperature-calibrated KL as the predictions hold it, smaller is better, and no tie but equality. Nothing
    where the training voters of some fold have no classifier.
    """
    stored = read_table(inputs["predictions"], "predictions", columns=["image_id", "voter", "kl"])
    divergence = stored.dropna().pivot(index="image_id", columns="voter", values="kl")
    names, columns = [], []
    for number, fold in enumerate(folds):
        classifiers = [voter for voter in fold["seen"] if voter in divergence]
        if not classifiers:
            return []
        a, b = (divergence.reindex(pairs[side])[classifiers].to_numpy() for side in ("image_a", "image_b"))
        validation = fit.labelled(pairs, labels, role="pcmp_val", fold=number, group="seen")
        best = _best_alone(pairs, validation, b - a)
        names.append(classifiers[best])
        columns.append((b - a)[test.index, best])
    preferred = preference(np.stack(columns, axis=1))
    return [Entrant("one_classifier_kl", ", ".join(dict.fromkeys(names)), "machine", _earns(preferred))]


def family_pairs(pairs: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Number of each pair's unordered pair of families, and whether A's name is the first of the two."""
    a, b = pairs["family_a"].to_numpy(object), pairs["family_b"].to_numpy(object)
    first = a <= b
    return pd.factorize(np.where(first, a + "|" + b, b + "|" + a), sort=True)[0], first


def _family_prior(pairs: pd.DataFrame, test: pd.DataFrame, labels: pd.DataFrame, n_folds: int) -> np.ndarray:
    """The rule without pixels, (pairs, folds): the family that won a family pair on pcmp_train.

    Learnt, as our fit is, from the seen voters' labels of the same fold, whoever judges: nothing of the test
    partition or of held-out voters enters. A family pair without training labels is a tie.
    """
    code, first = family_pairs(pairs)
    columns = []
    for fold in range(n_folds):
        train = fit.labelled(pairs, labels, role="pcmp_train", fold=fold, group="seen")
        oriented = np.where(first[train.index], train, 1 - train)  # label that the first family wins
        total = np.bincount(code[train.index], weights=oriented - 0.5, minlength=code.max() + 1)
        wins = preference(np.round(total, 9))[code[test.index]]
        columns.append(np.where(first[test.index], wins, 1 - wins))
    return np.stack(columns, axis=1)


def _controls(spec: dict[str, Any], test: pd.DataFrame, prior: np.ndarray, ours: Entrant) -> list[Entrant]:
    draw = {
        image: derive_seed(spec["seed"], "preference", "random", image) / 2**63
        for image in sorted(set(test["image_a"]) | set(test["image_b"]))
    }
    coin = preference((test["image_a"].map(draw) - test["image_b"].map(draw)).to_numpy(float))

    def against_shuffled(jury: Jury) -> np.ndarray:
        mixed = jury.label.copy()
        for fold in range(mixed.shape[1]):
            rows = np.flatnonzero(np.isfinite(mixed[:, fold]))
            rng = generator(spec["seed"], "preference", "shuffled_test", fold)
            mixed[rows, fold] = mixed[rng.permutation(rows), fold]
        return ours.credits(Jury(mixed, jury.votes, jury.tasks, jury.families))

    def inverse(earn: Callable[[Jury], np.ndarray]) -> Callable[[Jury], np.ndarray]:
        return lambda jury: 1 - earn(jury)

    tie = np.full(len(test), 0.5)
    return [
        Entrant("random", "uniform", "control", _earns(coin)),
        Entrant("inverted", OURS, "control", inverse(ours.credits), inverse(ours.unseen or ours.credits)),
        Entrant("shuffled_labels", "test", "control", against_shuffled),
        # Without labels of a family the rule has nothing to say about it.
        Entrant("family_prior", "seen voters", "prior", _earns(prior), _earns(tie)),
        Entrant("ceiling", "attainable", "ceiling", lambda jury: consensus.attainable(jury.label)),
        Entrant("ceiling", "coin_flip", "ceiling", lambda jury: jury.per_fold(consensus.coin_flip)),
        Entrant(
            "ceiling", "leave_one_voter_out", "ceiling", lambda j: j.per_fold(consensus.leave_one_voter_out)
        ),
    ]


def _slices(test: pd.DataFrame, jury: Jury, prior: np.ndarray, wanted: Sequence[str]) -> list[Slice]:
    labelled = np.isfinite(jury.label)
    photometric = test["photometric"].to_numpy(bool)[:, None]
    everything = np.ones_like(photometric)
    strata = family_pairs(test)[0]
    with np.errstate(invalid="ignore"):
        against = (jury.label - 0.5) * (prior - 0.5) < 0
    unanimous = np.isin(jury.label, (0.0, 1.0))

    def part(name: str, rows: np.ndarray, condition: np.ndarray = everything, **more: Any) -> Slice:
        unlabelled = int((rows[:, 0] & ~labelled.any(axis=1)).sum())
        return Slice(
            name, labelled & rows & condition, more.pop("jury", jury), n_unlabelled=unlabelled, **more
        )

    named = {
        "macro": part("macro", ~photometric, strata=strata),
        "all": part("all", everything),
        "no_photometric": part("no_photometric", ~photometric),
        "photometric": part("photometric", photometric),
        "exceptions": part("exceptions", everything, against),
        "unanimous": part("unanimous", everything, unanimous),
    }
    result = [named[name] for name in named if name in wanted]
    result.append(part("unseen_family", ~photometric, strata=strata, unseen=True))
    for target in sorted(test["target_db"].unique()):
        result.append(part(f"psnr={target:g}", (test["target_db"] == target).to_numpy()[:, None]))
    for task in sorted({str(task) for tasks in jury.tasks for task in tasks}):
        of_task = jury.among(task=task)
        result.append(part(f"task={task}", everything, np.isfinite(of_task.label), jury=of_task))
    return result


def _rows(
    group: str, part: Slice, entrants: Sequence[Entrant], clusters: np.ndarray, draws: np.ndarray
) -> list[dict[str, Any]]:
    values = part.values(entrants)
    inside = part.mask.any(axis=1)
    data = statistics.reduce(values, clusters, part.strata, draws.shape[1])
    by_t, main = statistics.interval(data, None), statistics.interval(data, draws)
    return [
        {
            "benchmark": "pcmp",
            "voters": group,
            "slice": part.name,
            "metric": entrant.metric,
            "variant": entrant.variant,
            "estimate": data.estimate[m],
            "ci_low": main[m].low,
            "ci_high": main[m].high,
            "n_pairs": data.n[m],
            "n_references": data.n_clusters[m],
            "class": entrant.kind,
            "interval": main[m].method,  # t: fewer than 30 references
            "t_low": by_t[m].low,
            "t_high": by_t[m].high,
            "n_unlabelled": part.n_unlabelled,  # pairs of the slice with too few votes
            "n_unscored": int(inside.sum() - data.n[m]),  # pairs on which the metric is not a number
            "note": "" if data.n[m] else "no pair of this slice",
        }
        for m, entrant in enumerate(entrants)
    ]


def _compare(
    group: str, primary: Slice, entrants: Sequence[Entrant], clusters: np.ndarray, draws: np.ndarray
) -> list[dict[str, Any]]:
    """The first entrant against each other, on the pairs that both score; Holm over all of them."""
    first, others = entrants[0], [entrant for entrant in entrants[1:] if entrant.kind in _COMPARED]

    def against(part: Slice, draws: np.ndarray | None = None) -> list[statistics.Comparison]:
        values = part.values([first, *others])
        return statistics.compare(values[:, 0], values[:, 1:], clusters, part.strata, draws)

    # Inference is conditional on who votes: the same difference without each voter family in turn.
    families = sorted({str(name) for of_fold in primary.jury.families for name in of_fold})
    without = {}
    for family in families:
        jury = primary.jury.among(without_family=family)
        left = Slice(primary.name, primary.mask & np.isfinite(jury.label), jury, primary.strata)
        if left.mask.any():
            without[family] = [found.difference for found in against(left)]
    result = []
    for m, (entrant, found) in enumerate(zip(others, against(primary, draws), strict=True)):
        left_out = {family: _number(differences[m]) for family, differences in without.items()}
        finite = [value for value in left_out.values() if value is not None]
        result.append(
            {
                "voters": group,
                "metric": entrant.metric,
                "variant": entrant.variant,
                "class": entrant.kind,
                "difference": _number(found.difference),
                "ci_low": _number(found.interval.low),
                "ci_high": _number(found.interval.high),
                "interval": found.interval.method,
                "p": _number(found.p),
                "p_holm": _number(found.p_holm),
                "holm_ci_low": _number(found.holm_low),
                "holm_ci_high": _number(found.holm_high),
                "effect_size": _number(found.effect_size),
                "references_won": _number(found.won),
                "n_pairs": found.n,
                "n_excluded": found.n_excluded,
                "n_references": found.n_clusters,
                "without_voter_family": left_out,
                "range_low": min(finite) if finite else None,
                "range_high": max(finite) if finite else None,
            }
        )
    return result


def _not_run(frame: pd.DataFrame, metrics: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """Rows that say what is missing and why."""
    wanted = {name: (entry.get("class", "ours"), entry.get("needs")) for name, entry in metrics.items()}
    rows = [
        {
            "benchmark": "pcmp",
            "voters": "held_out",
            "slice": PRIMARY_SLICE,
            "metric": metric,
            "variant": "",
            "estimate": math.nan,
            "ci_low": math.nan,
            "ci_high": math.nan,
            "n_pairs": 0,
            "n_references": 0,
            "class": kind,
            "interval": "none",
            "t_low": math.nan,
            "t_high": math.nan,
            "n_unlabelled": 0,
            "n_unscored": 0,
            "note": f"not run: needs {needs or 'its scores'}",
        }
        for metric, (kind, needs) in (wanted | _NOT_EVERYWHERE).items()
        if metric not in set(frame["metric"])
    ]
    return pd.DataFrame(rows, columns=frame.columns)


def _number(value: float) -> float | None:
    """JSON has no NaN: what could not be computed is null."""
    return float(value) if math.isfinite(value) else None
