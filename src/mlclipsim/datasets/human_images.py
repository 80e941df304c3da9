"""The step that turns a data set of opinions, people's or machines', into the tables that all else reads.

Its images take the form that PCMP's have, so that the networks and metrics that run on PCMP run on them too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from mlclipsim import plugins
from mlclipsim.artifacts import ArtifactError, stream_table
from mlclipsim.datasets import bapps, csiq, live, tabulated, tid2013_rederived
from mlclipsim.datasets.opinions import Opinions, Rated, Source
from mlclipsim.images import encode_image, read_image
from mlclipsim.pcmp.match import psnr_db

__all__ = ["READERS", "build", "load", "pixels"]


def _plugin(entry: dict[str, Any]) -> Opinions:
    opinions = plugins.load(entry["function"])(entry)
    if not isinstance(opinions, Opinions):
        raise TypeError(
            f"{entry['function']}: expected mlclipsim.datasets.opinions.Opinions, got "
            f"{type(opinions).__name__}; return those"
        )
    return opinions


READERS: dict[str, Callable[[dict[str, Any]], Opinions]] = {
    "live": live.read,
    "csiq": csiq.read,
    "tid2013_rederived": tid2013_rederived.read,
    "bapps": bapps.read,
    "tabulated": tabulated.read,
    "plugin": _plugin,
}
_CHUNK = 64  # rows per row group


def build(spec: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path]) -> None:
    """Step: -> ``references``, ``images``, ``ratings``, ``comparisons``, by reference and image.

    ``spec["dataset"]`` has ``name`` and ``entry``, of the catalog. The images' ``role`` is the name, their
    ``family`` the type of distortion; what only PCMP knows of an image is empty. ``ratings`` has a row per
    rated image, ``comparisons`` one per pair that people compared.

    Raises:
        ArtifactError: tables or images are missing, or of another layout than the authors distribute.
    """
    name = spec["dataset"]["name"]
    opinions = load(name, spec["dataset"]["entry"])
    missing = [path for path in opinions.files() if not path.is_file()]
    if missing:
        raise ArtifactError(
            f"{name}: {len(missing)} images are not there, e.g. {missing[0]}; "
            f"`mlclipsim check-data {name}` lists them"
        )
    images = sorted(opinions.images, key=attrgetter("reference_id", "image_id"))
    with (
        stream_table(outputs["ratings"], "ratings") as append_ratings,
        stream_table(outputs["comparisons"], "human_comparisons") as append_comparisons,
        stream_table(outputs["references"], "references") as append_references,
        stream_table(outputs["images"], "images") as append_images,
        tqdm(total=len(images), desc=name, unit="image") as progress,
    ):
        ratings, comparisons = _Rows(append_ratings), _Rows(append_comparisons)
        references, rows = _Rows(append_references), _Rows(append_images)
        for pair in sorted(opinions.pairs, key=attrgetter("pair_id")):
            comparisons.add(asdict(pair))
        for reference_id, group in groupby(images, key=attrgetter("reference_id")):
            of_reference = list(group)
            reference = pixels(of_reference[0].reference)
            references.add(_reference_row(name, reference_id, reference))
            rows.add(*(_image_row(name, image, reference) for image in of_reference))
            for image in of_reference:
                if np.isfinite(image.rating):
                    ratings.add(_rating_row(image, opinions.higher_is_better))
                progress.update()
        for table in (ratings, comparisons, references, rows):
            table.flush()


def load(name: str, entry: dict[str, Any]) -> Opinions:
    """What people said of a data set's images.

    Raises:
        ValueError: the entry's reader is not one of :data:`READERS`.
        ArtifactError: ids that are not unique, or what the reader raises.
    """
    reader = entry["reader"]
    if reader not in READERS:
        raise ValueError(f"data set {name!r}: expected a reader of {', '.join(READERS)}, got {reader!r}")
    opinions = READERS[reader](entry)
    if len({image.image_id for image in opinions.images}) < len(opinions.images):
        raise ArtifactError(f"{name}: expected each image once, its table has some twice; fetch it again")
    return opinions


def pixels(source: Source) -> np.ndarray:
    """The image behind a source, uint8 ``(H, W, 3)``."""
    return read_image(source) if isinstance(source, Path) else source()


class _Rows:
    """Rows of a table, written a chunk at a time; what is added at once stays in one."""

    def __init__(self, append: Callable[[pd.DataFrame], None]) -> None:
        self._append = append
        self._rows: list[dict[str, Any]] = []

    def add(self, *rows: dict[str, Any]) -> None:
        self._rows.extend(rows)
        if len(self._rows) >= _CHUNK:
            self.flush()

    def flush(self) -> None:
        if self._rows:
            self._append(pd.DataFrame(self._rows))
            self._rows = []


def _rating_row(image: Rated, higher_is_better: bool) -> dict[str, Any]:
    return {
        "image_id": image.image_id,
        "reference_id": image.reference_id,
        "distortion": image.distortion,
        "rating": image.rating,
        "higher_is_better": higher_is_better,
    }


def _reference_row(name: str, reference_id: str, reference: np.ndarray) -> dict[str, Any]:
    return {
        "reference_id": reference_id,
        "photograph": reference_id,
        "role": name,
        "label": -1,
        "caption": None,
        "image": encode_image(reference),
    }


def _image_row(name: str, image: Rated, reference: np.ndarray) -> dict[str, Any]:
    distorted = pixels(image.distorted)
    if distorted.shape != reference.shape:
        raise ArtifactError(
            f"{name}: expected {image.image_id} in the size of its reference, {reference.shape}, got "
            f"{distorted.shape}; fetch the data set again"
        )
    return {
        "image_id": image.image_id,
        "reference_id": image.reference_id,
        "role": name,
        "target_db": np.nan,
        "family": image.distortion,
        "photometric": None,
        "strength": np.nan,
        "psnr_db": psnr_db(reference, distorted),
        "evaluations": 0,
        "image": encode_image(distorted),
    }
