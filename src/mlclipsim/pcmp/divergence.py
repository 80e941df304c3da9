"""How far a prediction moved: divergences between a classifier's logits on reference and distorted image."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp, rel_entr

__all__ = ["BOUNDED", "KINDS", "divergences", "fit_temperature", "prefers"]

KINDS = ("kl", "kl_t4", "js", "logit_cosine", "top1")
BOUNDED = frozenset({"logit_cosine", "top1"})  # the others are in nats

_TEMPERATURES = (0.05, 20.0)


def _kl(log_p: np.ndarray, log_q: np.ndarray) -> np.ndarray:
    """KL(p || q) in nats along the last axis; rounding below zero is cut off."""
    return np.maximum((np.exp(log_p) * (log_p - log_q)).sum(axis=-1), 0)


def divergences(reference: np.ndarray, distorted: np.ndarray, temperature: float) -> dict[str, np.ndarray]:
    """Every kind of divergence between predictions, ``x`` on the reference, ``y`` on the distorted image.

    With ``p = softmax(logits / temperature)``:

    - ``kl``: KL(p(x) || p(y)), nats
    - ``kl_t4``: the same with both softened by a further factor of 4 (Hinton et al., 2015; without their
      factor T^2)
    - ``js``: Jensen-Shannon divergence, nats, at most ln 2 (Lin, IEEE Trans. Inf. Theory 37, 1991)
    - ``logit_cosine``: 1 - cosine of the logits, in [0, 2]
    - ``top1``: 1 where the most likely class differs, else 0

    Args:
        reference, distorted: logits ``(N, C)``.
        temperature: calibrates the logits, see :func:`fit_temperature`.

    Returns:
        kind -> float64 ``(N,)``; all are 0 for equal logits.
    """
    x, y = (np.asarray(logits, np.float64) for logits in (reference, distorted))
    log_p, log_q = (log_softmax(logits / temperature, axis=-1) for logits in (x, y))
    p, q = np.exp(log_p), np.exp(log_q)
    middle = (p + q) / 2
    js = (rel_entr(p, middle).sum(axis=-1) + rel_entr(q, middle).sum(axis=-1)) / 2
    norms = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
    cosine = (x * y).sum(axis=-1) / np.maximum(norms, np.finfo(np.float64).tiny)
    return {
        "kl": _kl(log_p, log_q),
        "kl_t4": _kl(*(log_softmax(logits / (4 * temperature), axis=-1) for logits in (x, y))),
        "js": np.clip(js, 0, np.log(2)),
        "logit_cosine": np.where((x == y).all(axis=-1), 0.0, np.clip(1 - cosine, 0, 2)),
        "top1": (x.argmax(axis=-1) != y.argmax(axis=-1)).astype(np.float64),
    }


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature that minimises the negative log-likelihood of ``labels`` (Guo et al., ICML 2017).

    Searched on a logarithmic scale within [0.05, 20]: a network without an error on the images at hand has
    no minimum.

    Args:
        logits: ``(N, C)``.
        labels: ``(N,)`` class indices.
    """
    logits = np.asarray(logits, np.float64)
    if len(labels) == 0:
        raise ValueError(
            "expected labelled clean images to calibrate a voter on, got none; add the role zoo_val"
        )
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(
            f"expected labels in [0, {logits.shape[1] - 1}], the voter's classes, got {labels.min()} to "
            f"{labels.max()}; it votes in another world than the references"
        )
    own = logits[np.arange(len(labels)), labels]

    def loss(log_t: float) -> float:
        scale = np.exp(-log_t)
        return float((logsumexp(logits * scale, axis=1) - own * scale).mean())

    return float(np.exp(minimize_scalar(loss, bounds=np.log(_TEMPERATURES), method="bounded").x))


def prefers(
    d_a: np.ndarray, d_b: np.ndarray, *, kind: str, tie_log: float, epsilon: float, tie_bounded: float
) -> np.ndarray:
    """The vote: 1 where A diverges less, 0 where B does, 1/2 where they tie, NaN where one is missing.

    Divergences in nats tie if ``|ln(d_a + epsilon) - ln(d_b + epsilon)| < tie_log``: their size spans
    decades, and below ``epsilon`` a difference means nothing. Bounded ones tie if they differ by less than
    ``tie_bounded``.
    """
    if kind not in KINDS:
        raise ValueError(f"divergence {kind!r} is unknown, expected one of {', '.join(KINDS)}")
    d_a, d_b = np.asarray(d_a, np.float64), np.asarray(d_b, np.float64)
    if kind in BOUNDED:
        difference, threshold = d_b - d_a, tie_bounded
    else:
        difference, threshold = np.log(d_b + epsilon) - np.log(d_a + epsilon), tie_log
    vote = np.where(np.abs(difference) < threshold, 0.5, (difference > 0).astype(np.float64))
    return np.where(np.isnan(difference), np.nan, vote)
