"""Read PCMP back, from the workflow's folders or from a published data set."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pyarrow as pa

from mlclipsim.artifacts import SCHEMAS, ArtifactError, read_table
from mlclipsim.pcmp import release

__all__ = ["TABLES", "load"]

# What there is; columns are in mlclipsim.artifacts.SCHEMAS. The workflow keeps each as <table>.parquet. A
# published data set lacks predictions and keeps references and images in shards, labels beside the pairs.
TABLES = ("partition", "references", "images", "pairs", "drops", "predictions", "voters", "votes", "labels")


def load(
    *folders: Path | str, tables: Iterable[str] = ("pairs", "labels", "votes", "voters"), pixels: bool = False
) -> dict[str, pd.DataFrame]:
    """The tables of PCMP, each from the first of ``folders`` that has it.

    Args:
        folders: where to look, in order: the workflow keeps each step's files in a folder of their own, a
            published data set (``mlclipsim pcmp export``) keeps all in one.
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
        frame = next(
            (f for f in (_read(Path(folder), table, pixels) for folder in folders) if f is not None), None
        )
        if frame is None:
            looked = ", ".join(str(folder) for folder in folders) or "no folder"
            raise ArtifactError(f"{table}.parquet is not in {looked}; build PCMP first or name its folder")
        frames[table] = frame if pixels else frame.drop(columns="image", errors="ignore")
    return frames


def _read(folder: Path, table: str, pixels: bool) -> pd.DataFrame | None:
    """The table, None where ``folder`` does not have it."""
    if release.is_release(folder):
        if table == "predictions":
            return None
        frame = _published(folder, table, pixels)
        names = [f.name for f in SCHEMAS[table] if pa.types.is_dictionary(f.type)]
        return frame.astype(dict.fromkeys(names, object))  # as `read_table` gives them
    path = folder / f"{table}.parquet"
    return read_table(path, table) if path.is_file() else None


def _published(folder: Path, table: str, pixels: bool) -> pd.DataFrame:
    description = release.Description.read(folder)
    if table in ("references", "images"):
        return _images(folder, description, table, pixels)
    n_folds = len(description.folds)
    stored = "pairs" if table == "labels" else table
    frame = _frame(folder / f"{stored}.parquet", release.schema(stored, n_folds))
    if table == "labels":
        return _labels(frame, n_folds)
    return frame[SCHEMAS["pairs"].names] if table == "pairs" else frame


def _images(folder: Path, description: release.Description, table: str, pixels: bool) -> pd.DataFrame:
    """References, or the distorted images: with their pixels from the shards, else from the recipe."""
    names = [name for name in SCHEMAS[table].names if pixels or name != "image"]
    if pixels:
        absent = [name for name in release.shard_names(description) if not (folder / name).is_file()]
        if absent:
            raise ArtifactError(
                f"{folder} has no {absent[0]}; build it with `mlclipsim pcmp verify --rebuild`, or load "
                "without pixels"
            )
        paths = [folder / name for name in release.shard_names(description)]
    else:
        paths = [folder / "recipe.parquet"]
    declared = release.schema("images" if pixels else "recipe")
    columns = list(dict.fromkeys([*names, "family"]))
    parts = []
    for path in paths:
        frame = _frame(path, declared, columns)
        frame = frame[frame["family"].isna() == (table == "references")]
        if pixels:
            frame = frame.assign(image=[image["bytes"] for image in frame["image"]])
        parts.append(frame[names])
    kinds = {"photometric": "bool", "evaluations": "int32"} if table == "images" else {"label": "int32"}
    return pd.concat(parts, ignore_index=True).astype(kinds)


def _labels(pairs: pd.DataFrame, n_folds: int) -> pd.DataFrame:
    """One row per (pair, fold, group) that has a label, as the workflow's ``labels``."""
    parts = []
    for fold, group, columns in release.label_columns(n_folds):
        part = pairs[["pair_id", *columns]].dropna(subset=columns[0])
        part = part.set_axis(["pair_id", "label", "n_votes", "n_families"], axis=1)
        parts.append(part.assign(fold=fold, group=group).astype({"n_votes": "int32", "n_families": "int32"}))
    frame = pd.concat(parts, ignore_index=True).astype({"fold": "int32"})
    return frame[SCHEMAS["labels"].names]


def _frame(path: Path, declared: pa.Schema, columns: list[str] | None = None) -> pd.DataFrame:
    with release.open_table(path, declared) as stored:
        return stored.read(columns=columns).to_pandas()
