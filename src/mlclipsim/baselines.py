"""Full-reference metrics that others published, by thin adapters on piq and torchmetrics.

A metric is a catalog entry, so that which implementation runs with which arguments is data::

    ssim:
      library: piq                # or torchmetrics (its functional.image module)
      function: ssim              # called as function(distorted, reference, **arguments)
      arguments: {}
      colour: rgb                 # or grey: 8-bit ITU-R 601 luma, as the classic Matlab codes take
      variant: rgb                # part of the metric's name: several "right" values exist
      higher_is_better: true
      class: fidelity             # or perceptual

Scores keep the metric's own direction; ``higher_is_better`` travels with them as a column.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch
from torch import Tensor

from mlclipsim.artifacts import ArtifactError, read_table, write_table
from mlclipsim.images import decode_image, to_tensor

__all__ = ["MS_SSIM_MIN_SIDE", "build", "score"]

log = logging.getLogger(__name__)

Metric = Callable[[Tensor, Tensor], Tensor]  # (distorted, reference), each (B, 3, H, W) in [0, 1] -> (B,)

_LIBRARIES = {"piq": "piq", "torchmetrics": "torchmetrics.functional.image"}
# Five scales halve the image four times, and the last must hold an 11-pixel window: (11 - 1) * 2^4 + 1.
MS_SSIM_MIN_SIDE = 161
# Wang, Simoncelli and Bovik (2003), the first three of five; piq divides them by their sum.
_THREE_SCALES = (0.0448, 0.2856, 0.3001)


def build(name: str, entry: dict[str, Any], side: int) -> tuple[Metric, str]:
    """The callable of one catalog entry for images whose shorter side has ``side`` pixels, and its
    variant's name.

    Below 161 pixels MS-SSIM has no room for its five scales; it then runs with three, weights renormalised,
    and is named ``ms_ssim_3``, since its values compare with no five-scale ones.

    Raises:
        ValueError: unknown library, function or colour.
    """
    library, function = entry.get("library", "piq"), entry.get("function", name)
    if library not in _LIBRARIES:
        raise ValueError(
            f"metric {name}: expected a library of {sorted(_LIBRARIES)}, got {library!r}; mend its catalog"
        )
    call = getattr(importlib.import_module(_LIBRARIES[library]), function, None)
    if call is None:
        raise ValueError(f"metric {name}: {library} has no function {function!r}; mend its catalog entry")
    colour = entry.get("colour", "rgb")
    if colour not in ("rgb", "grey"):
        raise ValueError(
            f"metric {name}: expected colour rgb or grey, got {colour!r}; mend its catalog entry"
        )
    arguments, variant = dict(entry.get("arguments") or {}), entry.get("variant", colour)
    if function == "multi_scale_ssim":
        if side < MS_SSIM_MIN_SIDE and "scale_weights" not in arguments:
            arguments["scale_weights"], variant = list(_THREE_SCALES), "ms_ssim_3"
        if "scale_weights" in arguments:
            arguments["scale_weights"] = torch.tensor(arguments["scale_weights"])
    prepare = _grey if colour == "grey" else _same

    def piq_metric(distorted: Tensor, reference: Tensor) -> Tensor:
        return call(prepare(distorted), prepare(reference), reduction="none", **arguments)

    def torchmetrics_metric(distorted: Tensor, reference: Tensor) -> Tensor:
        # Not all of its functions can leave the batch unreduced: one image at a time gives one value each.
        x, y = prepare(distorted), prepare(reference)
        return torch.stack([call(x[i : i + 1], y[i : i + 1], **arguments) for i in range(len(x))])

    return (piq_metric if library == "piq" else torchmetrics_metric), variant


def _same(images: Tensor) -> Tensor:
    return images


def _grey(images: Tensor) -> Tensor:
    luma = images.new_tensor([0.299, 0.587, 0.114])
    return (torch.einsum("bchw,c->bhw", images, luma) * 255).round()[:, None] / 255


def score(spec: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path]) -> None:
    """Step ``baselines``: references, images -> scores, each (image, metric) once.

    ``spec``: ``metrics`` {name: catalog entry}; ``roles`` whose images are scored (default: pcmp_test, the
    only ones that a benchmark reads); ``batch_size``; ``threads``. A score that is not a number stays in
    the table as such, and is reported, so that whoever reads it can count what to exclude.
    """
    torch.set_num_threads(int(spec.get("threads", 1)))
    roles = list(spec.get("roles") or ["pcmp_test"])
    references = _read(inputs["references"], "references", ["reference_id", "image"], roles)
    images = _read(inputs["images"], "images", ["image_id", "reference_id", "image"], roles)
    images = images.sort_values("image_id", ignore_index=True)
    encoded = dict(zip(references["reference_id"], references["image"], strict=True))
    orphans = sorted(set(images["reference_id"]) - set(encoded))
    if orphans:
        raise ArtifactError(
            f"expected the reference of every image, {len(orphans)} are absent, e.g. {orphans[0]}"
        )

    metrics: dict[tuple[str, int], tuple[Metric, str]] = {}
    parts = []
    for rows, distorted, reference in _batches(images, encoded, int(spec.get("batch_size", 32))):
        side = min(distorted.shape[-2:])
        for name, entry in spec["metrics"].items():
            if (name, side) not in metrics:
                metrics[name, side] = build(name, entry, side)
            metric, variant = metrics[name, side]
            with torch.inference_mode():
                values = metric(distorted, reference).double().reshape(-1).numpy()
            parts.append(
                pd.DataFrame(
                    {
                        "image_id": images["image_id"].to_numpy()[rows],
                        "metric": name,
                        "variant": variant,
                        "score": values,
                        "higher_is_better": bool(entry.get("higher_is_better", True)),
                        "class": entry.get("class", "fidelity"),
                    }
                )
            )
    if not parts:
        raise ArtifactError(f"expected images and metrics to score, got none; roles {roles}")
    frame = pd.concat(parts, ignore_index=True).sort_values(
        ["metric", "variant", "image_id"], ignore_index=True
    )
    for name, count in frame["score"].isna().groupby(frame["metric"]).sum().items():
        if count:
            log.warning("%s: %d of %d scores are not numbers", name, count, len(images))
    write_table(outputs["scores"], frame, "scores")


def _read(path: Path, schema: str, columns: list[str], roles: list[str]) -> pd.DataFrame:
    """Rows of some roles only: the bytes of all other images never enter memory."""
    read_table(path, schema, columns=["role"])  # checks the layout
    return pq.read_table(path, columns=columns, filters=[("role", "in", roles)]).to_pandas()


def _batches(
    images: pd.DataFrame, encoded: dict[str, bytes], batch_size: int
) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
    """Row numbers, distorted and reference images, in batches that hold one size of image each."""
    decoded: dict[str, np.ndarray] = {}  # images come sorted by reference, so a few suffice
    pending: dict[tuple[int, ...], list[tuple[int, np.ndarray, np.ndarray]]] = {}

    def tensors(items: list[tuple[int, np.ndarray, np.ndarray]]) -> tuple[np.ndarray, Tensor, Tensor]:
        rows, distorted, reference = zip(*items, strict=True)
        return np.array(rows), to_tensor(np.stack(distorted)), to_tensor(np.stack(reference))

    for row, (reference_id, data) in enumerate(zip(images["reference_id"], images["image"], strict=True)):
        if reference_id not in decoded:
            decoded = {reference_id: decode_image(encoded[reference_id])}
        image, reference = decode_image(data), decoded[reference_id]
        if image.shape != reference.shape:
            raise ArtifactError(
                f"expected {reference_id} and its images in one size, got {reference.shape}, {image.shape}"
            )
        waiting = pending.setdefault(image.shape, [])
        waiting.append((row, image, reference))
        if len(waiting) == batch_size:
            yield tensors(pending.pop(image.shape))
    for shape in sorted(pending):
        yield tensors(pending[shape])
