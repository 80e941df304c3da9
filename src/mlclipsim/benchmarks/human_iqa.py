"""Human image quality: how well each metric ranks images as people rated them.

Spearman's rank correlation (SRCC) is primary; Kendall's tau-b (KRCC); Pearson's correlation (PLCC) and RMSE
after a logistic from scores to ratings that must not fall. Metric and rating are first turned so that larger
is better, by the direction that each states, and never again: a negative correlation is a disagreement.
Images of one reference share its content, so intervals resample references, and each resample is ranked and
fitted anew. Pairs that people compared give 2AFC instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import least_squares
from scipy.special import expit

from mlclipsim import fit
from mlclipsim.artifacts import ArtifactError, read_json, read_table, write_json, write_table
from mlclipsim.benchmarks import statistics
from mlclipsim.benchmarks.consensus import credit, preference
from mlclipsim.benchmarks.utility import machine_utility
from mlclipsim.randomness import generator

__all__ = [
    "MIN_IMAGES",
    "MIN_REFERENCES",
    "OURS",
    "Interval",
    "Logistic",
    "Panel",
    "correlations",
    "evaluate",
    "fit_logistic",
]

OURS = "ml_clipsim"
MIN_IMAGES = 100  # below this a logistic of five parameters fits noise: PLCC and RMSE are not reported
MIN_REFERENCES = statistics.MIN_CLUSTERS  # below this: t interval from the jackknife over references
_COLUMNS = ("srcc", "krcc", "plcc", "rmse")
_PER_DATASET = ("ratings", "pairs", "baselines", "similarities", "untrained", "predictions")
_CORRELATIONS = slice(0, 3)  # of them, those in [-1, 1]
_EVALUATIONS = 300  # of the logistic, at most
_FLAT = 1e-3  # a curve that rises by less, in standard deviations of the ratings, says nothing


@dataclass(frozen=True)
class Entrant:
    """A metric's scores on one data set, by image, turned so that larger is better; NaN where it has none."""

    metric: str
    variant: str
    kind: str  # ours | fidelity | perceptual | control
    scores: pd.Series


@dataclass(frozen=True)
class Logistic:
    """``f(x) = b1 (expit(b2 (z - b3)) - 1/2) + b4 z + b5`` with ``z`` the standardised score, never falling.

    The five parameters of Sheikh, Sabir and Bovik (IEEE TIP 15, 2006) with ``b1, b2, b4 >= 0``, in units of
    the rating's standard deviation; with ``b4 = 0`` the four of VQEG (2000).
    """

    parameters: np.ndarray  # (5,)
    n_parameters: int  # 5, or 4 where five did not converge
    converged: bool

    def __call__(self, score: np.ndarray) -> np.ndarray:
        """Standardised scores to standardised ratings."""
        b1, b2, b3, b4, b5 = self.parameters
        return b1 * (expit(b2 * (score - b3)) - 0.5) + b4 * score + b5

    def jacobian(self, score: np.ndarray) -> np.ndarray:
        """Slopes in the parameters, ``(n, 5)``."""
        b1, b2, b3, _, _ = self.parameters
        rise = expit(b2 * (score - b3))
        slope = b1 * rise * (1 - rise)
        return np.stack([rise - 0.5, slope * (score - b3), -slope * b2, score, np.ones_like(score)], axis=1)


# Wide enough for any data, narrow enough that a step or a straight line sends no parameter to infinity.
_BOUNDS = np.array([(0, 20), (0, 10), (-5, 5), (0, 10), (-10, 10)], float).T
_STARTS = ([2.0, 1.5, 0.0, 0.1, 0.0], [3.0, 4.0, 0.0, 0.1, 0.0])  # a gentle and a steep rise over the middle


def fit_logistic(score: np.ndarray, rating: np.ndarray, start: Logistic | None = None) -> Logistic:
    """Least squares of standardised ``rating`` on standardised ``score``: five parameters, else four.

    Args:
        score, rating: ``(n,)``, mean 0, standard deviation 1, larger is better.
        start: begin here only: a fit on nearly the same data.
    """
    starts = _STARTS if start is None else (start.parameters,)
    five = _solve(score, rating, starts, 5)
    return five if five.converged else _solve(score, rating, starts, 4)


def _solve(
    score: np.ndarray, rating: np.ndarray, starts: Sequence[Sequence[float] | np.ndarray], n_parameters: int
) -> Logistic:
    free = np.array([True, True, True, n_parameters == 5, True])
    low, high = _BOUNDS[:, free]

    def curve(values: np.ndarray, converged: bool = False) -> Logistic:
        parameters = np.zeros(5)
        parameters[free] = values
        return Logistic(parameters, n_parameters, converged)

    runs = [
        least_squares(
            lambda values: curve(values)(score) - rating,
            np.clip(np.asarray(start)[free], low, high),
            jac=lambda values: curve(values).jacobian(score)[:, free],
            bounds=(low, high),
            method="dogbox",  # ends on the bounds themselves, where the best rising curve is often found
            max_nfev=_EVALUATIONS,
        )
        for start in starts
    ]
    best = min(runs, key=lambda run: run.cost)
    return curve(best.x, bool(best.success))


def correlations(
    score: np.ndarray, rating: np.ndarray, start: Logistic | None = None
) -> tuple[np.ndarray, Logistic | None]:
    """SRCC, KRCC, PLCC and RMSE ``(4,)`` of finite scores and ratings, both larger is better; the logistic.

    RMSE is in the rating's own units. NaN: PLCC and RMSE with fewer than :data:`MIN_IMAGES`, or where no fit
    converged or the only one that does not fall is flat; all of them where one side is constant.
    """
    values = np.full(4, np.nan)
    if len(score) < 2 or np.ptp(score) == 0 or np.ptp(rating) == 0:
        return values, None
    values[0] = stats.spearmanr(score, rating).statistic
    values[1] = stats.kendalltau(score, rating).statistic
    if len(score) < MIN_IMAGES:
        return values, None
    y = stats.zscore(rating)
    logistic = fit_logistic(stats.zscore(score), y, start)
    if logistic.converged:
        fitted = logistic(stats.zscore(score))
        if np.ptp(fitted) > _FLAT:
            values[2] = stats.pearsonr(fitted, y).statistic
        values[3] = np.sqrt(np.mean((fitted - y) ** 2)) * rating.std()
    return values, logistic


def evaluate(spec: dict[str, Any], inputs: dict[str, Any], outputs: dict[str, Path]) -> None:
    """Steps ``human_iqa`` and ``machine_iqa``: every metric against the people, or machines, who judged
    images, per data set -> ``correlations``, ``comparisons``.

    Inputs, each a list with a file per data set in the order of ``spec["datasets"]``, none where
    that is empty: ``ratings, pairs, baselines, similarities, untrained, predictions``; and ``weights`` of the
    encoder, the ``voters``, and their ``preference`` (.json), which knows the best single layer.

    ``spec``: ``seed``; ``datasets``; ``votes`` with ``divergence``; ``benchmark`` with
    ``resamples``; ``metrics``, those asked for; ``known``, all data sets of the catalog with what each needs,
    so that those that did not run are named.
    """
    resamples = int(spec["benchmark"]["resamples"])
    rows: list[dict[str, Any]] = []
    compared: list[dict[str, Any]] = []
    for number, name in enumerate(spec["datasets"]):
        files = {key: inputs[key][number] for key in _PER_DATASET}
        entrants = [*_of_encoder(files, inputs), *_of_scores(files["baselines"])]
        entrants.append(_of_machines(files["predictions"], inputs["voters"], spec["votes"]["divergence"]))
        rng = generator(spec["seed"], "human_iqa", name)
        pairs = read_table(files["pairs"], "human_comparisons")
        ratings = read_table(files["ratings"], "ratings").sort_values("image_id", ignore_index=True)
        if len(pairs):
            rows += _choices(name, pairs, entrants, resamples, rng)
        if len(ratings):
            panel = Panel(name, ratings, resamples, rng)
            rows += panel.rows(entrants)
            compared += panel.against_ours(entrants)
        ran = {entrant.metric for entrant in entrants}
        rows += [
            _absent(
                name,
                metric,
                entry.get("class", "fidelity"),
                f"not run: needs {entry.get('needs', 'its scores')}",
            )
            for metric, entry in spec["metrics"].items()
            if metric not in ran
        ]
    for name, needs in spec["known"].items():
        if name not in spec["datasets"]:
            rows.append(_absent(name, OURS, "ours", f"not run: needs {needs}"))
    write_table(outputs["correlations"], _frame(rows), "correlations")
    write_json(outputs["comparisons"], {"ours": OURS, "comparisons": compared})


def _of_encoder(files: dict[str, Path], inputs: dict[str, Any]) -> list[Entrant]:
    """Every aggregation of the stored similarities, ours first, with the mean weights of the folds."""
    table = read_table(files["similarities"], "similarities").set_index("image_id")
    weights, layers = read_json(inputs["weights"]), fit.layer_names(table)
    if layers != weights["layers"]:
        raise ArtifactError(
            f"weights are for {weights['layers']}, the similarities hold {layers}; run the fit again"
        )
    values = table[layers]
    fitted = np.mean([fold["weights"] for fold in weights["folds"]], axis=0)
    best = _best_layers(inputs["preference"])
    other = read_table(files["untrained"], "similarities").set_index("image_id")
    return [
        Entrant(OURS, "fitted", "ours", values @ fitted),
        Entrant("ml_clipsim_uniform", "uniform", "ours", values.mean(axis=1)),
        Entrant("clip_global", "global", "ours", values[layers[-1]]),
        Entrant("best_single_layer", ", ".join(best), "ours", values[best].mean(axis=1)),
        Entrant("untrained", "uniform", "control", other[fit.layer_names(other)].mean(axis=1)),
    ]


def _best_layers(path: Path) -> list[str]:
    """The layers that alone sided best with the seen machines on pcmp_val, one per fold."""
    rows = read_json(path)["comparisons"]
    variant = next((row["variant"] for row in rows if row["metric"] == "best_single_layer"), None)
    if variant is None:
        raise ArtifactError(f"{path}: expected a row best_single_layer, found none; run preference again")
    return variant.split(", ")


def _of_scores(path: Path) -> list[Entrant]:
    scores = read_table(path, "scores")
    return [
        Entrant(
            str(metric),
            str(variant),
            str(part["class"].iloc[0]),
            part.set_index("image_id")["score"] * (1 if part["higher_is_better"].iloc[0] else -1),
        )
        for (metric, variant), part in scores.groupby(["metric", "variant"], sort=False)
    ]


def _of_machines(predictions: Path, voters: Path, divergence: str) -> Entrant:
    """What the voters themselves make of the images: a metric that knew machines perfectly would rank so."""
    utility = machine_utility(
        read_table(predictions, "predictions"), read_table(voters, "voters"), divergence
    )
    return Entrant("machine_utility", "all voters", "control", utility)


@dataclass(frozen=True)
class Interval:
    """Ends per figure; ``method`` is ``t`` (few references), ``bootstrap`` or ``none``."""

    low: np.ndarray
    high: np.ndarray
    method: str
    failed: np.ndarray  # resamples without a figure: left out of the bootstrap; the jackknife needs all


_NO_INTERVAL = Interval(np.full(4, np.nan), np.full(4, np.nan), "none", np.zeros(4, int))


class Panel:
    """What people said of a data set's images, turned so that larger is better, and how it is resampled."""

    def __init__(self, name: str, ratings: pd.DataFrame, resamples: int, rng: np.random.Generator) -> None:
        self.name = name
        self.images = ratings["image_id"]
        self.distortions = ratings["distortion"].to_numpy(str)
        self.sign = np.where(ratings["higher_is_better"], 1, -1)
        self.rating = ratings["rating"].to_numpy(float) * self.sign
        self.references = pd.factorize(ratings["reference_id"], sort=True)[0]
        n = int(self.references.max()) + 1
        self.draws = statistics.resample_counts(n, resamples, rng) if n >= MIN_REFERENCES else None

    def rows(self, entrants: list[Entrant]) -> Iterator[dict[str, Any]]:
        """A row per entrant, and one per type of distortion, ``<data set>/<type>``, without interval."""
        types = sorted(set(self.distortions))
        for entrant in entrants:
            score = entrant.scores.reindex(self.images).to_numpy(float)
            yield self._row(self.name, entrant, score, np.ones(len(score), bool), interval=True)
            for distortion in types if len(types) > 1 else ():
                inside = self.distortions == distortion
                yield self._row(f"{self.name}/{distortion}", entrant, score, inside, interval=False)

    def _row(
        self, name: str, entrant: Entrant, score: np.ndarray, inside: np.ndarray, *, interval: bool
    ) -> dict[str, Any]:
        used = np.flatnonzero(inside & np.isfinite(score))
        values, logistic = correlations(score[used], self.rating[used])
        found = _NO_INTERVAL
        if interval:

            def again(rows: np.ndarray) -> np.ndarray:
                return correlations(score[rows], self.rating[rows], logistic)[0]

            found = self.interval(again, used, values)
        row = dict(zip(_COLUMNS, values, strict=True))
        for column, low, high in zip(_COLUMNS, found.low, found.high, strict=True):
            row |= {f"{column}_ci_low": low, f"{column}_ci_high": high}
        return {
            "dataset": name,
            "metric": entrant.metric,
            "variant": entrant.variant,
            "class": entrant.kind,
            **row,
            "n": len(used),
            "n_references": len(np.unique(self.references[used])),
            "n_excluded": int(inside.sum()) - len(used),
            "interval": found.method,
            "logistic_parameters": logistic.n_parameters if logistic and logistic.converged else 0,
            "note": _note(len(used), logistic, values, found),
        }

    def against_ours(self, entrants: list[Entrant]) -> Iterator[dict[str, Any]]:
        """SRCC of ours minus that of each other, on the images that both score."""
        ours = entrants[0].scores.reindex(self.images).to_numpy(float)
        for entrant in entrants[1:]:
            other = entrant.scores.reindex(self.images).to_numpy(float)
            used = np.flatnonzero(np.isfinite(ours) & np.isfinite(other))

            def difference(rows: np.ndarray, other: np.ndarray = other) -> np.ndarray:
                both = [stats.spearmanr(side[rows], self.rating[rows]).statistic for side in (ours, other)]
                return np.array([both[0] - both[1]])

            estimate = difference(used)
            found = self.interval(difference, used, estimate)
            yield {
                "dataset": self.name,
                "metric": entrant.metric,
                "variant": entrant.variant,
                "class": entrant.kind,
                "srcc": _number(stats.spearmanr(other[used], self.rating[used]).statistic),
                "difference": _number(estimate[0]),
                "ci_low": _number(found.low[0]),
                "ci_high": _number(found.high[0]),
                "interval": found.method,
                "n": len(used),
                "n_references": len(np.unique(self.references[used])),
            }

    def interval(
        self, statistic: Callable[[np.ndarray], np.ndarray], used: np.ndarray, estimate: np.ndarray
    ) -> Interval:
        """95 % interval of a statistic of row numbers ``used``, over references.

        Percentile bootstrap, or with few references t around the estimate with the jackknife's standard error
        (Efron and Stein 1981), correlations on Fisher's scale so that it stays within [-1, 1].
        """
        members = {c: used[self.references[used] == c] for c in np.unique(self.references[used])}
        n = len(members)
        if n < 2:
            return _NO_INTERVAL
        if self.draws is not None and n >= MIN_REFERENCES:
            drawn = np.array(
                [
                    statistic(np.concatenate([np.tile(rows, times[c]) for c, rows in members.items()]))
                    for times in self.draws
                ]
            )
            kept = [column[np.isfinite(column)] for column in drawn.T]
            ends = [np.quantile(column, [0.025, 0.975]) if len(column) else [np.nan] * 2 for column in kept]
            failed = len(drawn) - np.array([len(column) for column in kept])
            low, high = np.array(ends).T
            return Interval(low, high, "bootstrap", failed)
        without = np.array([statistic(used[self.references[used] != c]) for c in members])
        centre = _fisher(estimate)
        error = np.sqrt((n - 1) / n * ((_fisher(without) - centre) ** 2).sum(axis=0))
        margin = stats.t.ppf(0.975, n - 1) * error
        low, high = (_fisher(centre + side * margin, back=True) for side in (-1, 1))
        return Interval(low, high, "t", np.isnan(without).sum(axis=0))


def _fisher(values: np.ndarray, *, back: bool = False) -> np.ndarray:
    """SRCC, KRCC and PLCC, where all four figures are given, to Fisher's scale, or back from it."""
    if values.shape[-1] != len(_COLUMNS):
        return values
    result = values.copy()
    part = result[..., _CORRELATIONS]
    result[..., _CORRELATIONS] = np.tanh(part) if back else np.arctanh(np.clip(part, -1 + 1e-12, 1 - 1e-12))
    return result


def _note(n: int, logistic: Logistic | None, values: np.ndarray, interval: Interval = _NO_INTERVAL) -> str:
    if math.isnan(values[0]):
        return "no two different scores"
    if n < MIN_IMAGES:
        return f"no PLCC and RMSE below {MIN_IMAGES} images"
    if logistic is None or not logistic.converged:
        return "the logistic did not converge"
    if math.isnan(values[2]):
        return "no logistic that rises fits"
    if failed := int(interval.failed[2]):
        return f"no logistic in {failed} resamples"
    return ""


def _choices(
    name: str, pairs: pd.DataFrame, entrants: list[Entrant], resamples: int, rng: np.random.Generator
) -> Iterator[dict[str, Any]]:
    """2AFC against the people's shares, over all pairs and per set of them, clustered by reference."""
    label = pairs["label"].to_numpy(float)[:, None]
    columns = []
    for entrant in entrants:
        a, b = (pairs[side].map(entrant.scores).to_numpy(float) for side in ("image_a", "image_b"))
        columns.append(credit(preference(a - b)[:, None], label)[:, 0])
    credits = np.stack(columns, axis=1)
    clusters = pd.factorize(pairs["reference_id"], sort=True)[0]
    sets = pairs["distortion"].to_numpy(str)
    parts = [(name, np.ones(len(pairs), bool))]
    parts += [(f"{name}/{part}", sets == part) for part in sorted(set(sets))] if len(set(sets)) > 1 else []
    draws = statistics.resample_counts(int(clusters.max()) + 1, resamples, rng)
    for part, inside in parts:
        data = statistics.reduce(np.where(inside[:, None], credits, np.nan), clusters, None, draws.shape[1])
        for m, (entrant, found) in enumerate(zip(entrants, statistics.interval(data, draws), strict=True)):
            yield {
                "dataset": part,
                "metric": entrant.metric,
                "variant": entrant.variant,
                "class": entrant.kind,
                "two_afc": data.estimate[m],
                "two_afc_ci_low": found.low,
                "two_afc_ci_high": found.high,
                "n": int(data.n[m]),
                "n_references": int(data.n_clusters[m]),
                "n_excluded": int(inside.sum() - data.n[m]),
                "interval": found.method,
                "note": "",
            }


def _absent(dataset: str, metric: str, kind: str, note: str) -> dict[str, Any]:
    return {
        "dataset": dataset,
        "metric": metric,
        "variant": "",
        "class": kind,
        "interval": "none",
        "note": note,
    }


_FIGURES = [*_COLUMNS, "two_afc"]
_INTERVALS = [f"{figure}_ci_{end}" for figure in _FIGURES for end in ("low", "high")]
_COUNTS = ["n", "n_references", "n_excluded", "logistic_parameters"]
_TIDY = ["dataset", "metric", "variant", "class", *_FIGURES, *_INTERVALS, *_COUNTS, "interval", "note"]


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows with every column; what a row has no figure for is NaN, what it did not count 0."""
    frame = pd.DataFrame(rows, columns=_TIDY).fillna(dict.fromkeys(_COUNTS, 0))
    return frame.astype(dict.fromkeys((*_FIGURES, *_INTERVALS), float) | dict.fromkeys(_COUNTS, "int64"))


def _number(value: float) -> float | None:
    """JSON has no NaN: what could not be computed is null."""
    return float(value) if math.isfinite(value) else None
