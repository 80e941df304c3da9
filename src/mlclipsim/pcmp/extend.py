"""Later voters: a minor version of a published PCMP with their votes; pairs and images stay as they are."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

from mlclipsim.artifacts import ArtifactError, iterate_table, sha256_of
from mlclipsim.pcmp import release
from mlclipsim.pcmp.export import describe, fill_votes, staged, vote_counts, voter_rows, write_votes
from mlclipsim.pcmp.release import Description, read_checksums, schema, walk, write_rows
from mlclipsim.pcmp.spool import Spool

__all__ = ["add_votes"]

_READ = ("pairs.parquet", "votes.parquet", "voters.parquet", "drops.parquet", release.DESCRIPTION)
_CHANGED = ("votes.parquet", "voters.parquet", release.DESCRIPTION, release.DATASHEET, release.CHECKSUMS)


def add_votes(folder: Path | str, votes: Path | str, voters: Path | str, output: Path | str) -> Description:
    """Write to ``output`` the data set of ``folder`` with further voters, its minor version one higher.

    The files that stay the same are hard links where the file system allows that, so a version costs the size
    of its votes. The labels in ``pairs`` remain those of the voters that they were made from.

    Args:
        votes: a ``votes`` table of the workflow (``pair_id, voter, vote``), of new voters only.
        voters: a ``voters`` table with a row for each of them; rows of others are left out.

    Raises:
        ArtifactError: a damaged data set, a vote on an unknown pair, of a voter without a row or one who has
            voted already, or another value than 0, 1/2, 1 or none.
        ValueError: ``output`` exists.
    """
    folder, votes = Path(folder), Path(votes)
    description = Description.read(folder)
    signed = read_checksums(folder)
    for name in _READ:
        if not (folder / name).is_file() or sha256_of(folder / name) != signed.get(name):
            raise ArtifactError(f"{folder / name} is missing or damaged; fetch it again before adding votes")
    major, minor, _ = release.check_version(description.version)
    version = f"{major}.{minor + 1}.0"
    old = list(walk(folder / "voters.parquet", schema("voters")))
    with staged(output) as fresh:
        with Spool(fresh / ".spool") as spool:
            declared = schema("pairs", len(description.folds))
            pairs = walk(folder / "pairs.parquet", declared, ("reference_id", "pair_id"))
            spool.fill("pairs", ("reference_id", "pair_id"), ("reference_id", "pair_id"), pairs)
            new = _new_votes(votes, {row[0] for row in old})
            fill_votes(spool, new)
            lost = spool.one(
                "SELECT pair_id FROM votes WHERE pair_id NOT IN (SELECT pair_id FROM pairs) LIMIT 1"
            )
            if lost is not None:
                raise ArtifactError(
                    f"{votes}: expected votes on pairs of {description.name}, got pair {lost!r}; leave it out"
                )
            names = [name for (name,) in spool.select("SELECT DISTINCT voter FROM votes ORDER BY voter")]
            rows = {row[0]: row for row in voter_rows(Path(voters), version)}
            unknown = [name for name in names if name not in rows]
            if unknown or not names:
                raise ArtifactError(
                    f"{voters} has no row for {unknown}; add one each" if names else f"{votes} holds no vote"
                )
            fill_votes(spool, walk(folder / "votes.parquet", schema("votes")))
            counted = write_votes(spool, fresh)
        with write_rows(fresh / "voters.parquet", schema("voters")) as table:
            for row in sorted(chain(old, (rows[name] for name in names))):
                table.add(row)
        for path in sorted(folder.iterdir()):
            if path.name not in _CHANGED and path.name in signed:
                _link(path, fresh / path.name)
        change = {"version": version, "change": f"votes of {', '.join(names)}"}
        description = replace(
            description,
            version=version,
            counts=description.counts | {"votes": vote_counts(counted)},
            history=[*description.history, change],
        )
        describe(fresh, description)
    return description


def _new_votes(path: Path, known: set[str]) -> Iterator[tuple]:
    for frame in iterate_table(path, "votes", schema("votes").names, rows=4096):
        again = sorted(set(frame["voter"]) & known)
        if again:
            raise ArtifactError(f"{path}: {', '.join(again)} voted already; leave those votes out")
        values = frame["vote"]
        wrong = frame[values.notna() & ~values.isin([0.0, 0.5, 1.0])]
        if len(wrong):
            raise ArtifactError(
                f"{path}: expected votes of 0, 1/2, 1 or none, got {wrong['vote'].iloc[0]} on pair "
                f"{wrong['pair_id'].iloc[0]!r}; mend it"
            )
        plain = frame.astype(object).where(frame.notna(), None)
        yield from plain.itertuples(index=False, name=None)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
