"""Learn the layer weights of ML-CLIPSim from PCMP, on the stored table of per-layer similarities.

The metric is ``S(x, y) = sum_l w_l s_l(x, y)`` with ``w = softmax(theta)``; of two images of one reference
the machines prefer A with probability ``sigmoid((S(x, A) - S(x, B)) / tau)``. ``theta`` and ``log tau``
minimise the binary cross-entropy against the soft labels plus ``penalty * |theta - mean(theta)|^2``, the
penalty chosen on ``pcmp_val``. That is the model of Bradley and Terry; other losses are there to be compared
with (:data:`LOSSES`). No forward pass happens here, and none is needed: a fit takes milliseconds,
so ablations and bootstraps are cheap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import log_ndtr, softmax

from mlclipsim.artifacts import ArtifactError, read_json, read_table, write_json, write_table
from mlclipsim.randomness import generator

__all__ = [
    "BOUNDARY_SHARE",
    "LOSSES",
    "Fit",
    "choose_penalty",
    "differences",
    "fit_weights",
    "labelled",
    "layer_names",
    "learn",
    "objective",
    "score",
    "shares",
]

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
BOUNDARY_SHARE = 0.95  # a share above this is reported as a boundary solution: one layer is the metric
# Only bounded in order to end: a layer of weight e^-12 counts for nothing, and labels without signal ask
# for tau = inf.
_THETA_BOUND, _LOG_TAU_BOUNDS = 12.0, (-12.0, 6.0)


@dataclass(frozen=True)
class Fit:
    """A fitted aggregation of ``L`` similarities."""

    theta: np.ndarray  # (L,), centred
    tau: float  # > 0, in units of S
    penalty: float
    loss: float  # mean over what it was fitted to, without the penalty; cross-entropies in nats
    kind: str = "bradley_terry"  # of loss, a key of `LOSSES`

    @property
    def weights(self) -> np.ndarray:
        """``softmax(theta)``, shape (L,), positive, summing to 1."""
        return softmax(self.theta)

    def loss_on(self, deltas: np.ndarray, labels: np.ndarray) -> float:
        """Mean loss on other pairs; arguments as in :func:`fit_weights`."""
        mass = np.full(len(labels), 1 / len(labels))
        return LOSSES[self.kind](deltas @ self.weights / self.tau, labels, mass)[0]


def objective(
    parameters: np.ndarray,
    deltas: np.ndarray,
    labels: np.ndarray,
    mass: np.ndarray,
    penalty: float,
    kind: str = "bradley_terry",
) -> tuple[float, np.ndarray]:
    """Penalised loss and its gradient in ``parameters = (theta_1 ... theta_L, log tau)``.

    ``mass`` holds each pair's weight and sums to 1; ``kind`` is a key of :data:`LOSSES`.
    """
    theta, log_tau = parameters[:-1], parameters[-1]
    weights, tau = softmax(theta), np.exp(log_tau)
    margin = deltas @ weights / tau  # (pairs,)
    loss, residual = LOSSES[kind](margin, labels, mass)
    slope = deltas.T @ residual / tau  # d loss / d weights, (L,)
    centred = theta - theta.mean()
    gradient = np.append(
        weights * (slope - weights @ slope) + 2 * penalty * centred,  # softmax' chain rule
        -(residual @ margin),
    )
    return loss + float(penalty * centred @ centred), gradient


def _bradley_terry(margin: np.ndarray, labels: np.ndarray, mass: np.ndarray) -> tuple[float, np.ndarray]:
    """``-p log sigmoid(m) - (1 - p) log sigmoid(-m) = log(1 + e^m) - p m`` (Bradley and Terry 1952)."""
    shrunk = np.exp(-np.abs(margin))  # one exponential for both, never overflowing
    loss = mass @ (np.maximum(margin, 0) + np.log1p(shrunk) - labels * margin)
    probability = np.where(margin >= 0, 1.0, shrunk) / (1 + shrunk)
    return float(loss), mass * (probability - labels)


def _thurstone(margin: np.ndarray, labels: np.ndarray, mass: np.ndarray) -> tuple[float, np.ndarray]:
    """``-p log Phi(m) - (1 - p) log Phi(-m)``: Gaussian noise, not logistic (Thurstone 1927, case V)."""
    wins, loses = log_ndtr(margin), log_ndtr(-margin)
    log_density = -(margin**2 + np.log(2 * np.pi)) / 2
    slope = (1 - labels) * np.exp(log_density - loses) - labels * np.exp(log_density - wins)
    return float(-mass @ (labels * wins + (1 - labels) * loses)), mass * slope


def _hinge(margin: np.ndarray, labels: np.ndarray, mass: np.ndarray) -> tuple[float, np.ndarray]:
    """``p max(0, 1 - m) + (1 - p) max(0, 1 + m)``, as of a ranking machine (Joachims 2002)."""
    loss = labels * np.maximum(0, 1 - margin) + (1 - labels) * np.maximum(0, 1 + margin)
    return float(mass @ loss), mass * ((1 - labels) * (margin > -1) - labels * (margin < 1))


# Of a margin (pairs,) against soft labels, pairs weighed by a mass: the sum, and its slope in each margin.
LOSSES: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[float, np.ndarray]]] = {
    "bradley_terry": _bradley_terry,
    "thurstone": _thurstone,
    "hinge": _hinge,
}


def fit_weights(
    deltas: np.ndarray,
    labels: np.ndarray,
    penalty: float,
    *,
    counts: np.ndarray | None = None,
    start: Fit | None = None,
    kind: str = "bradley_terry",
) -> Fit:
    """Fit ``theta`` and ``log tau`` by L-BFGS-B.

    Args:
        deltas: ``s(x, A) - s(x, B)`` per pair and layer, shape (pairs, L).
        labels: soft label that A is preferred, in [0, 1], shape (pairs,).
        penalty: L2 penalty on the centred ``theta``, >= 0.
        counts: how often each pair counts (bootstrap), default once each.
        start: begin here; by default from uniform weights and from the convex optimum, and the lower loss
            is kept.
        kind: of loss, a key of :data:`LOSSES`.

    Raises:
        ValueError: shapes disagree, no pair counts, a similarity is not finite, or the loss is unknown.
    """
    mass = _mass(deltas, labels, counts, kind)
    if start is None:
        starts = _starts(deltas, labels, mass, kind)
    else:
        starts = [np.append(start.theta, np.log(start.tau))]
    return _descend(starts, deltas, labels, mass, penalty, kind)


def _mass(deltas: np.ndarray, labels: np.ndarray, counts: np.ndarray | None, kind: str) -> np.ndarray:
    """Each pair's weight, summing to 1, of arguments that make sense."""
    if kind not in LOSSES:
        raise ValueError(f"loss {kind!r} is unknown, expected one of {', '.join(LOSSES)}")
    if deltas.ndim != 2 or labels.shape != deltas.shape[:1]:
        raise ValueError(
            f"expected deltas (pairs, layers) and labels (pairs,), got {deltas.shape} and {labels.shape}"
        )
    counts = np.ones(len(labels)) if counts is None else np.asarray(counts, float)
    if not counts.sum() > 0:
        raise ValueError("expected at least one labelled pair to fit to, got none; check roles and labels")
    if not (np.isfinite(deltas).all() and np.isfinite(labels).all()):
        raise ValueError(
            "expected finite similarities and labels, got NaN or inf; drop those pairs and count them"
        )
    return counts / counts.sum()


def _starts(deltas: np.ndarray, labels: np.ndarray, mass: np.ndarray, kind: str) -> list[np.ndarray]:
    return [_uniform_start(deltas), _convex_start(deltas, labels, mass, kind)]


def _descend(
    starts: list[np.ndarray],
    deltas: np.ndarray,
    labels: np.ndarray,
    mass: np.ndarray,
    penalty: float,
    kind: str,
) -> Fit:
    """The best of the minima that the starts lead to."""
    bounds = [(-_THETA_BOUND, _THETA_BOUND)] * deltas.shape[1] + [_LOG_TAU_BOUNDS]
    runs = [
        minimize(
            objective,
            np.clip(begin, *np.transpose(bounds)),
            args=(deltas, labels, mass, penalty, kind),
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": 500, "ftol": 1e-12, "gtol": 1e-6},
        )
        for begin in starts
    ]
    best = min(runs, key=lambda run: run.fun)
    theta = best.x[:-1] - best.x[:-1].mean()
    loss = objective(best.x, deltas, labels, mass, 0.0, kind)[0]
    return Fit(theta, float(np.exp(best.x[-1])), penalty, loss, kind)


def _uniform_start(deltas: np.ndarray) -> np.ndarray:
    spread = float(deltas.mean(axis=1).std()) or 1.0  # margins of about 1
    return np.append(np.zeros(deltas.shape[1]), np.log(spread))


def _convex_start(deltas: np.ndarray, labels: np.ndarray, mass: np.ndarray, kind: str) -> np.ndarray:
    """Where the unpenalised loss is least.

    In ``v = w / tau >= 0`` the margin is linear and every loss here convex, so this start cannot be caught in
    a local minimum; ``softmax(theta) = v / sum(v)`` and ``tau = 1 / sum(v)`` lead back.
    """
    scale = deltas.std(axis=0)
    scale[scale == 0] = 1.0
    scaled = deltas / scale

    def loss(v: np.ndarray) -> tuple[float, np.ndarray]:
        value, residual = LOSSES[kind](scaled @ v, labels, mass)
        return value, scaled.T @ residual

    size = deltas.shape[1]
    v = (
        minimize(loss, np.full(size, 1 / size), jac=True, method="L-BFGS-B", bounds=[(0, None)] * size).x
        / scale
    )
    if not v.sum() > 0:
        return _uniform_start(deltas)
    # A weight of exactly 0 lies at theta = -inf, where the gradient dies: begin a little inside.
    v = np.maximum(v, 1e-3 * v.sum() / size)
    return np.append(np.log(v) - np.log(v).mean(), -np.log(v.sum()))


def choose_penalty(
    train: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    penalties: Sequence[float],
    kind: str = "bradley_terry",
) -> tuple[Fit, dict[float, float]]:
    """Fit under each penalty; keep the one with the least loss on the validation pairs.

    Args:
        train, validation: ``(deltas, labels)`` as :func:`fit_weights` takes them.
        kind: of loss, a key of :data:`LOSSES`.

    Returns:
        The chosen fit, and the validation loss of every penalty. Of equals the larger penalty wins.
    """
    mass = _mass(*train, None, kind)
    starts = _starts(*train, mass, kind)  # the same for every penalty
    fits = [_descend(starts, *train, mass, penalty, kind) for penalty in sorted(penalties, reverse=True)]
    losses = {fit.penalty: fit.loss_on(*validation) for fit in fits}
    return min(fits, key=lambda fit: losses[fit.penalty]), losses


def shares(weights: np.ndarray, deltas: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """What each layer contributes to decisions: ``w_l sd(delta s_l) / sum``, shape (L,), summing to 1.

    Raw weights do not compare, because similarities of early layers spread far less than those of late ones.
    ``counts`` says how often each pair counts, default once each.
    """
    mean = np.average(deltas, axis=0, weights=counts)
    contribution = weights * np.sqrt(np.average((deltas - mean) ** 2, axis=0, weights=counts))
    total = contribution.sum()
    return contribution / total if total > 0 else np.full(len(weights), 1 / len(weights))


def layer_names(similarities: pd.DataFrame) -> list[str]:
    """The similarity columns in the encoder's order, ``global`` last.

    Raises:
        ArtifactError: the table holds no layer, or no ``global``.
    """
    layers = [name for name in similarities.columns if name.startswith("layer_")]
    if not layers or "global" not in similarities.columns:
        raise ArtifactError(f"expected columns layer_.. and global, got {list(similarities.columns)}")
    return [*layers, "global"]


def differences(pairs: pd.DataFrame, similarities: pd.DataFrame) -> np.ndarray:
    """``s(x, A) - s(x, B)`` per pair and layer, shape (pairs, L) in the order of ``pairs``.

    Raises:
        ArtifactError: an image of a pair has no similarities.
    """
    table = similarities.set_index("image_id")[layer_names(similarities)]
    rows_a, rows_b = table.index.get_indexer(pairs["image_a"]), table.index.get_indexer(pairs["image_b"])
    absent = int((rows_a < 0).sum() + (rows_b < 0).sum())
    if absent:
        raise ArtifactError(
            f"expected similarities of every paired image, {absent} are absent; run that step again"
        )
    values = table.to_numpy(float)
    return values[rows_a] - values[rows_b]


def labelled(pairs: pd.DataFrame, labels: pd.DataFrame, *, role: str, fold: int, group: str) -> pd.Series:
    """Soft labels of the pairs of one role, by one voter group of one fold, indexed by row number in
    ``pairs``.
    """
    chosen = labels[(labels["fold"] == fold) & (labels["group"] == group)].set_index("pair_id")["label"]
    found = pairs.loc[pairs["role"] == role, "pair_id"].map(chosen)
    return found.dropna()


def learn(spec: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path]) -> None:
    """Step ``fit``: pairs, labels, similarities -> weights (.json), one fit per fold of voters.

    ``spec``: ``seed``; ``fit`` with ``penalties`` and ``bootstrap`` (resamples of references behind the
    shares' intervals); ``encoder`` with its ``name``, kept so that weights cannot be used with another
    tower.
    """
    options = spec["fit"]
    pairs = read_table(inputs["pairs"], "pairs").sort_values("pair_id", ignore_index=True)
    labels = read_table(inputs["labels"], "labels")
    similarities = read_table(inputs["similarities"], "similarities")
    layers, deltas = layer_names(similarities), differences(pairs, similarities)
    penalties = [float(value) for value in options.get("penalties", PENALTIES)]
    folds = []
    for fold in sorted(int(value) for value in labels["fold"].unique()):
        train, validation = (
            labelled(pairs, labels, role=role, fold=fold, group="seen") for role in ("pcmp_train", "pcmp_val")
        )
        for role, found in (("pcmp_train", train), ("pcmp_val", validation)):
            if found.empty:
                raise ArtifactError(
                    f"expected {role} pairs with labels of seen voters in fold {fold}, got none"
                )
        data = deltas[train.index], train.to_numpy()
        best, losses = choose_penalty(data, (deltas[validation.index], validation.to_numpy()), penalties)
        estimate = shares(best.weights, data[0])
        references = pairs.loc[train.index, "reference_id"]
        rng = generator(spec["seed"], "fit", fold)
        intervals = _share_intervals(best, *data, references, int(options.get("bootstrap", 200)), rng)
        folds.append(
            {
                "fold": fold,
                "weights": best.weights.tolist(),
                "theta": best.theta.tolist(),
                "tau": best.tau,
                "penalty": best.penalty,
                "shares": estimate.tolist(),
                "shares_ci": intervals,
                "boundary": bool(estimate.max() > BOUNDARY_SHARE),
                "train_loss": best.loss,
                "val_loss": losses[best.penalty],
                "val_loss_by_penalty": [[penalty, losses[penalty]] for penalty in sorted(losses)],
                "n_pairs": len(train),
                "n_references": int(references.nunique()),
                "n_val_pairs": len(validation),
            }
        )
    encoder = spec.get("encoder", {})
    write_json(
        outputs["weights"],
        {
            "encoder": encoder.get("name", "unnamed"),
            "size_policy": encoder.get("entry", {}).get("size_policy", "resize"),
            "layers": layers,
            "loss": "cross_entropy",
            "penalties": penalties,
            "bootstrap": int(options.get("bootstrap", 200)),
            "folds": folds,
        },
    )


def _share_intervals(
    best: Fit,
    deltas: np.ndarray,
    labels: np.ndarray,
    references: pd.Series,
    resamples: int,
    rng: np.random.Generator,
) -> list[list[float]]:
    """95 % percentile intervals of the shares: whole references are resampled, and each resample is
    refitted.
    """
    if resamples < 1:
        raise ValueError(f"expected fit.bootstrap of at least 1 resample, got {resamples}")
    codes = pd.factorize(references, sort=True)[0]
    size, drawn = codes.max() + 1, []
    for _ in range(resamples):
        counts = np.bincount(rng.integers(size, size=size), minlength=size)[codes]
        again = fit_weights(deltas, labels, best.penalty, counts=counts, start=best)
        drawn.append(shares(again.weights, deltas, counts))
    return np.percentile(drawn, [2.5, 97.5], axis=0).T.tolist()


def score(spec: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path]) -> None:
    """Step ``clip_scores``: images, similarities, weights (and optionally ``untrained`` similarities) ->
    scores.

    One row per image and metric: ``ml_clipsim`` with variant ``fold_<k>``, ``ml_clipsim_uniform``,
    ``clip_global`` and, where given, ``untrained`` (uniform weights on an encoder that never learnt). All
    in [-1, 1], larger is better. ``spec["roles"]`` restricts the images to some roles.
    """
    images = read_table(inputs["images"], "images", columns=["image_id", "role"])
    if spec.get("roles"):
        images = images[images["role"].isin(spec["roles"])]
    weights = read_json(inputs["weights"])
    table = (
        read_table(inputs["similarities"], "similarities").set_index("image_id").reindex(images["image_id"])
    )
    if weights["layers"] != layer_names(table):
        raise ArtifactError(
            f"weights are for {weights['layers']}, the similarities hold {layer_names(table)}; refit"
        )
    values = table[weights["layers"]].to_numpy(float)
    columns = {
        ("ml_clipsim", f"fold_{fold['fold']}"): values @ np.array(fold["weights"])
        for fold in weights["folds"]
    }
    columns["ml_clipsim_uniform", "uniform"] = values.mean(axis=1)
    columns["clip_global", "global"] = values[:, -1]
    if "untrained" in inputs:
        other = (
            read_table(inputs["untrained"], "similarities").set_index("image_id").reindex(images["image_id"])
        )
        columns["untrained", "uniform"] = other[layer_names(other)].to_numpy(float).mean(axis=1)
    parts = [
        pd.DataFrame({"image_id": images["image_id"], "metric": metric, "variant": variant, "score": scores})
        for (metric, variant), scores in columns.items()
    ]
    frame = pd.concat(parts, ignore_index=True).sort_values(
        ["metric", "variant", "image_id"], ignore_index=True
    )
    frame["higher_is_better"], frame["class"] = True, "ours"
    write_table(outputs["scores"], frame, "scores")
