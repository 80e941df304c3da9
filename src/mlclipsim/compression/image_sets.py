"""The images that codecs are compared on, with what is known of them, and how they are coded.

A set is named by its catalog entry (config/catalog/datasets.yaml):

- ``scenes``: rendered over the photographs of the role ``rate_task_test``; with classes, boxes and masks.
- the source of the run's references: those of the role ``rate_task_test``, with their classes.
- any other folder of photographs, whole and at their own size; with COCO's boxes and masks where it has them.

Small images are coded as mosaics, since on 64 px a codec's header outweighs the rest; machines see each image
by itself all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mlclipsim.artifacts import ArtifactError, read_json, read_table
from mlclipsim.datasets.references import image_files
from mlclipsim.images import decode_image, read_image
from mlclipsim.machines.detector import Boxes
from mlclipsim.places import locate

__all__ = ["IGNORED", "ROLE", "ImageSet", "join", "load_set", "split"]

ROLE = "rate_task_test"
IGNORED = 255  # in a map of classes: not annotated

# COCO's category ids, in the order of PASCAL VOC's classes 1 to 20: what its segmenters know.
_VOC = (5, 2, 16, 9, 44, 6, 3, 17, 62, 21, 67, 18, 19, 4, 1, 64, 20, 63, 7, 72)


@dataclass(frozen=True)
class ImageSet:
    """Images, uint8 ``(H, W, 3)``, and the ground truth of each; None where it has none.

    Attributes:
        truth: by task: the class (int), :class:`Boxes` that all score 1, or a map of classes (H, W) uint8 in
            which :data:`IGNORED` is not annotated.
        columns: images are coded in mosaics of ``columns`` x ``columns``.
    """

    name: str
    ids: list[str]
    images: list[np.ndarray]
    columns: int = 1
    truth: dict[str, list[Any]] = field(default_factory=dict)

    def units(self) -> list[tuple[str, np.ndarray]]:
        """What is coded at a time, with its name."""
        if self.columns == 1:
            return list(zip(self.ids, self.images, strict=True))
        joined = join(self.images, self.columns)
        return [(f"mosaic-{number:03d}", image) for number, image in enumerate(joined)]

    def unit_ids(self) -> list[str]:
        """The unit that each image is coded in."""
        each = self.columns**2
        return [unit for unit, _ in self.units() for _ in range(each)]

    def apart(self, units: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The images out of decoded units."""
        return list(units) if self.columns == 1 else split(units, self.columns)


def join(images: Sequence[np.ndarray], columns: int) -> list[np.ndarray]:
    """Mosaics of ``columns`` x ``columns`` images of one size, row by row.

    Raises:
        ValueError: images are left over.
    """
    each = columns**2
    if len(images) % each:
        raise ValueError(
            f"mosaics of {columns}x{columns}: expected a multiple of {each} images, got {len(images)}; "
            "change their count"
        )
    return [
        np.vstack(
            [np.hstack(images[start + row * columns : start + (row + 1) * columns]) for row in range(columns)]
        )
        for start in range(0, len(images), each)
    ]


def split(mosaics: Sequence[np.ndarray], columns: int) -> list[np.ndarray]:
    """The images that :func:`join` put together."""
    return [
        np.ascontiguousarray(image)
        for mosaic in mosaics
        for row in np.vsplit(mosaic, columns)
        for image in np.hsplit(row, columns)
    ]


def load_set(settings: dict[str, Any], seed: int, references: Path) -> ImageSet:
    """One set of the config.

    Args:
        settings: ``source``, its catalog ``entry``, ``count`` (None: all) and ``columns``; ``references``:
            whether it is the source of the run's references.
        seed: of the run.
        references: the run's table of references.

    Raises:
        ArtifactError: a folder or its annotations are missing, or there are fewer images than asked for.
    """
    entry, count = settings["entry"], settings["count"]
    if entry["reader"] == "scenes":
        found = _scenes(count, seed)
    elif settings["references"]:
        found = _references(references, count)
    else:
        found = _folder(settings["source"], locate(entry["path"]), count)
    if len(found.ids) < (count or 1):
        raise ArtifactError(
            f"{settings['source']}: expected {count or 'some'} images to code, found {len(found.ids)}; "
            f"add them (of role {ROLE}), or lower rate_task.images"
        )
    return ImageSet(settings["source"], found.ids, found.images, settings["columns"], found.truth)


def _scenes(count: int, seed: int) -> ImageSet:
    from mlclipsim.world.pool import render_pool

    pool = render_pool(ROLE, count, seed)
    boxes = []
    for objects, corners in zip(pool.objects, pool.boxes, strict=True):
        drawn = objects[:, 0] >= 0
        boxes.append(_known(corners[drawn], objects[drawn, 0]))
    return ImageSet(
        "scenes",
        [f"scene-{ROLE}-{number:06d}" for number in range(count)],
        list(pool.images),
        truth={
            "classification": pool.labels.tolist(),
            "detection": boxes,
            "segmentation": list(pool.semantic),
        },
    )


def _known(corners: Any, labels: Any) -> Boxes:
    return Boxes(
        np.asarray(corners, float).reshape(-1, 4), np.ones(len(labels)), np.asarray(labels).astype(int)
    )


def _references(path: Path, count: int | None) -> ImageSet:
    columns = ["reference_id", "role", "label", "image"]
    table = read_table(path, "references", columns)
    table = table[table["role"] == ROLE].head(count)
    labels = [int(label) if label >= 0 else None for label in table["label"]]
    return ImageSet(
        "references",
        list(table["reference_id"]),
        [decode_image(data) for data in table["image"]],
        truth={"classification": labels},
    )


def _folder(name: str, folder: Path, count: int | None) -> ImageSet:
    """Photographs by name; ``instances.json`` and ``semantic_masks/<name>.png`` are COCO's annotations."""
    files = dict(list(image_files(folder).items())[:count])
    truth: dict[str, list[Any]] = {}
    if (folder / "instances.json").is_file():
        truth["detection"] = _coco_boxes(folder / "instances.json", list(files))
    if (folder / "semantic_masks").is_dir():
        truth["segmentation"] = [_voc_map(folder / "semantic_masks" / f"{stem}.png") for stem in files]
    return ImageSet(name, list(files), [read_image(path) for path in files.values()], truth=truth)


def _coco_boxes(path: Path, names: list[str]) -> list[Boxes]:
    """Labels count the categories from 0, as detectors of COCO's 80 classes do."""
    annotations = read_json(path)
    place = {category["id"]: number for number, category in enumerate(annotations["categories"])}
    names_of = {image["id"]: Path(image["file_name"]).stem for image in annotations["images"]}
    rows: dict[str, list[tuple[list[float], int]]] = {name: [] for name in names}
    for one in annotations["annotations"]:
        left, top, width, height = one["bbox"]
        corners = [left, top, left + width, top + height]
        rows.get(names_of[one["image_id"]], []).append((corners, place[one["category_id"]]))
    return [_known([c for c, _ in rows[name]], [label for _, label in rows[name]]) for name in names]


def _voc_map(path: Path) -> np.ndarray | None:
    """COCO's map of categories as PASCAL VOC's classes; what VOC does not know is background."""
    if not path.is_file():
        return None
    with Image.open(path) as image:
        categories = np.asarray(image)
    classes = np.zeros(256, np.uint8)
    classes[list(_VOC)] = np.arange(1, len(_VOC) + 1)
    classes[0] = IGNORED
    return classes[categories]
