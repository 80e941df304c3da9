"""What people, or machines, said of distorted images: the contract between the readers of such data sets and
the rest.

A reader knows how one data set lies in its folder. It gives :class:`Opinions`: every distorted image with its
reference, type of distortion and rating as published, and which way the rating points. Images are paired by
the names that the data set's own table gives, never by the order of files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlclipsim.artifacts import ArtifactError

__all__ = ["Compared", "Folder", "Opinions", "Rated", "Source", "read_ratings"]

Source = Path | Callable[[], np.ndarray]  # a file, or what renders the image: uint8 (H, W, 3)


@dataclass(frozen=True)
class Rated:
    """A distorted image and its reference."""

    image_id: str
    reference_id: str
    distortion: str
    reference: Source
    distorted: Source
    rating: float = math.nan  # as published; NaN where people compared pairs instead


@dataclass(frozen=True)
class Compared:
    """Two distorted images of one reference, between which people chose."""

    pair_id: str
    reference_id: str
    distortion: str
    image_a: str
    image_b: str
    label: float  # share of people to whom A looked closer to the reference, in [0, 1]


@dataclass(frozen=True)
class Opinions:
    """A data set as its reader found it.

    Attributes:
        images: every distorted image, once.
        higher_is_better: whether a larger rating is better quality: true of MOS, not of DMOS (differences).
        pairs: choices between two images each, where the data set has those and no ratings.
    """

    images: list[Rated]
    higher_is_better: bool = True
    pairs: list[Compared] = field(default_factory=list)

    def files(self) -> list[Path]:
        """Every image file that the data set's tables name, sorted, whether it is there or not."""
        sources = {source for image in self.images for source in (image.reference, image.distorted)}
        return sorted(source for source in sources if isinstance(source, Path))


class Folder:
    """The files of a folder, and of those in it, by name, whatever the case of its letters.

    TID2013 names i01_01_1.bmp what its table calls I01_01_1.bmp.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files: dict[str, Path] = {}
        for file in sorted(path.rglob("*")):
            if file.is_file() and (other := self._files.setdefault(file.name.lower(), file)) != file:
                raise ArtifactError(
                    f"{path}: expected one file of a name, got {other} and {file}; remove one"
                )

    def __getitem__(self, name: str) -> Path:
        """The file, or where it should be."""
        return self._files.get(name.lower(), self._path / name)


def read_ratings(path: Path, columns: Iterable[str], numbers: Iterable[str], **options: Any) -> pd.DataFrame:
    """A data set's own table of ratings, with ``columns``, of which ``numbers`` are numbers.

    Args:
        options: of ``pandas.read_csv``.

    Raises:
        ArtifactError: it is missing, damaged or of another layout.
    """
    try:
        table = pd.read_csv(path, dtype=str, skipinitialspace=True, **options)
        table.columns = [str(name).strip() for name in table.columns]
        table = table[list(columns)].apply(lambda column: column.str.strip())
        for name in numbers:
            table[name] = pd.to_numeric(table[name])
    except FileNotFoundError:
        raise ArtifactError(
            f"{path}: expected the ratings, found no file; fetch the data set again"
        ) from None
    except (KeyError, ValueError, AttributeError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ArtifactError(
            f"{path}: expected a table of {', '.join(columns)} ({reason}); fetch the data set again"
        ) from error
    if table.isna().any(axis=None):
        line = int(table.isna().any(axis=1).to_numpy().argmax()) + 1
        raise ArtifactError(
            f"{path}: expected every cell filled, row {line} is not; fetch the data set again"
        )
    return table
