"""Full-reference metrics that others published, by thin adapters on the libraries that have them.

A metric is a catalog entry, so that which implementation runs with which arguments is data::

    ssim:
      library: piq                # piq | torchmetrics | pyiqa | dreamsim | mlclipsim | plugin
      function: ssim              # its name there: a function, or a class that holds a network
      arguments: {downsample: false}
      colour: grey                # rgb, or 8-bit ITU-R 601 luma, as the classic Matlab codes take
      variant: grey               # part of the metric's name: several "right" values exist
      higher_is_better: true
      class: fidelity             # or perceptual
      needs: nothing              # beyond the package, with the command that gets it

Scores keep the metric's own direction; ``higher_is_better`` travels with them as a column. Which published
numbers each variant meets, and to what tolerance: docs/metrics.md.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import logging
from collections.abc import Callable, Collection, Iterator
from functools import partial
from itertools import groupby, islice
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from mlclipsim import deep_features, plugins
from mlclipsim.artifacts import (
    ArtifactError,
    iterate_row_groups,
    read_table,
    sha256_of,
    stream_table,
    write_table,
)
from mlclipsim.datasets.references import StoredReferences
from mlclipsim.images import decode_image, resize, to_tensor
from mlclipsim.machines import load
from mlclipsim.shards import WHOLE, Shard
from mlclipsim.workers import worker_processes

__all__ = ["FIVE_SCALES_MIN_SIDE", "Metric", "build", "lacks", "score"]

log = logging.getLogger(__name__)

Metric = Callable[[Tensor, Tensor], Tensor]  # (distorted, reference), each (B, 3, H, W) in [0, 1] -> (B,)

# Five scales halve the image four times, and the last must hold an 11-pixel window: (11 - 1) * 2^4 + 1.
FIVE_SCALES_MIN_SIDE = 161
_OF_FIVE_SCALES = ("multi_scale_ssim", "information_weighted_ssim")
# Wang, Simoncelli and Bovik (2003), the first three of five; piq divides them by their sum.
_THREE_SCALES = (0.0448, 0.2856, 0.3001)
_DREAMSIM_SIDE = 224  # px, the one size that it takes
_CHUNK = 4  # references per task of a worker


def _piq(function: str, arguments: dict[str, Any], device: str) -> Metric:
    call = _named("piq", function)
    if isinstance(call, type):  # a network
        return call(reduction="none", **arguments).to(device)
    return partial(call, reduction="none", **arguments)


def _torchmetrics(function: str, arguments: dict[str, Any], device: str) -> Metric:
    """A class of torchmetrics, an image at a time: not all can leave a batch unreduced."""
    metric = _named("torchmetrics", function)(**arguments).to(device)
    return lambda distorted, reference: torch.stack(
        [metric(distorted[i : i + 1], reference[i : i + 1]).reshape(()) for i in range(len(distorted))]
    )


def _pyiqa(function: str, arguments: dict[str, Any], device: str) -> Metric:
    return _named("pyiqa", "create_metric")(function, device=device, **arguments)


def _dreamsim(function: str, arguments: dict[str, Any], device: str) -> Metric:
    network, _ = _named("dreamsim", function)(
        pretrained=True, device=device, cache_dir=str(_hub() / "dreamsim"), **arguments
    )
    return lambda distorted, reference: network(
        resize(reference, _DREAMSIM_SIDE), resize(distorted, _DREAMSIM_SIDE)
    )


def _mlclipsim(function: str, arguments: dict[str, Any], device: str) -> Metric:
    """What no library has: distances on the features of a machine of the catalog."""
    return _named(deep_features.__name__, function)(load(**arguments["network"])).to(device)


def _plugin(function: str, arguments: dict[str, Any], device: str) -> Metric:
    """A callable of the user's, on (reference, distorted): by name where its parameters have these names."""
    call = plugins.load(function)
    if isinstance(call, type):
        call = call(**arguments)
        call = call.to(device) if isinstance(call, nn.Module) else call
    elif arguments:
        call = partial(call, **arguments)
    if not callable(call):
        raise TypeError(f"{function}: expected a metric to call, got {type(call).__name__}; name a function")
    try:
        parameters = set(inspect.signature(getattr(call, "forward", call)).parameters)
    except ValueError:  # of what is not written in Python
        parameters = set()
    named = {"reference", "distorted"} <= parameters

    def metric(distorted: Tensor, reference: Tensor) -> Tensor:
        try:
            values = call(reference=reference, distorted=distorted) if named else call(reference, distorted)
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise RuntimeError(
                f"{function} failed on images {tuple(distorted.shape)} ({type(error).__name__}: {reason}); "
                "mend it"
            ) from error
        if not isinstance(values, Tensor) or values.shape != distorted.shape[:1]:
            seen = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(
                f"{function}: expected a tensor of shape ({len(distorted)},), a score per image, got {seen}; "
                "do not average over the batch"
            )
        return values

    return metric


_LIBRARIES: dict[str, Callable[[str, dict[str, Any], str], Metric]] = {
    "piq": _piq,
    "torchmetrics": _torchmetrics,
    "pyiqa": _pyiqa,
    "dreamsim": _dreamsim,
    "mlclipsim": _mlclipsim,
    "plugin": _plugin,
}
_OURS = ("mlclipsim", "plugin")  # of them no package to install, nor whose version counts


def _named(module: str, name: str) -> Any:
    try:
        return attrgetter(name)(importlib.import_module(module))
    except AttributeError:
        raise ValueError(f"{module} has no function {name!r}; mend the metric's catalog entry") from None


def _hub() -> Path:
    """torch's cache of weights: ``$TORCH_HOME/hub``, by default ``~/.cache/torch/hub``."""
    return Path(torch.hub.get_dir())


def lacks(entry: dict[str, Any]) -> str | None:
    """What a catalog entry asks for and is not here, in words; None if the metric can run.

    Nothing is downloaded: ``needs`` has the command for that. ``files`` names what must lie in torch's hub
    folder, with the first digits of each sha256.
    """
    library = entry.get("library", "piq")
    if library in _LIBRARIES and library not in _OURS and importlib.util.find_spec(library) is None:
        return f"the package {library} is not installed"
    if (entry.get("arguments") or {}).get("network", ...) is None:
        return "no feature_network is chosen"
    for name, digest in (entry.get("files") or {}).items():
        path = _hub() / name
        if not path.exists():
            return f"{path} is not there"
        if digest and not sha256_of(path).startswith(digest):
            return f"the sha256 of {path} does not begin with {digest}: damaged, or another file"
    return None


def build(name: str, entry: dict[str, Any], side: int, device: str = "cpu") -> tuple[Metric, str]:
    """The callable of one catalog entry for images on ``device`` whose shorter side has ``side`` pixels, and
    its variant's name.

    Below 161 pixels MS-SSIM and IW-SSIM have no room for their five scales; they then run with three, weights
    renormalised, and the variant is named so (``ms_ssim_3``), since its values compare with no five-scale
    ones.

    Raises:
        ValueError: unknown library, function or colour.
    """
    library, function = entry.get("library", "piq"), entry.get("function", name)
    if library not in _LIBRARIES:
        raise ValueError(
            f"metric {name}: expected a library of {sorted(_LIBRARIES)}, got {library!r}; mend its catalog"
        )
    colour = entry.get("colour", "rgb")
    if colour not in ("rgb", "grey"):
        raise ValueError(
            f"metric {name}: expected colour rgb or grey, got {colour!r}; mend its catalog entry"
        )
    arguments, variant = dict(entry.get("arguments") or {}), entry.get("variant", colour)
    if function in _OF_FIVE_SCALES and side < FIVE_SCALES_MIN_SIDE:
        arguments["scale_weights"], variant = torch.tensor(_THREE_SCALES), f"{name}_3"
    metric = _LIBRARIES[library](function, arguments, device)
    if colour == "rgb":
        return metric, variant
    return lambda distorted, reference: metric(_grey(distorted), _grey(reference)), variant


def _grey(images: Tensor) -> Tensor:
    luma = images.new_tensor([0.299, 0.587, 0.114])
    return (torch.einsum("bchw,c->bhw", images, luma) * 255).round()[:, None] / 255


def score(
    spec: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path], shard: Shard = WHOLE
) -> None:
    """Step ``baselines``: references, images -> scores, each (image, metric) once.

    ``spec``: ``metrics`` {name: catalog entry}; ``roles`` whose images are scored (default: pcmp_test, the
    only ones that a benchmark reads); ``batch_size``; ``threads``, worker processes of one torch thread each.
    A batch holds images of one reference, and chunks of references go to the workers, so that no score
    depends on other references or on the number of workers, and memory not on the number of images. A row
    group of ``scores`` is of those images in one of ``images``, sorted by metric, variant and image.

    A metric that lacks its library or weights has no row; the log says what it lacks, and whoever reads the
    scores knows its ``needs`` from the catalog. A score that is not a number stays in the table as such, and
    is reported, so that it can be counted what to exclude.

    With ``cache``, a folder, a metric's scores are kept there under what they depend on (:func:`_key`), those
    of each shard by themselves: a further metric in the list does not score the others again.
    """
    metrics = {}
    for name, entry in spec["metrics"].items():
        if reason := lacks(entry):
            log.warning("%s is not run: %s; needs %s", name, reason, entry.get("needs"))
        else:
            build(name, entry, FIVE_SCALES_MIN_SIDE)  # a wrong entry fails here, not in a worker
            metrics[name] = entry
    roles = list(spec.get("roles") or ["pcmp_test"])
    groups = _image_ids(inputs["images"], roles)
    if not groups or not metrics:
        raise ArtifactError(
            f"expected images and metrics to score, got {sum(map(len, groups.values()))} images of roles "
            f"{roles} and {len(metrics)} metrics; correct roles or metrics"
        )
    mine = [list(groups)[number] for number in shard.of(len(groups))]
    group_of = {image_id: group for group in mine for image_id in groups[group]}
    batch_size = int(spec.get("batch_size", 32))
    stored: dict[str, Path] = {}
    if spec.get("cache"):
        files = {name: sha256_of(path) for name, path in inputs.items()}
        for name, entry in metrics.items():
            key = _key(entry, files, roles, batch_size, shard)
            stored[name] = Path(spec["cache"]) / f"{name}-{key}.parquet"
    known = {name: frame for name, path in stored.items() if (frame := _recall(path)) is not None}
    new = {name: entry for name, entry in metrics.items() if name not in known}
    if known:
        log.info("scored before: %s", ", ".join(known))
    if new and mine:
        found = _score_all(new, inputs, mine, batch_size, int(spec.get("threads", 1)), group_of)
        for name, part in found.groupby("metric"):
            known[str(name)] = part
            if stored:
                write_table(stored[str(name)], part, "scores")
    with stream_table(outputs["scores"], "scores") as append:
        if mine:
            frame = pd.concat(known.values(), ignore_index=True).sort_values(
                ["metric", "variant", "image_id"], ignore_index=True
            )
            for _, part in frame.groupby(frame["image_id"].map(group_of)):
                append(part)
            for name, count in frame["score"].isna().groupby(frame["metric"]).sum().items():
                if count:
                    log.warning("%s: %d of %d scores are not numbers", name, count, len(group_of))


def _image_ids(images: Path, roles: list[str]) -> dict[int, list[str]]:
    """The images of ``roles``, by number of the row group, of those that hold any."""
    frames = iterate_row_groups(images, "images", ["image_id", "role"])
    found = {
        number: list(frame.loc[frame["role"].isin(roles), "image_id"]) for number, frame in enumerate(frames)
    }
    return {number: ids for number, ids in found.items() if ids}


def _key(
    entry: dict[str, Any], files: dict[str, str], roles: list[str], batch_size: int, shard: Shard
) -> str:
    """Of all that a metric's scores depend on: images, metric and variant, this code, the libraries."""
    keys = ("library", "function", "arguments", "colour", "variant", "plugin")
    asked = {name: entry.get(name) for name in keys}
    shown = {name: entry.get(name) for name in ("higher_is_better", "class")}
    library = entry.get("library", "piq")
    packages = {"torch", "torchvision", library}.difference(_OURS)
    versions = {name: importlib.metadata.version(name) for name in packages}
    code = [sha256_of(Path(path)) for path in (__file__, deep_features.__file__, inspect.getfile(resize))]
    everything = [asked, shown, entry.get("files"), versions, code, files, sorted(roles), batch_size]
    everything += [shard.number, shard.count]
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()[:16]


def _recall(path: Path) -> pd.DataFrame | None:
    try:
        return read_table(path, "scores") if path.exists() else None
    except ArtifactError as error:
        log.warning("%s; its scores are made again", error)
        return None


def _score_all(
    metrics: dict[str, dict[str, Any]],
    inputs: dict[str, Path],
    groups: list[int],
    batch_size: int,
    workers: int,
    wanted: Collection[str],
) -> pd.DataFrame:
    results = worker_processes(workers)(
        joblib.delayed(_score_chunk)(metrics, batch_size, chunk) for chunk in _chunks(inputs, groups, wanted)
    )
    parts = []
    with tqdm(total=len(wanted), desc="scores", unit="image") as progress:
        for part in results:
            parts.append(part)
            progress.update(part["image_id"].nunique())
    return pd.concat(parts, ignore_index=True)


_Stored = tuple[str, bytes, list[tuple[str, bytes]]]  # reference_id, its image, (image_id, image) of each


def _chunks(inputs: dict[str, Path], groups: list[int], wanted: Collection[str]) -> Iterator[list[_Stored]]:
    """References with their images, some at a time, of some row groups; no reference stands in two."""
    references = StoredReferences(inputs["references"])
    columns = ["reference_id", "image_id", "image"]
    for frame in iterate_row_groups(inputs["images"], "images", columns, numbers=groups):
        rows = (row for row in frame[columns].itertuples(index=False, name=None) if row[1] in wanted)
        by_reference = groupby(rows, key=itemgetter(0))
        while chunk := [
            (reference_id, references.get(reference_id), [row[1:] for row in images])
            for reference_id, images in islice(by_reference, _CHUNK)
        ]:
            yield chunk


def _score_chunk(metrics: dict[str, dict[str, Any]], batch_size: int, chunk: list[_Stored]) -> pd.DataFrame:
    torch.set_num_threads(1)
    built: dict[int, dict[str, tuple[Metric, str]]] = {}
    parts = []
    for reference_id, stored, images in chunk:
        reference = decode_image(stored)
        side = min(reference.shape[:2])
        if side not in built:
            built[side] = {name: build(name, entry, side) for name, entry in metrics.items()}
        for start in range(0, len(images), batch_size):
            ids, data = zip(*images[start : start + batch_size], strict=True)
            arrays = [decode_image(image) for image in data]
            for array in arrays:
                if array.shape != reference.shape:
                    raise ArtifactError(
                        f"expected {reference_id} and its images in one size, got {reference.shape}, "
                        f"{array.shape}; make the images again"
                    )
            x = to_tensor(np.stack(arrays))
            y = to_tensor(reference).expand_as(x)
            for name, (metric, variant) in built[side].items():
                with torch.inference_mode():
                    values = _values(metric, x, y).double().numpy()
                parts.append(
                    pd.DataFrame(
                        {
                            "image_id": ids,
                            "metric": name,
                            "variant": variant,
                            "score": values,
                            "higher_is_better": bool(metrics[name].get("higher_is_better", True)),
                            "class": metrics[name].get("class", "fidelity"),
                        }
                    )
                )
    return pd.concat(parts, ignore_index=True)


def _values(metric: Metric, distorted: Tensor, reference: Tensor) -> Tensor:
    """A value per image, (B,)."""
    try:
        return metric(distorted, reference).reshape(-1)
    except torch.linalg.LinAlgError:  # IW-SSIM inverts a covariance, which a plain image makes singular
        if len(distorted) == 1:
            return distorted.new_full((1,), torch.nan)
        return torch.cat(
            [_values(metric, *pair) for pair in zip(distorted.split(1), reference.split(1), strict=True)]
        )
