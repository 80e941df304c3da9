"""Read PCMP back."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from mlclipsim.artifacts import ArtifactError, read_table

__all__ = ["TABLES", "load"]

# File names (<table>.parquet) and what each holds; columns are in mlclipsim.artifacts.SCHEMAS.
TABLES = ("references", "images", "pairs", "drops", "predictions", "voters", "votes", "labels")


def load(
    *folders: Path | str, tables: Iterable[str] = ("pairs", "labels", "votes", "voters"), pixels: bool = False
) -> dict[str, pd.DataFrame]:
    """The tables of PCMP, each found as ``<table>.parquet`` in one of ``folders``.

    Args:
        folders: where to look, in order: the workflow keeps each step's files in a folder of their own, a
            published data set keeps all in one.
        tables: which ones, of :data:`TABLES`.
        pixels: whether references and images come with their encoded pixels (see
            ``mlclipsim.images.decode_image``).

    Raises:
        ValueError: an unknown table.
        ArtifactError: a table that is in none of the folders, or damaged.
    """
    frames = {}
    for table in tables:
        if table not in TABLES:
            raise ValueError(f"PCMP has no table {table!r}; expected one of {', '.join(TABLES)}")
        path = next(
            (Path(f) / f"{table}.parquet" for f in folders if (Path(f) / f"{table}.parquet").is_file()), None
        )
        if path is None:
            looked = ", ".join(str(folder) for folder in folders) or "no folder"
            raise ArtifactError(f"{table}.parquet is not in {looked}; build PCMP first or name its folder")
        frame = read_table(path, table)
        frames[table] = frame if pixels else frame.drop(columns="image", errors="ignore")
    return frames
