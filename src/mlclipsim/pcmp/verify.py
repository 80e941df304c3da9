"""Check a published PCMP, file by file and pixel by pixel, and draw shards again that are broken or absent.

All tables are sorted alike, so they are walked side by side: memory does not grow with the data set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from mlclipsim.artifacts import ArtifactError, sha256_of
from mlclipsim.datasets.references import image_files, square
from mlclipsim.images import ImageError, decode_image, encode_image, read_image
from mlclipsim.pcmp import release
from mlclipsim.pcmp.export import shard_row
from mlclipsim.pcmp.recipe import Pen, libraries, pixel_sha256
from mlclipsim.pcmp.release import Description, read_checksums, schema, walk, write_rows
from mlclipsim.pcmp.spool import RowGroups

__all__ = ["Problem", "rebuild", "verify"]

_IMAGE = schema("recipe").names[:-2]  # what a shard says about an image, as the recipe does
_PAST_ALL = "\U0010ffff"  # sorts behind every id
_AT = {name: place for place, name in enumerate(schema("recipe").names)}


@dataclass(frozen=True)
class Problem:
    """The first thing that is wrong with a file, in one sentence."""

    file: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}: {self.text}"


def verify(folder: Path | str) -> list[Problem]:
    """What is wrong with a data set, at most one problem per file; nothing is empty.

    Checksums, columns, the order and existence of every id, and the pixels of every image against the recipe.
    Where a file is damaged already, what would be compared with it is not.

    Raises:
        ArtifactError: no data set, another layout, or no list of checksums.
    """
    folder = Path(folder)
    description = Description.read(folder)
    problems = _damaged(folder, description)

    def sound(*names: str) -> bool:
        return not any(name in problems for name in names)

    def check(file: str, what: Callable[..., None], *arguments: Any) -> None:
        try:
            what(*arguments)
        except ArtifactError as error:
            problems.setdefault(file, str(error).removeprefix(f"{file}: "))

    for table in release.TABLES:
        name = f"{table}.parquet"
        if sound(name):
            check(name, _columns, folder / name, schema(table, len(description.folds)))
    if sound("recipe.parquet", "partition.parquet"):
        check("recipe.parquet", _check_recipe, folder, description)
    if sound("recipe.parquet", "pairs.parquet"):
        check("pairs.parquet", _check_pairs, folder, description)
    if sound("pairs.parquet", "voters.parquet", "votes.parquet"):
        check("votes.parquet", _check_votes, folder, description)
    if sound("recipe.parquet"):
        recipe = walk(folder / "recipe.parquet", schema("recipe"))
        for shard in description.shards:
            expected = islice(recipe, shard["rows"])
            name = shard["file"]
            if sound(name) and (folder / name).is_file():
                check(name, _check_shard, folder / name, expected)
            for _ in expected:  # what the check left
                pass
    return [Problem(file, problems[file]) for file in sorted(problems)]


def _damaged(folder: Path, description: Description) -> dict[str, str]:
    """File -> problem, of files that are missing, unlisted, or of other bytes than listed."""
    signed = read_checksums(folder)
    # Shards that were left out have their checksums in the description.
    signed |= {shard["file"]: shard["sha256"] for shard in description.shards}
    optional = set() if description.includes_images else set(release.shard_names(description))
    problems = {}
    for name in sorted({*description.files, *signed}):
        if not (folder / name).is_file():
            if name not in optional:
                problems[name] = "is missing; fetch it again"
        elif name not in signed:
            problems[name] = f"is not listed in {release.CHECKSUMS}; fetch that again"
        elif (found := sha256_of(folder / name)) != signed[name]:
            problems[name] = (
                f"expected SHA-256 {signed[name][:12]}..., got {found[:12]}...: damaged or changed; fetch "
                "it again"
            )
    for path in sorted(folder.glob("*.parquet")):
        if path.name not in signed:
            problems[path.name] = "belongs to no data set of this description; remove it"
    return problems


def _columns(path: Path, declared: Any) -> None:
    with release.open_table(path, declared):
        pass


def _check_recipe(folder: Path, description: Description) -> None:
    """Order, the reference of every image, and the role of every photograph."""
    roles = {name: role for name, _, role in walk(folder / "partition.parquet", schema("partition"))}
    if len(roles) != description.counts["photographs"]:
        raise ArtifactError(
            f"partition.parquet has {len(roles)} distinct photographs, expected "
            f"{description.counts['photographs']}; fetch it again"
        )
    last: tuple = ("",)
    own: tuple = ()  # reference_id, sha256
    for row in walk(folder / "recipe.parquet", schema("recipe")):
        image, reference = row[_AT["image_id"]], row[_AT["reference_id"]]
        is_reference = row[_AT["family"]] is None
        key = (reference or "", not is_reference, image or "")
        if key <= last:
            raise ArtifactError(f"image {image!r} is there twice or out of order; fetch the file again")
        last = key
        if is_reference:
            own = (image, row[_AT["sha256"]])
        if own != (reference, row[_AT["reference_sha256"]]):
            raise ArtifactError(
                f"image {image!r} is of reference {reference!r}, which is not there or has other pixels; "
                "fetch the file again"
            )
        photograph, role = row[_AT["photograph"]], row[_AT["role"]]
        if roles.get(photograph) != role:
            raise ArtifactError(
                f"image {image!r} is of role {role}, but its photograph {photograph!r} is of "
                f"{roles.get(photograph, 'none')} in partition.parquet; fetch both again"
            )
    if sum(shard["rows"] for shard in description.shards) != _length(folder / "recipe.parquet"):
        raise ArtifactError("its rows are not as many as those of all shards; fetch the file again")


def _length(path: Path) -> int:
    with release.open_table(path, schema("recipe")) as stored:
        return stored.metadata.num_rows


def _check_pairs(folder: Path, description: Description) -> None:
    """Both images of a pair are distorted images of its reference, with the family and level it says."""
    names = ("reference_id", "image_id", "family", "psnr_db", "role", "target_db")
    recipe = walk(folder / "recipe.parquet", schema("recipe"), names)
    blocks = groupby(recipe, key=itemgetter(0))
    declared = schema("pairs", len(description.folds))
    sides = ("image_a", "family_a", "psnr_a_db", "image_b", "family_b", "psnr_b_db")
    columns = ("reference_id", "pair_id", "role", "target_db", *sides)
    last, current, known = ("", ""), "", {}
    for row in walk(folder / "pairs.parquet", declared, columns):
        (role, target_db), ends = row[2:4], row[4:]
        reference, pair = row[0] or "", row[1] or ""
        if (reference, pair) <= last:
            raise ArtifactError(f"pair {pair!r} is there twice or out of order; fetch the file again")
        last = (reference, pair)
        while current < reference:
            current, block = next(blocks, (_PAST_ALL, iter(())))
            known = {image[1]: image[2:] for image in block}
        for image, *said in (ends[:3], ends[3:]):
            if current != reference or image not in known:
                raise ArtifactError(
                    f"pair {pair!r} names image {image!r}, which recipe.parquet has not; fetch the file again"
                )
            if known[image] != (*said, role, target_db):
                raise ArtifactError(
                    f"pair {pair!r} says {said[0]} at {said[1]} dB of image {image!r}, which is "
                    f"{known[image][0]} at {known[image][1]} dB in recipe.parquet; fetch both again"
                )


def _check_votes(folder: Path, description: Description) -> None:
    """Every vote is of a known voter on a known pair, once; every voter came with a known version."""
    versions = {entry["version"] for entry in description.history}
    voters = dict(walk(folder / "voters.parquet", schema("voters"), ("voter", "since")))
    late = sorted(set(voters.values()) - versions)
    if late:
        raise ArtifactError(
            f"voters.parquet names the versions {late}, the data set is of {description.version}; fetch "
            "both again"
        )
    declared = schema("pairs", len(description.folds))
    pairs = (pair for (pair,) in walk(folder / "pairs.parquet", declared, ("pair_id",)))
    votes = groupby(walk(folder / "votes.parquet", schema("votes")), key=itemgetter(0))
    for pair, ballots in votes:
        if not any(pair == known for known in pairs):  # goes on where the last one was found
            raise ArtifactError(
                f"a vote is on pair {pair!r}, which pairs.parquet has not (or earlier); fetch the file again"
            )
        last = ""
        for _, voter, vote in ballots:
            if voter not in voters:
                raise ArtifactError(
                    f"a vote is of {voter!r}, whom voters.parquet has not; fetch the file again"
                )
            if voter <= last:
                raise ArtifactError(
                    f"{voter} votes twice on pair {pair!r}, or out of order; fetch the file again"
                )
            if vote not in (None, 0.0, 0.5, 1.0):
                raise ArtifactError(
                    f"a vote on pair {pair!r} is {vote}, expected 0, 1/2, 1 or none; fetch it again"
                )
            last = voter


def _check_shard(path: Path, expected: Iterator[tuple]) -> None:
    """The rows of a shard are those of the recipe, and its pixels have their SHA-256."""
    rows = walk(path, schema("images"))
    for said in expected:
        row = next(rows, None)
        if row is None:
            raise ArtifactError(f"ends before image {said[0]!r}; fetch it again")
        if row[:-1] != said[: len(_IMAGE)]:
            raise ArtifactError(
                f"has the row of {row[0]!r} where recipe.parquet has another one, of {said[0]!r}; fetch it "
                "again"
            )
        try:
            found = pixel_sha256(decode_image(row[-1]["bytes"]))
        except (ImageError, TypeError) as error:
            raise ArtifactError(f"image {row[0]!r} cannot be decoded ({error}); fetch it again") from None
        if found != said[_AT["sha256"]]:
            raise ArtifactError(
                f"image {row[0]!r} has pixels of SHA-256 {found[:12]}..., expected "
                f"{said[_AT['sha256']][:12]}...; fetch it again"
            )
    if next(rows, None) is not None:
        raise ArtifactError("has more images than the recipe; fetch it again")


def rebuild(folder: Path | str, references: Path | str, problems: list[Problem] | None = None) -> list[str]:
    """Draw the shards that are absent or named by ``problems`` again; the others are not touched.

    Args:
        references: a ``references.parquet`` of the workflow, or a folder of the photographs (named as in
            ``partition.parquet``), which are cropped as the references were.
        problems: what :func:`verify` found; None: it is called.

    Returns:
        the names of the shards that were made, each with the bytes that it was published with.

    Raises:
        ArtifactError: the recipe itself is damaged, a reference is missing or has other pixels, or these
            libraries draw other pixels or store other bytes. Nothing is replaced then.
    """
    folder = Path(folder)
    description = Description.read(folder)
    problems = verify(folder) if problems is None else problems
    named = {problem.file for problem in problems}
    for name in ("recipe.parquet", release.DESCRIPTION):
        if name in named:
            raise ArtifactError(f"{name} is damaged, and shards are made from it; fetch it first")
    find = _References(Path(references))
    recipe = walk(folder / "recipe.parquet", schema("recipe"))
    made = []
    for shard in description.shards:
        expected = islice(recipe, shard["rows"])
        path = folder / shard["file"]
        if path.is_file() and path.name not in named:
            for _ in expected:
                pass
            continue
        made.append(path.name)
        _rebuild_shard(path, shard["sha256"], expected, find, description)
    return made


def _rebuild_shard(
    path: Path, sha256: str, recipe: Iterator[tuple], find: _References, description: Description
) -> None:
    fresh = path.with_name(f".{path.name}.rebuilt")
    try:
        with write_rows(fresh, schema("images")) as rows:
            pen: Pen | None = None
            for row in recipe:  # each reference, then its distorted images
                if pen is None or row[_AT["family"]] is None:
                    image = find(row)
                    pen = Pen(image)
                else:
                    image = pen.draw(row[_AT["family"]], row[_AT["field_seed"]], row[_AT["strength"]])
                if pixel_sha256(image) != row[_AT["sha256"]]:
                    raise ArtifactError(
                        f"image {row[0]!r} comes out with other pixels here{_versions(description)}; "
                        "use the environment that drew the data set"
                    )
                rows.add(shard_row(row[: len(_IMAGE)], encode_image(image)))
        if sha256_of(fresh) != sha256:
            raise ArtifactError(
                f"{path.name}: every pixel is right, but the file's bytes differ{_versions(description)}; "
                "use the environment that wrote the data set, or fetch the file"
            )
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def _versions(description: Description) -> str:
    here = libraries()
    other = [f"{k} {v}, here {here.get(k)}" for k, v in description.libraries.items() if here.get(k) != v]
    return f" ({'; '.join(other)})" if other else " (same libraries: another kind of processor)"


class _References:
    """The reference images, from a table or from photographs; checked against the recipe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        table = path / "references.parquet" if path.is_dir() else path
        self._table: RowGroups | None = None
        if table.is_file():
            self._table = RowGroups(table)
            self._places = {name: place for name, *place in self._table.places(["reference_id"])}
        elif path.is_dir():
            self._files = image_files(path)
        else:
            raise ArtifactError(
                f"{path} is neither a references.parquet nor a folder of photographs; name where they are"
            )

    def __call__(self, recipe: tuple) -> np.ndarray:
        """uint8 ``(H, W, 3)`` of the reference that a row of the recipe describes."""
        name, photograph = recipe[_AT["reference_id"]], recipe[_AT["photograph"]]
        try:
            if self._table:
                image = decode_image(self._table.row(*self._places[name])["image"])
            else:
                image = square(read_image(self._files[photograph]), recipe[_AT["height"]], photograph)
        except KeyError:
            raise ArtifactError(f"reference {name!r} ({photograph}) is not in {self._path}; add it") from None
        if pixel_sha256(image) != recipe[_AT["sha256"]]:
            raise ArtifactError(
                f"reference {name!r} has other pixels in {self._path} than in the recipe; name the one it "
                "was made from"
            )
        return image
