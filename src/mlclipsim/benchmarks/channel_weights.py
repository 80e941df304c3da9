"""A weight for every channel of every layer, fitted on stored products: what the layer weights leave out.

``s_l`` is a sum over channels (:mod:`mlclipsim.channels`), so ``S = sum_c v_c q_c`` over all channels ``c``
of all layers, with ``v_c = w_l`` in ML-CLIPSim. Here every ``v_c >= 0`` is free. The loss is the fit's own,
of Bradley and Terry; the penalty is the squared distance of each ``v_c`` to the mean of its layer, in units
in which every layer's similarity varies alike. So without a penalty channels owe each other nothing, and
under a large one they are layer weights again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import minimize

from mlclipsim import fit
from mlclipsim.artifacts import ArtifactError, read_table
from mlclipsim.benchmarks.refit import Study

__all__ = ["PENALTIES", "Products", "choose"]

PENALTIES = (10.0, 1.0, 0.1, 0.01, 0.001)  # from layer weights in all but name to hardly any
_DECIMALS = 7  # beyond which sums of float32 are noise, which must not break a tie


@dataclass(frozen=True, eq=False)
class Products:
    """Stored products of the images of some pairs.

    Attributes:
        values: (images, channels) float32, layers one after another.
        layer: number of each channel's layer, ascending from 0, (channels,).
        a, b: each pair's images, as rows of ``values``, (pairs,).
    """

    values: np.ndarray
    layer: np.ndarray
    a: np.ndarray
    b: np.ndarray

    @classmethod
    def read(cls, path: Path, pairs: pd.DataFrame, names: Sequence[str]) -> Products:
        """``names``: of the layers, in their order.

        Raises:
            ArtifactError: layers or images are missing.
        """
        table = read_table(path, "products")
        layers = [name for name in table.columns if name not in ("image_id", "reference_id")]
        rows = [pd.Index(table["image_id"]).get_indexer(pairs[side]) for side in ("image_a", "image_b")]
        if layers != list(names) or min(part.min() for part in rows) < 0:
            raise ArtifactError(
                f"{path}: expected products of {', '.join(names)} on every paired image, found others; run "
                "the step channel_similarities again"
            )
        blocks = [np.stack(table.pop(name).to_list()).astype(np.float32) for name in layers]
        layer = np.repeat(np.arange(len(layers)), [block.shape[1] for block in blocks])
        return cls(np.concatenate(blocks, axis=1), layer, *rows)

    def differences(self, weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """``S(x, A) - S(x, B)`` of some pairs under ``weights`` (channels,), (rows,)."""
        images, where = np.unique([self.a[rows], self.b[rows]], return_inverse=True)
        scores = (self.values[images] @ weights.astype(np.float32)).astype(float)
        a, b = where.reshape(2, -1)
        return np.round(scores[a] - scores[b], _DECIMALS)


def choose(study: Study, products: Products) -> list[np.ndarray | None]:
    """Weights (channels,) of each fold, fitted on pcmp_train, with the penalty that has the least loss on
    pcmp_val; None for a fold without labels.
    """
    weights: list[np.ndarray | None] = []
    for fold, label in enumerate(study.labels["seen"].T):
        train, validation = study.fitting(np.isfinite(label))
        if not (len(train) and len(validation)):
            weights.append(None)
            continue
        begin = np.array(study.weights["folds"][fold]["weights"]) / study.weights["folds"][fold]["tau"]
        mass = np.full(len(validation), 1 / len(validation))
        losses = {}
        path = _fit(products, train, label[train], begin)
        for penalty, fitted in path.items():
            margin = products.differences(fitted, validation)
            losses[penalty] = fit.LOSSES["bradley_terry"](margin, label[validation], mass)[0]
        weights.append(path[min(losses, key=losses.__getitem__)])
    return weights


def _fit(
    products: Products, rows: np.ndarray, labels: np.ndarray, begin: np.ndarray
) -> dict[float, np.ndarray]:
    """Weights (channels,) over the temperature, by penalty, the largest first; each fit begins at the last.

    The problem is convex, so where it begins only saves time: at weights of layers ``begin``, (layers,).
    """
    images, where = np.unique([products.a[rows], products.b[rows]], return_inverse=True)
    a, b = where.reshape(2, -1)
    by_layer = np.eye(len(begin), dtype=np.float32)[products.layer]  # (channels, layers)
    values = products.values[images]
    sums = values @ by_layer
    unit = 1 / (sums[a] - sums[b]).std(axis=0).clip(min=1e-6)  # in which a layer's differences have spread 1
    values = values * unit[products.layer]
    size = by_layer.sum(axis=0)[products.layer]
    mass = np.full(len(rows), 1 / len(rows))

    def loss(u: np.ndarray, penalty: float) -> tuple[float, np.ndarray]:
        scores = (values @ u.astype(np.float32)).astype(float)
        value, residual = fit.LOSSES["bradley_terry"](scores[a] - scores[b], labels, mass)
        slope = np.bincount(a, residual, len(images)) - np.bincount(b, residual, len(images))
        apart = u - (np.bincount(products.layer, u)[products.layer] / size)
        gradient = (slope.astype(np.float32) @ values).astype(float) + 2 * penalty * apart / len(u)
        return value + penalty * float(apart @ apart) / len(u), gradient

    u = (begin / unit)[products.layer]
    path = {}
    for penalty in PENALTIES:
        u = minimize(
            loss,
            u,
            args=(penalty,),
            jac=True,
            method="L-BFGS-B",
            bounds=[(0, None)] * len(u),
            options={"maxiter": 500, "ftol": 1e-9},
        ).x
        path[penalty] = u * unit[products.layer]
    return path
