"""Publish PCMP: from the workflow's tables to one folder that others download, check and extend.

Nothing grows with the number of pairs or images but files: rows are sorted on disk, images pass one by one.
The folder is made beside its place and moved there when it is whole.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mlclipsim.artifacts import ArtifactError, atomic, iterate_table, read_table, sha256_of
from mlclipsim.images import decode_image
from mlclipsim.pcmp import release
from mlclipsim.pcmp.datasheet import datasheet
from mlclipsim.pcmp.recipe import Pen, field_seed, libraries, pixel_sha256
from mlclipsim.pcmp.release import Description, label_columns, schema, write_rows
from mlclipsim.pcmp.spool import RowGroups, Spool

__all__ = [
    "STEPS",
    "describe",
    "export",
    "fill_votes",
    "shard_row",
    "staged",
    "vote_counts",
    "voter_rows",
    "write_votes",
]

STEPS = (
    "references",
    "pcmp_images",
    "pcmp_pairs",
    "predictions",
    "votes",
)  # of the workflow: who makes the tables
_NEEDED = ("partition", "references", "images", "pairs", "labels", "votes", "voters", "drops")
_ROWS = 4096


def export(
    folders: Sequence[Path | str],
    output: Path | str,
    *,
    name: str,
    preset: str,
    seed: int,
    config: dict[str, Any],
    folds: list[dict[str, list[str]]],
    version: str = "1.0.0",
    shards: int = 1,
    images: bool = True,
) -> Description:
    """Write a data set to ``output``, which must not exist.

    Args:
        folders: where the workflow's tables lie (see ``mlclipsim.pcmp.dataset``).
        seed: of the run that made them: fields are drawn from it.
        config: what each step read, kept for readers.
        folds: seen and held-out voters of each fold.
        shards: files for the images; each holds whole references, in the order of their ids.
        images: False leaves the pixels out; who has the photographs builds the same shards from the recipe.

    Raises:
        ArtifactError: a table that is missing or damaged, ids that lead nowhere, or a recipe that does not
            give the stored pixels again.
        ValueError: ``output`` exists, or there are more shards than references.
    """
    release.check_version(version)
    tables = _find(folders)
    counts: dict[str, Any] = {}
    with staged(output) as folder, Spool(folder / ".spool") as spool:
        n_folds = _fill(spool, tables)
        if n_folds != len(folds):
            raise ArtifactError(
                f"labels are of {n_folds} folds, but the configuration names {len(folds)}; pass the one that "
                "made them"
            )
        _check_ids(spool)
        outside = config.get("pcmp_images", {}).get("pcmp", {}).get("plugins", {})
        written = _write_images(spool, tables, folder, seed, shards, images, counts, outside)
        _write_pairs(spool, folder, n_folds, counts)
        counts["votes"] = vote_counts(write_votes(spool, folder))
        _write_small(tables, folder, version, counts)
        description = Description(
            name=name,
            version=version,
            layout=release.LAYOUT,
            preset=preset,
            seed=seed,
            config=config,
            folds=folds,
            includes_images=images,
            shards=written,
            counts=counts,
            libraries=libraries(),
            history=[{"version": version, "change": "first publication"}],
        )
        describe(folder, description)
    return description


@contextmanager
def staged(output: Path | str) -> Iterator[Path]:
    """Yield a folder beside ``output``; it takes that name when the block ends without an error.

    A published version never changes, so ``output`` must not exist. What a killed run has left is removed by
    the next one.
    """
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output} exists, and a published version never changes; name another folder")
    folder = output.parent / f".{output.name}.partial"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
        folder.rename(output)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    parent = os.open(output.parent, os.O_RDONLY)
    os.fsync(parent)
    os.close(parent)


def describe(folder: Path, description: Description) -> None:
    """Write description, datasheet and checksums over the tables that lie in ``folder``."""
    description.write(folder)
    voters, drops = (release.walk(folder / f"{name}.parquet", schema(name)) for name in ("voters", "drops"))
    with atomic(folder / release.DATASHEET) as temporary:
        temporary.write_text(datasheet(description, voters, drops), encoding="utf-8")
    release.sign(folder, description.files)


def _find(folders: Sequence[Path | str]) -> dict[str, list[Path]]:
    """Table -> its files: one each, but for drops, of which pairing and voting write one each."""
    found: dict[str, list[Path]] = {}
    looked = ", ".join(str(folder) for folder in folders) or "no folder"
    for table in _NEEDED:
        paths = [Path(f) / f"{table}.parquet" for f in folders if (Path(f) / f"{table}.parquet").is_file()]
        if not paths:
            raise ArtifactError(
                f"{table}.parquet is not in {looked}; run the workflow first or name its folder"
            )
        if table == "drops":  # those of pairing include those of distorting
            homes = list(dict.fromkeys(found[key][0].parent for key in ("pairs", "labels")))
            paths = [path for path in paths if path.parent in homes]
        elif len(paths) > 1:
            raise ArtifactError(
                f"{table}.parquet is in {paths[0].parent} and in {paths[1].parent}; name the folders of "
                "one run"
            )
        found[table] = paths
    return found


def _rows(path: Path, table: str, columns: Sequence[str]) -> Iterator[tuple]:
    """Rows of one of the workflow's tables; NaN (an abstention) becomes None."""
    for frame in iterate_table(path, table, list(columns), rows=_ROWS):
        plain = frame.astype(object).where(frame.notna(), None)
        yield from plain.itertuples(index=False, name=None)


def _fill(spool: Spool, tables: dict[str, list[Path]]) -> int:
    """Bring what must be sorted or joined into the spool; the number of folds."""
    places = RowGroups(tables["references"][0]).places(["reference_id", "role"])
    kept = ((name, number, row) for name, role, number, row in places if role.startswith("pcmp_"))
    spool.fill("refs", ("reference_id", "row_group", "row"), ("reference_id",), kept)
    found = RowGroups(tables["images"][0]).places(["reference_id", "image_id"])
    columns = ("reference_id", "image_id", "row_group", "row")
    spool.fill("images", columns, columns[:2], found)
    # Keys lead: reference first, since everything is walked by reference.
    names = ["reference_id", "pair_id", *(n for n in schema("pairs", 0).names if n not in _PAIR_KEY)]
    spool.fill("pairs", names, _PAIR_KEY, _rows(tables["pairs"][0], "pairs", names))
    names = ["pair_id", "fold", "group", "label", "n_votes", "n_families"]
    labels = _rows(tables["labels"][0], "labels", names)
    quoted = [f'"{n}"' for n in names]  # `group` is a word of SQL
    spool.fill("labels", quoted, quoted[:3], labels)
    fill_votes(spool, _rows(tables["votes"][0], "votes", ["pair_id", "voter", "vote"]))
    return int(spool.one("SELECT 1 + max(fold) FROM labels") or 0)


_PAIR_KEY = ("reference_id", "pair_id")


def fill_votes(spool: Spool, rows: Iterable[tuple]) -> None:
    """Add ``(pair_id, voter, vote)``; a second vote of one voter on one pair is an error."""
    spool.fill("votes", ("pair_id", "voter", "vote"), ("pair_id", "voter"), rows)


def _check_ids(spool: Spool) -> None:
    """Every id must lead somewhere.

    Raises:
        ArtifactError: names the first that does not.
    """
    missing = {
        "images: image {} is of a reference that is not in references": (
            "SELECT image_id FROM images WHERE reference_id NOT IN (SELECT reference_id FROM refs)"
        ),
        "labels: pair {} is not in pairs": (
            "SELECT pair_id FROM labels WHERE pair_id NOT IN (SELECT pair_id FROM pairs)"
        ),
        "votes: pair {} is not in pairs": (
            "SELECT pair_id FROM votes WHERE pair_id NOT IN (SELECT pair_id FROM pairs)"
        ),
    }
    for side in ("image_a", "image_b"):
        missing[f"pairs: {side} {{}} is not in images"] = (
            f"SELECT {side} FROM pairs p WHERE NOT EXISTS "
            f"(SELECT 1 FROM images i WHERE i.reference_id = p.reference_id AND i.image_id = p.{side})"
        )
    for sentence, query in missing.items():
        first = spool.one(f"{query} LIMIT 1")
        if first is not None:
            raise ArtifactError(f"{sentence.format(repr(first))}; name the folders of one run")


def _write_images(
    spool: Spool,
    tables: dict[str, list[Path]],
    folder: Path,
    seed: int,
    shards: int,
    keep: bool,
    counts: dict[str, Any],
    outside: dict[str, Any],
) -> list[dict[str, Any]]:
    """Shards and recipe; ``file, rows, sha256`` of each shard."""
    total = spool.one("SELECT count(*) FROM refs")
    if not 1 <= shards <= total:
        raise ValueError(f"shards: expected 1 to {total}, as many as there are references, got {shards}")
    sources = {name: RowGroups(tables[name][0]) for name in ("references", "images")}
    counted: dict[str, Counter[str]] = {
        key: Counter() for key in ("references", "images", "families", "targets_db")
    }
    references = spool.select("SELECT reference_id, row_group, row FROM refs ORDER BY reference_id")
    written = []
    with (
        write_rows(folder / "recipe.parquet", schema("recipe")) as recipe,
        tqdm(total=total, desc="export", unit="reference") as progress,
    ):
        for number in range(shards):
            path = folder / release.shard_name(number)
            with write_rows(path, schema("images")) as rows:
                # Whole references, as evenly as can be.
                for place in range(total * number // shards, total * (number + 1) // shards):
                    name, group, row = next(references)
                    reference = sources["references"].row(group, row)
                    mine = spool.select(
                        "SELECT row_group, row FROM images WHERE reference_id = ? ORDER BY image_id", name
                    )
                    first = place == total * number // shards
                    distorted = (sources["images"].row(*where) for where in mine)
                    for meta, made_by, stored in _of_reference(
                        reference, distorted, seed, check=first, outside=outside
                    ):
                        recipe.add((*meta, *made_by))
                        rows.add(shard_row(meta, stored))
                        _count(counted, dict(zip(schema("recipe").names, meta, strict=False)))
                    progress.update()
            written.append({"file": path.name, "rows": rows.count, "sha256": sha256_of(path)})
            if not keep:
                path.unlink()
    counts.update({key: dict(sorted(counter.items())) for key, counter in counted.items()})
    return written


def _of_reference(
    reference: dict[str, Any],
    distorted: Iterable[dict[str, Any]],
    seed: int,
    *,
    check: bool,
    outside: dict[str, Any],
) -> Iterator[tuple[tuple, tuple, bytes]]:
    """(columns of the image, columns of the recipe alone, stored bytes): the reference, then its images."""
    pixels = decode_image(reference["image"])
    height, width = pixels.shape[:2]
    own = pixel_sha256(pixels)
    name, role = reference["reference_id"], reference["role"]
    shared = (name, reference["photograph"], role, reference["label"], reference["caption"])
    nothing = (None,) * 6
    # No seed is 0 rather than empty: pandas would read a column with gaps as float and round the others.
    yield (name, *shared, *nothing, width, height, own), (own, 0), reference["image"]
    pen = Pen(pixels, outside)
    for row in distorted:
        image = decode_image(row["image"])
        digest, drawn_from = pixel_sha256(image), field_seed(seed, name, row["family"])
        if check and not np.array_equal(pen.draw(row["family"], drawn_from, row["strength"]), image):
            raise ArtifactError(
                f"image {row['image_id']!r} cannot be drawn again with seed {seed} and the libraries of this "
                "environment; pass the configuration that made the tables, or make them anew"
            )
        measured = (row["strength"], row["psnr_db"], row["evaluations"])
        kind = (row["target_db"], row["family"], row["photometric"])
        yield (
            (row["image_id"], *shared, *kind, *measured, width, height, digest),
            (own, drawn_from),
            row["image"],
        )


def shard_row(meta: tuple, stored: bytes) -> tuple:
    """A row of a shard: the columns of an image, then its encoded pixels."""
    return (*meta, {"bytes": stored, "path": f"{meta[0]}.webp"})


def _count(counted: dict[str, Counter[str]], image: dict[str, Any]) -> None:
    if image["family"] is None:
        counted["references"][image["role"]] += 1
        return
    counted["images"][image["role"]] += 1
    counted["families"][image["family"]] += 1
    counted["targets_db"][f"{image['target_db']:g}"] += 1


def _write_pairs(spool: Spool, folder: Path, n_folds: int, counts: dict[str, Any]) -> None:
    """Pairs with the labels of every fold and group beside them, empty where a pair has none."""
    names = schema("pairs", 0).names
    places = {(fold, group): place for place, (fold, group, _) in enumerate(label_columns(n_folds))}
    pairs: Counter[str] = Counter()
    unlabelled: Counter[str] = Counter()
    found = spool.select(
        f'SELECT {", ".join(f"p.{n}" for n in names)}, fold, "group", label, n_votes, n_families '
        "FROM pairs p LEFT JOIN labels l ON l.pair_id = p.pair_id ORDER BY p.reference_id, p.pair_id"
    )
    with write_rows(folder / "pairs.parquet", schema("pairs", n_folds)) as rows:
        for pair, labels in groupby(found, key=itemgetter(slice(len(names)))):
            wide: list[Any] = [None] * (3 * len(places))
            for fold, group, *values in (row[len(names) :] for row in labels):
                if group is None:
                    continue
                if group not in release.GROUPS:
                    raise ArtifactError(
                        f"labels: group {group!r} is none of {', '.join(release.GROUPS)}; mend it"
                    )
                place = 3 * places[fold, group]
                wide[place : place + 3] = values
            # SQLite knows no booleans.
            plain = [bool(v) if n == "photometric" else v for n, v in zip(names, pair, strict=True)]
            rows.add((*plain, *wide))
            role = pair[names.index("role")]
            pairs[role] += 1
            unlabelled[role] += all(
                wide[3 * place] is None for (_, group), place in places.items() if group == "seen"
            )
    counts["pairs"], counts["unlabelled"] = dict(sorted(pairs.items())), dict(sorted(unlabelled.items()))


def write_votes(spool: Spool, folder: Path) -> Counter[tuple[str, str]]:
    """Write the spooled votes in the order of the pairs; (voter, ``cast | ties | abstained``) -> how many."""
    counted: Counter[tuple[str, str]] = Counter()
    found = spool.select(
        "SELECT v.pair_id, v.voter, v.vote FROM pairs p CROSS JOIN votes v ON v.pair_id = p.pair_id "
        "ORDER BY p.reference_id, p.pair_id, v.voter"
    )
    with write_rows(folder / "votes.parquet", schema("votes")) as rows:
        for row in found:
            rows.add(row)
            _, voter, vote = row
            counted[voter, "abstained" if vote is None else "cast"] += 1
            counted[voter, "ties"] += vote == 0.5
    return counted


def vote_counts(counted: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    return {
        voter: {key: counted[voter, key] for key in ("cast", "ties", "abstained")}
        for voter in sorted({voter for voter, _ in counted})
    }


def _write_small(tables: dict[str, list[Path]], folder: Path, version: str, counts: dict[str, Any]) -> None:
    """Voters, partition and drops, which fit in memory."""
    partition = read_table(tables["partition"][0], "partition", columns=schema("partition").names)
    counts["photographs"] = len(partition)
    with write_rows(folder / "partition.parquet", schema("partition")) as rows:
        for row in sorted(partition.itertuples(index=False, name=None)):
            rows.add(row)
    with write_rows(folder / "voters.parquet", schema("voters")) as rows:
        for row in voter_rows(tables["voters"][0], version):
            rows.add(row)
    with write_rows(folder / "drops.parquet", schema("drops")) as rows:
        names = schema("drops").names
        for path in tables["drops"]:
            frame = read_table(path, "drops").reindex(columns=names).astype(object)
            for row in frame.where(frame.notna(), None).itertuples(index=False, name=None):
                rows.add(row)


def voter_rows(path: Path, since: str) -> list[tuple]:
    """The rows of a ``voters`` table, sorted by name, with the version that brought them."""
    names = [name for name in schema("voters").names if name != "since"]
    return sorted((*row, since) for row in _rows(path, "voters", names))
