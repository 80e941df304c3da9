"""Score image files with ML-CLIPSim: batches of one size, bounded memory, rows in the order of names."""

from __future__ import annotations

import csv
import json
import math
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from mlclipsim import encoders, heatmap
from mlclipsim.atomic import atomic
from mlclipsim.devices import Pieces, ahead, moved, own_device
from mlclipsim.images import ImageError, read_image, to_tensor
from mlclipsim.metric import Encoded, MLCLIPSim, SizePolicy
from mlclipsim.pairing import Pair

__all__ = ["Outcome", "load_metric", "score_files", "score_pairs"]

Row = dict[str, str | float]

# A window is what is decoded at a time: enough pairs to fill batches of several sizes, and few enough bytes.
WINDOW_BATCHES, WINDOW_BYTES = 4, 256 * 2**20
BATCH_PIXELS = 2**24  # of one side of a batch; as float32 RGB that is 200 MB


@dataclass(frozen=True)
class Outcome:
    """What became of a pair: its score and its similarities by layer, or why it has none."""

    pair: Pair
    score: float = math.nan
    layers: dict[str, float] = field(default_factory=dict)
    problem: str = ""


def load_metric(
    encoder: str | None = None,
    pretrained: str | None = None,
    *,
    weights: str | None = None,
    layers: Sequence[int] | None = None,
    size_policy: SizePolicy = "resize",
    device: str = "auto",
) -> MLCLIPSim:
    """The metric as the command line names it.

    Args:
        encoder: a packaged network or an open_clip model; None: the metric's default.
        pretrained: an open_clip tag, or a checkpoint file, known by an extension or a slash in it.
        weights: as of :class:`mlclipsim.metric.MLCLIPSim`; None: its default.
        device: ``auto`` is CUDA where there is one, else the CPU.

    Raises:
        ValueError, WeightsError: as :class:`mlclipsim.metric.MLCLIPSim`; also a device that is not there.
    """
    if device == "auto":
        device = str(own_device())
    elif device == "cuda" and not torch.cuda.is_available():
        raise ValueError("expected a CUDA device for --device cuda, found none; use --device auto or cpu")
    name = encoder or encoders.DEFAULT_MODEL
    if pretrained and (os.sep in pretrained or Path(pretrained).suffix):
        tower = encoders.load_encoder(name, checkpoint=pretrained)
    else:
        tower = encoders.load_encoder(name, pretrained)
    return MLCLIPSim(tower, weights=weights, layers=layers, size_policy=size_policy, device=device)


def score_pairs(
    metric: MLCLIPSim, pairs: Sequence[Pair], *, batch_size: int = 8, maps: Path | None = None
) -> Iterator[Outcome]:
    """An :class:`Outcome` for each pair, in their order, whatever the batch size.

    Where all pairs have one reference, it is read and encoded once.

    Args:
        batch_size: at most so many pairs of one image size at a time; fewer of large images.
        maps: folder for heat maps, ``<name>.png`` each (:mod:`mlclipsim.heatmap`).

    Raises:
        ImageError: the one reference of all pairs cannot be read, or a map cannot be written.
    """
    shared: Encoded | None = None
    if len(pairs) > 1 and len({pair.reference for pair in pairs}) == 1:
        shared = metric.encode(_batch(metric, [read_image(pairs[0].reference)]))
    pieces: defaultdict[tuple[int, ...], Pieces] = defaultdict(Pieces)  # by size of image
    for window in ahead(_windows(pairs, WINDOW_BATCHES * batch_size), metric.theta.device):
        outcomes: dict[Pair, Outcome] = {}
        sizes: dict[tuple[int, ...], list[_Loaded]] = {}
        for item in window:
            if isinstance(item, Outcome):
                outcomes[item.pair] = item
            else:
                sizes.setdefault(item.distorted.shape, []).append(item)
        for shape, items in sizes.items():
            step = max(1, min(batch_size, BATCH_PIXELS // (shape[0] * shape[1])))
            for start in range(0, len(items), step):
                measured = pieces[shape].map(
                    lambda batch: _measure(metric, batch, shared, maps), items[start : start + step]
                )
                outcomes |= {outcome.pair: outcome for piece in measured for outcome in piece}
        yield from (outcomes[item.pair] for item in window)


@dataclass(frozen=True)
class _Loaded:
    """The pixels of a pair, uint8 ``(H, W, 3)`` each."""

    pair: Pair
    reference: np.ndarray
    distorted: np.ndarray


def _windows(pairs: Sequence[Pair], count: int) -> Iterator[list[_Loaded | Outcome]]:
    """Successive pairs, decoded, or why not: at most ``count`` and about WINDOW_BYTES at a time."""
    read_reference = lru_cache(maxsize=1)(read_image)  # the reference of all pairs, if there is but one
    window: list[_Loaded | Outcome] = []
    size = 0
    for pair in pairs:
        try:
            item = _Loaded(pair, read_reference(pair.reference), read_image(pair.distorted))
        except ImageError as error:
            window.append(Outcome(pair, problem=str(error)))
        else:
            window.append(_same_size(item))
            size += item.reference.nbytes + item.distorted.nbytes
        if len(window) == count or size >= WINDOW_BYTES:
            yield window
            window, size = [], 0
    if window:
        yield window


def _same_size(item: _Loaded) -> _Loaded | Outcome:
    (height, width, _), (rows, columns, _) = item.reference.shape, item.distorted.shape
    if (height, width) == (rows, columns):
        return item
    problem = (
        f"{item.pair.distorted}: {columns}x{rows} pixels, but its reference has {width}x{height}; "
        "crop or resize one to the other"
    )
    return Outcome(item.pair, problem=problem)


def _measure(
    metric: MLCLIPSim, batch: list[_Loaded], shared: Encoded | None, maps: Path | None
) -> list[Outcome]:
    """Score pairs of one size, against their references or the ``shared`` one, and draw their maps."""
    try:
        similarities, drawn = _compare(metric, batch, shared, maps is not None)
    except ValueError as error:  # this size of image does not fit the size policy
        return [Outcome(item.pair, problem=f"{item.pair.distorted}: {error}") for item in batch]
    scores = (similarities @ similarities.new_tensor(list(metric.weights.values()))).tolist()  # sum w_l s_l
    if maps is not None and drawn is not None:
        for item, score, similarity in zip(batch, scores, drawn, strict=True):
            heatmap.write(maps / f"{item.pair.name}.png", item.distorted, similarity, score)
    return [
        Outcome(item.pair, score, dict(zip(metric.names, row.tolist(), strict=True)))
        for item, score, row in zip(batch, scores, similarities, strict=True)
    ]


def _compare(
    metric: MLCLIPSim, batch: list[_Loaded], shared: Encoded | None, draw: bool
) -> tuple[Tensor, Tensor | None]:
    """Similarities ``(N, L + 1)`` in float64, and maps if asked for, on the CPU."""
    distorted = _batch(metric, [item.distorted for item in batch])
    reference = shared or metric.encode(_batch(metric, [item.reference for item in batch]))
    similarities = metric.per_layer(reference=reference, distorted=distorted)
    drawn = metric.map(reference=reference, distorted=distorted).cpu() if draw else None
    return similarities.double().cpu(), drawn


def _batch(metric: MLCLIPSim, images: list[np.ndarray]) -> Tensor:
    return moved(to_tensor(np.stack(images)), metric.theta.device)


def score_files(
    metric: MLCLIPSim,
    pairs: Sequence[Pair],
    *,
    output: Path | None = None,
    form: str = "csv",
    per_layer: bool = False,
    batch_size: int = 8,
    maps: Path | None = None,
) -> list[str]:
    """Score ``pairs`` and write a row for each that can be, in their order, with progress on a terminal.

    Args:
        output: a file, which appears when all rows are in it; None: standard output.
        form: ``csv``; ``jsonl``, one JSON object a line; or ``text``, the bare numbers.

    Returns:
        One line for each pair without a score: the file and the reason.
    """
    problems = []
    columns = [
        "name",
        "reference",
        "distorted",
        "score",
        *(metric.names if per_layer else ()),
        *metric.identity,
    ]
    outcomes = score_pairs(metric, pairs, batch_size=batch_size, maps=maps)
    quiet = len(pairs) == 1 or not sys.stderr.isatty() or (output is None and sys.stdout.isatty())
    with _writing(output, form, columns) as write:
        for outcome in tqdm(outcomes, total=len(pairs), unit="pair", leave=False, disable=quiet):
            if outcome.problem:
                problems.append(outcome.problem)
                continue
            values = {"score": outcome.score} | outcome.layers
            row = {
                "name": outcome.pair.name,
                "reference": outcome.pair.reference.as_posix(),
                "distorted": outcome.pair.distorted.as_posix(),
                **{name: round(value, 6) for name, value in values.items()},
                **metric.identity,
            }
            write({name: row[name] for name in columns})
    return problems


@contextmanager
def _writing(output: Path | None, form: str, columns: list[str]) -> Iterator[Callable[[Row], None]]:
    """Yield a function that writes one row."""
    if output is None:
        yield _writer(sys.stdout, form, columns)
        return
    try:
        with atomic(output) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
            yield _writer(stream, form, columns)
    except OSError as error:
        raise OSError(f"{output}: cannot be written ({error.strerror}); choose another place") from None


def _writer(stream: TextIO, form: str, columns: list[str]) -> Callable[[Row], None]:
    if form == "jsonl":
        return lambda row: print(json.dumps(row, ensure_ascii=False), file=stream)
    if form == "text":
        return lambda row: print("\n".join(_text(row)), file=stream)
    table = csv.DictWriter(stream, columns, lineterminator="\n")
    table.writeheader()
    return lambda row: table.writerow({key: _decimals(value) for key, value in row.items()})


def _text(row: Row) -> Iterator[str]:
    """The score alone in the first line, as scripts want it; then the layers."""
    numbers = {key: value for key, value in row.items() if isinstance(value, float)}
    yield _decimals(numbers.pop("score"))
    for key, value in numbers.items():
        yield f"{key:9s} {_decimals(value)}"


def _decimals(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.6f}"
