"""How far a prediction moved: divergences between a machine's predictions on reference and distorted image.

A classifier's logits have several kinds of divergence; boxes and label maps have one each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp, rel_entr

if TYPE_CHECKING:
    from mlclipsim.machines.detector import Boxes

__all__ = [
    "ALL_KINDS",
    "BOUNDED",
    "KINDS",
    "OF_TASK",
    "abstains",
    "box_f1",
    "compare",
    "divergences",
    "fit_temperature",
    "mean_iou",
    "prefers",
]

KINDS = ("kl", "kl_t4", "js", "logit_cosine", "top1")  # of classifiers
OF_TASK = {"detection": "box_f1", "segmentation": "mean_iou"}  # the one kind of the other tasks
ALL_KINDS = (*KINDS, *OF_TASK.values())
BOUNDED = frozenset({"logit_cosine", "top1", *OF_TASK.values()})  # the others are in nats

_TEMPERATURES = (0.05, 20.0)
_SCORE = 0.3  # a box that scores less was not found
_IOU = 0.5  # boxes that overlap less are not the same object
_FOREGROUND = 0.01  # of the pixels: a class with fewer is a speck


def _kl(log_p: np.ndarray, log_q: np.ndarray) -> np.ndarray:
    """KL(p || q) in nats along the last axis; rounding below zero is cut off."""
    return np.maximum((np.exp(log_p) * (log_p - log_q)).sum(axis=-1), 0)


def divergences(reference: np.ndarray, distorted: np.ndarray, temperature: float) -> dict[str, np.ndarray]:
    """Every kind of divergence of a classifier, ``x`` on the reference, ``y`` on the distorted image.

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


def box_f1(reference: Boxes, distorted: Boxes) -> float:
    """1 - F1 of the boxes that score above .3, matched one to one; NaN where the reference has none.

    Greedy: of all pairs of one class with an IoU of at least 1/2, the pair of largest IoU is matched first.
    F1 is twice the matched over the boxes of both.
    """
    import torch  # takes seconds, and whoever only casts stored votes again compares no boxes
    from torchvision.ops import box_iou

    x, y = reference.above(_SCORE), distorted.above(_SCORE)
    if not len(x):
        return float("nan")
    overlap = box_iou(*(torch.from_numpy(boxes.corners).double() for boxes in (x, y)))
    overlap = overlap.nan_to_num().numpy()  # of two boxes without area
    overlap[x.labels[:, None] != y.labels] = 0
    matched = 0
    while overlap.size and overlap.max() >= _IOU:
        row, column = np.unravel_index(overlap.argmax(), overlap.shape)
        overlap[row], overlap[:, column] = 0, 0
        matched += 1
    return 1 - 2 * matched / (len(x) + len(y))


def mean_iou(reference: np.ndarray, distorted: np.ndarray) -> float:
    """1 - mean over classes of the IoU of two label maps; NaN where the reference is all background.

    The classes are those that either map shows, background (0) among them. All background: no other class
    has more than 1 % of the pixels.
    """
    if abstains("segmentation", reference):
        return float("nan")
    classes = int(max(reference.max(), distorted.max())) + 1
    both = np.bincount(reference.ravel().astype(np.int64) * classes + distorted.ravel(), minlength=classes**2)
    both = both.reshape(classes, classes)
    union = both.sum(axis=0) + both.sum(axis=1) - both.diagonal()
    shown = union > 0
    return 1 - float((both.diagonal()[shown] / union[shown]).mean())


def abstains(task: str, reference: Any) -> bool:
    """Whether a machine's prediction on the reference is empty, so that nothing can move away from it.

    A detector's without a box above .3, a segmenter's without a class, but background, above 1 % of the
    pixels; never a classifier's.
    """
    if task == "detection":
        return not len(reference.above(_SCORE))
    if task == "segmentation":
        return bool(np.bincount(reference.ravel())[1:].max(initial=0) <= _FOREGROUND * reference.size)
    return False


def compare(task: str, reference: Any, distorted: Any, temperature: float) -> dict[str, np.ndarray]:
    """Every divergence that a task has between two lists of predictions (what ``Machine.predict`` gives).

    Returns:
        kind -> float64 ``(N,)``, as :func:`divergences`, :func:`box_f1` and :func:`mean_iou`.
    """
    if task == "classification":
        return divergences(reference, distorted, temperature)
    one: Callable[[Any, Any], float] = box_f1 if task == "detection" else mean_iou
    return {OF_TASK[task]: np.array([one(x, y) for x, y in zip(reference, distorted, strict=True)], float)}


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature that minimises the negative log-likelihood of ``labels`` (Guo et al., ICML 2017).

    A network without an error on the ``N`` images would be given the least temperature there is, so each
    label counts for ``(N + 1) / (N + 2)`` and the other classes share the rest (Platt 1999, for two classes):
    no error in 300 images does not promise none in 3,000. Searched on a logarithmic scale within [0.05, 20].

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
    others = (logits.sum(axis=1) - own) / (logits.shape[1] - 1)
    aim = ((len(labels) + 1) * own + others) / (len(labels) + 2)

    def loss(log_t: float) -> float:
        scale = np.exp(-log_t)
        return float((logsumexp(logits * scale, axis=1) - aim * scale).mean())

    return float(np.exp(minimize_scalar(loss, bounds=np.log(_TEMPERATURES), method="bounded").x))


def prefers(
    d_a: np.ndarray, d_b: np.ndarray, *, kind: str, tie_log: float, epsilon: float, tie_bounded: float
) -> np.ndarray:
    """The vote: 1 where A diverges less, 0 where B does, 1/2 where they tie, NaN where one is missing.

    Divergences in nats tie if ``|ln(d_a + epsilon) - ln(d_b + epsilon)| < tie_log``: their size spans
    decades, and below ``epsilon`` a difference means nothing. Bounded ones tie if they differ by less than
    ``tie_bounded``.
    """
    if kind not in ALL_KINDS:
        raise ValueError(f"divergence {kind!r} is unknown, expected one of {', '.join(ALL_KINDS)}")
    d_a, d_b = np.asarray(d_a, np.float64), np.asarray(d_b, np.float64)
    if kind in BOUNDED:
        difference, threshold = d_b - d_a, tie_bounded
    else:
        difference, threshold = np.log(d_b + epsilon) - np.log(d_a + epsilon), tie_log
    vote = np.where(np.abs(difference) < threshold, 0.5, (difference > 0).astype(np.float64))
    return np.where(np.isnan(difference), np.nan, vote)
