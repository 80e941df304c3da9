"""The reference images, on which everything acts, each made from a photograph with one role."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from mlclipsim.artifacts import ArtifactError, iterate_row_groups, stream_table, write_table
from mlclipsim.datasets.partition import assign_roles, check_partition, duplicate_groups, fingerprint
from mlclipsim.images import encode_image, read_image
from mlclipsim.places import locate
from mlclipsim.randomness import generator

__all__ = ["StoredReferences", "build", "class_labels", "image_files", "square"]

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
_CHUNK = 64  # references per row group


def build(spec: dict[str, Any], inputs: dict[str, Path], outputs: dict[str, Path]) -> None:
    """Step: -> ``partition``, ``references``.

    ``spec["references"]`` has ``size`` (px), ``roles`` (role -> how many) and ``dataset``, the source's
    catalog entry, whose ``reader`` is ``scenes`` (rendered) or ``photographs`` (a folder, with a table of
    labels if it has one).

    Raises:
        ValueError: an unknown reader or role, or fewer photographs than asked for.
        ArtifactError: a folder or table that is missing, or photographs that overlap between roles.
    """
    settings = spec["references"]
    reader = settings["dataset"]["reader"]
    if reader == "scenes":
        partition, references = _scenes(settings, spec["seed"])
    elif reader == "photographs":
        partition, references = _photographs(settings, spec["seed"])
    else:
        raise ValueError(f"reader {reader!r} of references is unknown, expected scenes or photographs")
    write_table(outputs["partition"], partition, "partition")
    total = sum(settings["roles"].values())
    rows: list[dict[str, Any]] = []
    with (
        stream_table(outputs["references"], "references") as append,
        tqdm(total=total, desc="references", unit="image") as progress,
    ):
        for row in references:
            rows.append(row)
            progress.update()
            if len(rows) == _CHUNK:
                append(pd.DataFrame(rows))
                rows = []
        if rows:
            append(pd.DataFrame(rows))


def _scenes(settings: dict[str, Any], seed: int) -> tuple[pd.DataFrame, Iterator[dict[str, Any]]]:
    """Rendered scenes; each takes its role from the photograph behind it, and these take turns."""
    from mlclipsim.world import scenes

    prints = {name: fingerprint(scenes.load_photograph(name)) for name in scenes.PHOTOGRAPHS}
    partition = pd.DataFrame(
        [(name, prints[name].sha256, role) for name, role in scenes.PHOTOGRAPHS.items()],
        columns=["photograph", "sha256", "role"],
    )
    check_partition(partition, duplicate_groups(list(prints.values())))
    behind = {
        role: sorted(n for n, r in scenes.PHOTOGRAPHS.items() if r == role) for role in settings["roles"]
    }
    empty = sorted(role for role, names in behind.items() if not names)
    if empty:
        known = ", ".join(sorted(set(scenes.PHOTOGRAPHS.values())))
        raise ValueError(f"no photograph plays the roles {empty}, so no scene can; expected some of {known}")

    def references() -> Iterator[dict[str, Any]]:
        for role, count in settings["roles"].items():
            for number in range(count):
                photograph = behind[role][number % len(behind[role])]
                rng = generator(seed, "scene", role, number)
                scene = scenes.render(rng, scenes.load_photograph(photograph), settings["size"])
                yield {
                    "reference_id": f"scene-{role}-{number:06d}",
                    "photograph": photograph,
                    "role": role,
                    "label": scene.label,
                    "caption": scene.caption,
                    "image": encode_image(scene.image),
                }

    return partition, references()


def _photographs(settings: dict[str, Any], seed: int) -> tuple[pd.DataFrame, Iterator[dict[str, Any]]]:
    """Photographs of a folder, cropped to the reference size; named like their files, without the suffix."""
    entry, size = settings["dataset"], settings["size"]
    folder = locate(entry["path"])
    files = image_files(folder)
    labels = class_labels(folder / entry["labels"], files) if entry.get("labels") else None
    counts = {role: int(n) for role, n in settings["roles"].items()}
    prints = [
        fingerprint(read_image(path)) for path in tqdm(files.values(), desc="fingerprints", unit="image")
    ]
    partition = assign_roles(list(files), prints, counts, seed)
    check_partition(partition)

    def references() -> Iterator[dict[str, Any]]:
        for row in partition[partition["first"]].itertuples(index=False):
            label, words = labels[row.photograph] if labels else (-1, None)
            yield {
                "reference_id": row.photograph,
                "photograph": row.photograph,
                "role": row.role,
                "label": label,
                "caption": f"a photo of a {words}" if words else None,
                "image": encode_image(
                    square(read_image(files[row.photograph]), size, str(files[row.photograph]))
                ),
            }

    return partition.drop(columns="first"), references()


def image_files(folder: Path) -> dict[str, Path]:
    """name -> path of the images in ``folder/images``, else in ``folder`` itself, sorted by name."""
    if not folder.is_dir():
        raise ArtifactError(
            f"the folder of photographs {folder} is not there; fetch it or set MLCLIPSIM_ASSETS"
        )
    inner = folder / "images"
    paths = sorted(
        p for p in (inner if inner.is_dir() else folder).iterdir() if p.suffix.lower() in _SUFFIXES
    )
    files = {path.stem: path for path in paths}
    if not files or len(files) < len(paths):
        problem = "two images of one name" if files else "no image"
        raise ArtifactError(
            f"{folder}: expected images with distinct names, found {problem}; correct the folder"
        )
    return files


def class_labels(path: Path, files: dict[str, Path]) -> dict[str, tuple[int, str]]:
    """name -> (class index, name of the class), from filename, class_index and class_name of a table."""
    try:
        table = pd.read_csv(path)
        table = table.assign(name=table["filename"].map(lambda name: Path(name).stem)).set_index("name")
        labels = {
            name: (int(table.at[name, "class_index"]), str(table.at[name, "class_name"]).split(",")[0])
            for name in files
        }
    except FileNotFoundError as error:
        raise ArtifactError(
            f"the labels {path} are not there; fetch them or set labels: null in the catalog"
        ) from error
    except KeyError as error:
        raise ArtifactError(
            f"{path}: expected filename, class_index and class_name for every image, found no {error}; "
            "correct the table"
        ) from error
    return labels


def square(image: np.ndarray, size: int, name: str = "image") -> np.ndarray:
    """The central ``size`` x ``size`` of a uint8 ``(H, W, 3)`` image, reduced before where it is much larger.

    Up to 8/7 of the size (256 for 224, the usual margin of ImageNet evaluation) it is cropped and not
    resampled; a larger one is reduced to that size first, by Pillow's antialiased bicubic. Nothing is ever
    enlarged.

    Raises:
        ValueError: the image is smaller than ``size``.
    """
    short = min(image.shape[:2])
    if short < size:
        raise ValueError(
            f"{name}: expected at least {size} pixels on each side, got {image.shape[1]}x{image.shape[0]}"
        )
    margin = size * 8 // 7
    if short > margin:
        shape = tuple(round(side * margin / short) for side in image.shape[:2])
        image = np.asarray(Image.fromarray(image).resize(shape[::-1], Image.Resampling.BICUBIC))
    top, left = ((side - size) // 2 for side in image.shape[:2])
    return image[top : top + size, left : left + size]


class StoredReferences:
    """The images of a ``references`` table by id, as stored bytes; in memory is one row group at a time.

    Cheap where they are asked for in the table's order, wherever in it that begins.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        ids = iterate_row_groups(path, "references", ["reference_id"])
        self._group_of = {name: number for number, frame in enumerate(ids) for name in frame["reference_id"]}
        self._group = -1
        self._images: dict[str, bytes] = {}

    def get(self, reference_id: str) -> bytes:
        """The image of one reference.

        Raises:
            ArtifactError: the table has no such reference.
        """
        group = self._group_of.get(reference_id)
        if group is None:
            raise ArtifactError(
                f"{self.path}: lacks the reference {reference_id}; make references and images again"
            )
        if group != self._group:
            columns = ["reference_id", "image"]
            (frame,) = iterate_row_groups(self.path, "references", columns, numbers=[group])
            self._images = dict(zip(frame["reference_id"], frame["image"], strict=True))
            self._group = group
        return self._images[reference_id]
