"""Data sets of images in folders and ratings in tables; where and under which names, the catalog says.

TID2013, KADID-10k, PIPAL, MPD and MIQD-2.5M differ in nothing else. The entry's ``layout`` has

- ``ratings``: the table, or a pattern of several (one per reference), below ``path``
- ``columns``: what its columns are called: ``image``, ``rating`` and, where it has them, ``reference`` and
  ``distortion``; ``heads``: all of them, for a table without a row of heads; ``separator``: default a comma
- ``images``: the folder of the distorted images, searched with all folders below it for their names, which
  are unique
- ``references``: the reference's file
- ``name``: a regular expression for the names of images without suffix, with a group ``reference`` where no
  column names it, and a group ``type``
- ``types``: names of the types of distortion, which the number in the group ``type`` counts from 1
- ``only``: ``table`` and its ``column`` of the references to take; ``most_references``: of these, spread
  evenly over their sorted names
- ``choices``: ``table`` of pairs and its columns ``image_a``, ``image_b``, ``label`` (share that took A)

``{reference}`` in ``images`` and ``references`` stands for the reference as column or name give it. Cases of
letters may differ between table and files, as they do in TID2013.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pandas as pd

from mlclipsim.artifacts import ArtifactError
from mlclipsim.datasets.opinions import Compared, Folder, Opinions, Rated, read_ratings
from mlclipsim.places import locate

__all__ = ["read"]


class _Said(NamedTuple):
    """What a name says of its image."""

    reference: str | None
    type: str | None


def read(entry: dict[str, Any]) -> Opinions:
    """Ratings as published; ``opinions: dmos`` of the entry says that a larger one is worse.

    Raises:
        ArtifactError: tables are missing, or of another layout than the entry says.
        ValueError: the layout contradicts itself.
    """
    folder, layout = locate(entry["path"]), entry["layout"]
    table = _ratings(folder, layout)
    names = _Names(folder, layout)
    if "reference" not in table:
        table["reference"] = [names.read(_file(image)).reference for image in table["image"]]
        if table["reference"].isna().any():
            raise ValueError(
                f"{folder}: expected the reference in a column or in the group `reference` of `layout.name`, "
                "found neither; name one in the catalog entry"
            )
    table = table[_chosen(table["reference"], folder, layout)]
    files = cache(Folder)
    rated = []
    for row in table.to_dict("records"):
        known = {"reference": row["reference"]}
        distorted = files(folder / layout["images"].format_map(known))[_file(row["image"])]
        said = names.read(distorted.name)  # in the file's own letters
        reference = folder / layout["references"].format_map(known)
        rated.append(
            Rated(
                image_id=distorted.stem,
                reference_id=said.reference or PurePosixPath(row["reference"]).stem,
                distortion=row.get("distortion") or names.distortion(said.type, distorted.name),
                reference=files(reference.parent)[reference.name],
                distorted=distorted,
                rating=row["rating"],
            )
        )
    pairs = _choices(folder, layout["choices"], rated) if "choices" in layout else []
    return Opinions(rated, higher_is_better=entry["opinions"] != "dmos", pairs=pairs)


def _file(name: str) -> str:
    return PurePosixPath(name).name  # some tables put folders before it


def _ratings(folder: Path, layout: Mapping[str, Any]) -> pd.DataFrame:
    """All tables of ratings, with our names for the columns."""
    paths = sorted(folder.glob(layout["ratings"]))
    if not paths:
        raise ArtifactError(
            f"{folder / layout['ratings']}: expected the ratings, found no file; fetch the data set again"
        )
    ours = {theirs: name for name, theirs in layout["columns"].items()}
    options = {"sep": layout.get("separator", ","), "names": layout.get("heads")}
    rating = [layout["columns"]["rating"]]
    parts = [read_ratings(path, list(ours), rating, **options).rename(columns=ours) for path in paths]
    return pd.concat(parts, ignore_index=True)


class _Names:
    """Reads what the names of images say."""

    def __init__(self, folder: Path, layout: Mapping[str, Any]) -> None:
        self._folder = folder
        try:
            self._pattern = re.compile(layout["name"]) if "name" in layout else None
        except re.error as error:
            raise ValueError(
                f"`layout.name`: expected a regular expression, got {layout['name']!r} ({error}); correct it "
                "in the catalog entry"
            ) from error
        self._types = layout.get("types")

    def read(self, name: str) -> _Said:
        if self._pattern is None:
            return _Said(None, None)
        match = self._pattern.fullmatch(PurePosixPath(name).stem)
        if match is None:
            raise ArtifactError(
                f"{self._folder}: expected images named like {self._pattern.pattern}, got {name!r}; fetch "
                "the data set again, or correct `layout` in its catalog entry"
            )
        groups = match.groupdict()
        return _Said(groups.get("reference"), groups.get("type"))

    def distortion(self, said: str | None, name: str) -> str:
        """The type of distortion that a name says; ``any`` where names say nothing of it."""
        if said is None or self._types is None:
            return said or "any"
        if not (said.isdecimal() and 1 <= int(said) <= len(self._types)):
            raise ArtifactError(
                f"{self._folder}: expected a type of distortion from 1 to {len(self._types)}, got {said} in "
                f"{name!r}; fetch the data set again"
            )
        return self._types[int(said) - 1]


def _chosen(references: pd.Series, folder: Path, layout: Mapping[str, Any]) -> pd.Series:
    """Which rows are of the references that the layout asks for."""
    stems = references.map(lambda name: PurePosixPath(name).stem)
    names = sorted(stems.unique())
    if only := layout.get("only"):
        listed = read_ratings(folder / only["table"], [only["column"]], [])[only["column"]]
        # COCO's files are numbers in twelve digits, lists of them have the plain numbers.
        wanted = {PurePosixPath(name).stem.lstrip("0") for name in listed}
        names = [name for name in names if name.lstrip("0") in wanted]
        if not names:
            raise ArtifactError(
                f"{folder / only['table']}: expected references of the data set in {only['column']}, found "
                "none; correct `layout` in its catalog entry"
            )
    most = min(layout.get("most_references", len(names)), len(names))
    return stems.isin([names[place * len(names) // most] for place in range(most)])


def _choices(folder: Path, where: Mapping[str, str], rated: list[Rated]) -> list[Compared]:
    by_stem = {image.image_id.lower(): image for image in rated}
    columns = [where[key] for key in ("image_a", "image_b", "label")]
    table = read_ratings(folder / where["table"], columns, columns[2:])
    compared = []
    for number, (name_a, name_b, label) in enumerate(table[columns].itertuples(index=False)):
        a, b = (by_stem.get(PurePosixPath(name).stem.lower()) for name in (name_a, name_b))
        if a is None or b is None:
            continue  # of a reference that was not asked for
        if a.reference_id != b.reference_id or not 0 <= label <= 1:
            raise ArtifactError(
                f"{folder / where['table']}: expected two images of one reference and a share in [0, 1], got "
                f"{name_a}, {name_b}, {label:g}; correct `layout` in its catalog entry"
            )
        compared.append(
            Compared(f"{number:06d}", a.reference_id, a.distortion, a.image_id, b.image_id, label)
        )
    return compared
