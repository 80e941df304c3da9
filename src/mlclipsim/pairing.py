"""Which distorted image file belongs to which reference: by name, never by order.

A file's name is its path below its folder without the extension, so ``a/b.png`` pairs with ``a/b.webp``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["SUFFIXES", "Pair", "pair_files"]

#: what counts as an image in a folder; single files are read whatever they are called
SUFFIXES = (
    ".avif",
    ".bmp",
    ".gif",
    ".jp2",
    ".jpeg",
    ".jpg",
    ".pgm",
    ".png",
    ".ppm",
    ".tif",
    ".tiff",
    ".webp",
)


@dataclass(frozen=True)
class Pair:
    """A distorted image file and its reference, under the name that they share."""

    name: str
    reference: Path
    distorted: Path


def pair_files(reference: Path, distorted: Path) -> tuple[list[Pair], list[str]]:
    """Pairs in the order of their names, and one line for each file that has no partner.

    Two files make one pair, two folders those of equal names (subfolders too; hidden files and folders
    are left out), and one reference file goes with every image of a folder.

    Raises:
        FileNotFoundError: nothing at one of the paths.
        ValueError: a folder of references for one distorted file, a folder without images, a name that
            several files of a folder have, or folders without a common name.
    """
    for path in (reference, distorted):
        if not path.exists():
            raise FileNotFoundError(f"{path}: expected an image file or a folder of them, found nothing")
    if not distorted.is_dir():
        if reference.is_dir():
            raise ValueError(
                f"{reference} is a folder but {distorted} one file, expected two files, two folders, or one "
                "reference and a folder; name the reference file"
            )
        return [Pair(distorted.stem, reference, distorted)], []
    others = _by_name(distorted)
    if not reference.is_dir():
        return [Pair(name, reference, path) for name, path in sorted(others.items())], []
    references = _by_name(reference)
    common = sorted(references.keys() & others.keys())
    if not common:
        raise ValueError(
            f"{reference} and {distorted} have no name in common ({min(references)}, ... and "
            f"{min(others)}, ...); names are paths below the folder without extension, make them agree"
        )
    unpaired = [
        f"{path}: unpaired, no image named {name} in {folder}"
        for files, rest, folder in ((references, others, distorted), (others, references, reference))
        for name, path in sorted(files.items())
        if name not in rest
    ]
    return [Pair(name, references[name], others[name]) for name in common], unpaired


def _by_name(folder: Path) -> dict[str, Path]:
    """The images below a folder by name."""
    found: dict[str, list[Path]] = {}
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(parent, file) for file in files if not file.startswith(".")):
            if path.suffix.lower() in SUFFIXES:
                found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), []).append(path)
    if not found:
        raise ValueError(f"{folder} holds no images; expected files ending in {', '.join(SUFFIXES)}")
    ambiguous = [" and ".join(sorted(map(str, paths))) for paths in found.values() if len(paths) > 1]
    if ambiguous:
        raise ValueError(
            f"expected one image of a name in {folder}, but {'; '.join(sorted(ambiguous))} differ in the "
            "extension only; move or rename one of each"
        )
    return {name: paths[0] for name, paths in found.items()}
