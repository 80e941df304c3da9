"""Is a data set of the catalog there, complete and sound? What is missing or damaged, a sentence each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mlclipsim.artifacts import ArtifactError, sha256_of
from mlclipsim.datasets.human_images import READERS, load, pixels
from mlclipsim.images import ImageError
from mlclipsim.places import locate

__all__ = ["check", "incomplete"]

_SHOWN = 5  # files of a kind that are named; the others are counted


def check(name: str, entry: dict[str, Any]) -> list[str]:
    """What is wrong with a data set; nothing if it is sound.

    Checked are the catalog's ``tree`` (numbers of files by pattern) and ``sha256`` (by file) and, of sets
    that people judged, every image that their tables name: whether it is there, decodes, and has its
    reference's size. Reads every pixel: a minute per some thousand images.
    """
    if entry.get("path") is None:
        return []  # rendered by the package
    folder = locate(entry["path"])
    if not folder.is_dir():
        if entry.get("url") or entry.get("remote"):
            return [f"{folder} is not there; `mlclipsim fetch {name}` gets it"]
        where = f" from {entry['address']}" if entry.get("address") else ""
        return [f"{folder} is not there; get {name}{where} (needs: {entry.get('needs', 'a download')})"]
    return incomplete(folder, entry) + (list(_judged(name, entry)) if entry["reader"] in READERS else [])


def incomplete(folder: Path, entry: Mapping[str, Any]) -> list[str]:
    """Which files of a data set are not there or others, without a look at the images themselves."""
    return [*_tree(folder, entry.get("tree") or {}), *_checksums(folder, entry.get("sha256") or {})]


def _tree(folder: Path, tree: dict[str, int]) -> Iterator[str]:
    for pattern, expected in tree.items():
        found = sum(1 for _ in folder.glob(pattern))
        if found != expected:
            yield f"{folder / pattern}: expected {expected} files, found {found}"


def _checksums(folder: Path, sums: dict[str, str]) -> Iterator[str]:
    for file, expected in sums.items():
        path = folder / file
        if not path.is_file():
            yield f"{path} is not there"
        elif (found := sha256_of(path)) != expected:
            yield f"{path} has sha256 {found}, expected {expected}; it is damaged or another version"


def _judged(name: str, entry: dict[str, Any]) -> Iterator[str]:
    try:
        opinions = load(name, entry)
    except ArtifactError as error:
        yield str(error)
        return
    missing = {path for path in opinions.files() if not path.is_file()}
    yield from _first([f"{path} is not there" for path in sorted(missing)])
    damaged: dict[str, None] = {}
    shape: tuple[int, ...] | None = None
    last = None
    for image in tqdm(sorted(opinions.images, key=lambda image: image.reference_id), desc=name, unit="image"):
        if image.reference in missing or image.distorted in missing:
            continue
        try:
            if image.reference_id != last:
                last, shape = image.reference_id, None
                shape = pixels(image.reference).shape
            if shape is not None and (found := pixels(image.distorted).shape) != shape:
                damaged[f"{image.image_id} has the shape {found}, its reference {shape}"] = None
        except (ImageError, ArtifactError) as error:
            damaged[str(error)] = None
    yield from _first(list(damaged))


def _first(problems: list[str]) -> list[str]:
    rest = len(problems) - _SHOWN
    return problems[:_SHOWN] + ([f"... and {rest} more"] if rest > 0 else [])
